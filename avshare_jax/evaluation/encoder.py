"""Encodes videos with a run's network: features of every clip and of the whole video, from every layer."""

import collections
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.data.clips import Clips
from avshare_jax.data.elements import presence_flags
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.extraction import Record, extract
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.sources.listing import Video
from avshare_jax.data.unreadable import UnreadableError
from avshare_jax.data.windows import count_clips, cut_window, window_starts
from avshare_jax.interop.workdirs import read_network
from avshare_jax.models import MODALITIES
from avshare_jax.models.placement import compiler_options
from avshare_jax.settings import UserError
from avshare_jax.training.checksums import tree_checksums

JPEG_QUALITY = 90
"""Of the frames between decoding and cropping, as in preparation."""

LAYERS = {
    "early": ("cnn", "multimodal"),
    "mid": ("cnn", "unimodal", "multimodal"),
    "late": ("cnn", "unimodal"),
}
"""The layers that a network of each kind of fusion has."""

CLIPS, BOS = "_clips", "_bos"

Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Encoder:
    """A run's network and what it needs to read videos; made by `avshare_jax.features.load`.

    Attributes:
      config: of the run.
      step: of the checkpoint.
      frontend: rates and sizes at which media files are read.
      clips: how clips are cut.
      batch_size: windows that the network takes at once.
    """

    config: ConfigDict
    step: int
    frontend: FrontEnd
    clips: Clips
    batch_size: int
    _variables: Mapping[str, Any] = field(repr=False)
    _apply: Callable[..., dict[str, jax.Array]] = field(repr=False)

    @classmethod
    def of(cls, workdir: str | os.PathLike[str], batch_size: int = 1) -> "Encoder":
        """Loads the last checkpoint of a run, trained or imported; `UserError` where there is none."""
        config, step, variables = read_network(os.path.expanduser(workdir))
        frontend = FrontEnd(**config.data.frontend)
        clips = Clips.from_config(config.data, SimpleNamespace(frontend=frontend))
        network = models.build(config.model)

        def apply(variables: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            return name_outputs(network.apply(variables, batch, train=False), config.model.fusion)

        return cls(
            config, step, frontend, clips, batch_size, variables, jax.jit(apply, compiler_options=compiler_options())
        )

    def encode(self, path: str | os.PathLike[str], max_seconds: float = 600.0) -> Features:
        """Encodes a media file.

        Args:
          path: a file with image, sound or both.
          max_seconds: what comes later is left out.

        Returns:
          float32 arrays; C is the number of the video's clips. For each LAYER (`cnn`, and as far as the network has
          them `unimodal` and `multimodal`) and MODALITY (`visual`, `audio`): `LAYER_MODALITY_clips` (C, D), its mean
          `LAYER_MODALITY` (D,), and, but for the CNN, `LAYER_MODALITY_bos` (D,). `clip_seconds` (C,) is when the clips
          start. What the file or the network lacks is not there: of a file without sound no `audio`, and with mid
          fusion, whose multimodal Transformer takes both, no `multimodal`.

        Raises:
          UserError: the file cannot be used; says why.
        """
        name = os.fspath(path)
        options = {"jpeg_quality": JPEG_QUALITY, "min_seconds": 0.0, "max_seconds": max_seconds}
        try:
            record, outcome = extract(Video(name, name), "", self.frontend, **options)
        except (MemoryError, DatasetError) as error:
            raise UserError(f"{name} cannot be used. {shortage(error)}") from error
        if record is None:
            raise UserError(f"{name} cannot be used. {outcome.reason}")
        (found,) = self.encode_records([record])
        if isinstance(found, str):
            raise UserError(f"{name} cannot be used: {found}.")
        return found

    def encode_records(self, records: Iterable[Record]) -> Iterator[Features | str]:
        """Encodes the records of media files or of a data set as they come, and keeps none longer than it is cut.

        Args:
          records: with `frames`, `log_mel`, `has_video` and `has_audio`.

        Yields:
          For each record in turn what `encode` returns, or what is wrong with it.

        Raises:
          UserError: the network gives values that are not finite.
        """
        videos: collections.deque[_Video] = collections.deque()
        cut: list[tuple[_Video, int, dict[str, np.ndarray]]] = []
        for record in records:
            num_clips = count_clips(record, self.clips)
            starts = window_starts(num_clips, self.clips.num_clips)
            videos.append(video := _Video(presence_flags(record), num_clips, len(starts)))
            for start in starts:
                cut.append((video, start, self._cut(record, video, start)))
                if len(cut) == self.batch_size:
                    self._run(cut)
                    cut.clear()
            while videos and videos[0].is_done:
                yield self._join(videos.popleft())
        if cut:
            self._run(cut)
        yield from map(self._join, videos)

    def widths(self) -> dict[str, int]:
        """D of every `LAYER_MODALITY`."""
        clips = self.clips
        sizes = {
            "frames": ((clips.num_clips, clips.frames_per_clip, clips.crop, clips.crop, 3), np.uint8),
            "log_mel": ((clips.num_clips, clips.mel_frames, clips.mels), np.float32),
        }
        batch = {name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in sizes.items()}
        shapes = jax.eval_shape(self._apply, self._variables, batch)
        return {name: leaf.shape[-1] for name, leaf in shapes.items() if not name.endswith(BOS)}

    def weights_digest(self) -> str:
        """Twelve hexadecimal digits that differ for networks that differ in any weight."""
        return hashlib.sha256(json.dumps(tree_checksums(self._variables), sort_keys=True).encode()).hexdigest()[:12]

    def is_there(self, name: str, record: Mapping[str, Any]) -> bool:
        """Whether the network gives the array `name`, without `_clips` or `_bos`, for a record with these flags."""
        layer, modality = name.split("_")
        has = {"visual": bool(record["has_video"]), "audio": bool(record["has_audio"])}
        return has[modality] and (layer != "multimodal" or self.config.model.fusion == "early" or all(has.values()))

    def _cut(self, record: Record, video: "_Video", start: int) -> dict[str, np.ndarray]:
        """Cuts a window, an empty one where that fails, and notes why."""
        short_side = (self.clips.min_short_side + self.clips.max_short_side) // 2
        try:
            return cut_window(record, self.clips, start, short_side) | video.flags
        except UnreadableError as error:
            video.problem = str(error)
            empty = {"frames": [], "log_mel": np.zeros((0, self.clips.mels), np.float32)}
            return cut_window(empty, self.clips, 0, short_side) | video.flags

    def _run(self, cut: Sequence[tuple["_Video", int, dict[str, np.ndarray]]]) -> None:
        """Runs the network on windows, padded to a whole batch, and gives the outputs to their videos."""
        windows = [window for _, _, window in cut]
        padded = windows + windows[-1:] * (self.batch_size - len(windows))
        batch = {name: np.stack([window[name] for window in padded]) for name in padded[0]}
        outputs = jax.device_get(self._apply(self._variables, batch))
        for row, (video, start, _) in enumerate(cut):
            video.outputs.append((start, {name: value[row] for name, value in outputs.items()}))

    def _join(self, video: "_Video") -> Features | str:
        """Joins the windows of a video: each clip once, the mean of all clips, and the mean of the windows' BOS."""
        if video.problem:
            return video.problem
        per_window, stride = self.clips.num_clips, self.clips.clip_stride
        found: Features = {"clip_seconds": (np.arange(video.num_clips) * stride / self.clips.fps).astype(np.float32)}
        for name in video.outputs[0][1]:
            if not self.is_there(name.removesuffix(BOS), video.flags):
                continue
            values = [outputs[name] for _, outputs in video.outputs]
            if name.endswith(BOS):
                found[name] = np.mean(values, axis=0)
                continue
            done, kept = 0, []
            for (start, _), value in zip(video.outputs, values, strict=True):
                kept.append(value[done - start : min(per_window, video.num_clips - start)])
                done = start + per_window
            found[name + CLIPS] = np.concatenate(kept)
            found[name] = found[name + CLIPS].mean(axis=0)
        if not all(np.isfinite(value).all() for value in found.values()):
            raise UserError("The network gives features that are not finite: this checkpoint has diverged.")
        return found


@dataclass
class _Video:
    """What is kept of a record while its windows go through the network."""

    flags: dict[str, np.bool_]
    num_clips: int
    num_windows: int
    outputs: list[tuple[int, Features]] = field(default_factory=list)
    problem: str = ""

    @property
    def is_done(self) -> bool:
        return len(self.outputs) == self.num_windows


def name_outputs(outputs: Mapping[str, jax.Array], fusion: str) -> dict[str, jax.Array]:
    """The network's outputs by layer and modality.

    Args:
      outputs: of `AVBert` for both modalities.
      fusion: of the network.

    Returns:
      `LAYER_MODALITY` (B, S, D) float32, and but for the CNN `LAYER_MODALITY_bos` (B, D).
    """
    tokens = {"unimodal": {name: outputs[f"{name}_tokens"] for name in MODALITIES}}
    if "multimodal_tokens" in outputs:
        halves = jnp.split(outputs["multimodal_tokens"], 2, axis=1)
        tokens["multimodal"] = dict(zip(MODALITIES, halves, strict=True))
    found = {f"cnn_{name}": outputs[f"{name}_features"] for name in MODALITIES}
    for layer in LAYERS[fusion][1:]:
        for name, x in tokens[layer].items():
            found |= {f"{layer}_{name}": x[:, 1:], f"{layer}_{name}{BOS}": x[:, 0]}
    return {name: x.astype(jnp.float32) for name, x in found.items()}
