"""Multi-view tests: every view of every video scored once, on any number of devices and processes, and pooled.

Shapes: B views, C classes.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.models.placement import compiler_options
from avshare_jax.training.hosts import gather_arrays
from avshare_jax.training.mesh import make_mesh

Batch = Mapping[str, Any]
Scorer = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]

POOLS = {"mean": np.add, "max": np.maximum}
ROW = "row"


@dataclass
class Video:
    """What is known of a video so far.

    Attributes:
      label: its label, () int, or labels (C,) of zeros and ones.
      present: which modalities it has.
      views: that were scored.
      scores: by the choice of modalities, (C,) float64: the sum of its views' scores, or the largest of each.
    """

    label: np.ndarray
    present: dict[str, bool]
    views: int = 0
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, scores: Mapping[str, np.ndarray], views: int, pool: str) -> None:
        """Pools in the scores of more views."""
        for choice, score in scores.items():
            known = self.scores.get(choice)
            self.scores[choice] = score if known is None else POOLS[pool](known, score)
        self.views += views


def pooled(video: Video, pool: str) -> dict[str, np.ndarray]:
    """The scores (C,) of a video by the choice of modalities."""
    return {choice: score / video.views if pool == "mean" else score for choice, score in video.scores.items()}


def score_videos(
    score: Scorer, variables: Any, batches: Iterable[Batch], inputs: tuple[str, ...], pool: str, mesh: Mesh
) -> dict[str, Video]:
    """Scores all views and pools those of a video.

    Args:
      score: from `jit_scorer`.
      variables: on all devices.
      batches: this process's rows of batches from `multi_view_batches`; rows that are not `valid` never count.
      inputs: names of the batches' arrays that `score` takes.
      pool: of `POOLS`.
      mesh: from `view_mesh`.

    Returns:
      All videos of all processes by their ids, in the order of these.
    """
    videos: dict[str, Video] = {}
    rows = NamedSharding(mesh, PartitionSpec("data"))
    pending: tuple[Batch, Any] | None = None
    for batch in batches:
        arrays = {name: batch[name] for name in inputs} | {ROW: own_rows(len(batch["valid"]))}
        placed = {name: jax.make_array_from_process_local_data(rows, x) for name, x in arrays.items()}
        # The devices compute this batch while the host pools the one before and reads the next.
        result = score(variables, placed)
        if pending:
            collect(videos, *pending, pool)
        pending = (batch, result)
    if pending:
        collect(videos, *pending, pool)
    return merge(map(from_arrays, gather_arrays(to_arrays(videos))), pool)


def own_rows(count: int) -> np.ndarray:
    """Numbers in the global batch of this process's rows."""
    return np.arange(count, dtype=np.int32) + np.int32(count * jax.process_index())


def collect(videos: dict[str, Video], batch: Batch, result: Mapping[str, jax.Array], pool: str) -> None:
    """Pools this process's rows of a scored batch into its videos."""
    found = {name: np.asarray(x) for name, x in result.items()}
    # How devices are laid out decides in which order rows come back.
    order = np.argsort(found.pop(ROW))[own_rows(len(batch["valid"]))]
    labels = batch["labels"] if "labels" in batch else batch["label"]
    for row in np.flatnonzero(batch["valid"]):
        present = {"visual": bool(batch["has_video"][row]), "audio": bool(batch["has_audio"][row])}
        video = videos.setdefault(batch["video_id"][row], Video(labels[row], present))
        video.add({choice: x[order[row]].astype(np.float64) for choice, x in found.items()}, 1, pool)


def to_arrays(videos: Mapping[str, Video]) -> dict[str, np.ndarray]:
    """Returns what is known of V videos as arrays (V, ...), to send to other processes."""
    known = list(videos.values())
    modalities, choices = (known[0].present, known[0].scores) if known else ((), ())
    return {
        "video_id": np.array(list(videos), np.str_),
        "label": np.array([video.label for video in known]),
        "views": np.array([video.views for video in known], np.int64),
        **{f"present/{name}": np.array([video.present[name] for video in known], bool) for name in modalities},
        **{f"scores/{choice}": np.array([video.scores[choice] for video in known]) for choice in choices},
    }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Video]:
    """Undoes `to_arrays`."""

    def of(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    present, scores = of("present/"), of("scores/")
    return {
        str(video_id): Video(
            arrays["label"][row],
            {name: bool(array[row]) for name, array in present.items()},
            int(arrays["views"][row]),
            {choice: array[row] for choice, array in scores.items()},
        )
        for row, video_id in enumerate(arrays["video_id"])
    }


def merge(parts: Iterable[Mapping[str, Video]], pool: str) -> dict[str, Video]:
    """Pools what several processes have of the same videos."""
    merged: dict[str, Video] = {}
    for part in parts:
        for video_id, video in part.items():
            merged.setdefault(video_id, Video(video.label, video.present)).add(video.scores, video.views, pool)
    return dict(sorted(merged.items()))


def jit_scorer(apply: Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]], mesh: Mesh) -> Scorer:
    """Compiles what `score_videos` runs: scores (B, C) by the choice of modalities, on every device."""

    def score(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return apply(variables, batch) | {ROW: batch[ROW]}

    replicated, options = NamedSharding(mesh, PartitionSpec()), compiler_options(mesh.devices.flat[0].platform)
    return jax.jit(score, out_shardings=replicated, compiler_options=options)


def view_mesh() -> Mesh:
    """All devices in a row, over which views are split."""
    return make_mesh(ConfigDict({"data": -1, "fsdp": 1, "clip": 1}))


def whole_batch(asked: int, spatial_views: int) -> int:
    """The least global batch of at least `asked` views that divides over processes, their devices, and crops."""
    part = math.lcm(spatial_views, jax.local_device_count()) * jax.process_count()
    return -(-asked // part) * part
