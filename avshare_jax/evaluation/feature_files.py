"""Files of features, `.npz` or `.parquet`, written part by part, so that a killed command goes on where it was.

While features are computed, a folder `.NAME.unfinished` beside the file holds what they are of (`settings.json`) and
the parts, each written in one step. The finished file appears in one step as well, and is the same bytes however often
it was interrupted. docs/features.md has the layout of both.
"""

import glob
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avshare_jax.data.records import new_file
from avshare_jax.settings import UserError

SUFFIXES = (".npz", ".parquet")
ABOUT = "about"
CLIPS, BOS = "_clips", "_bos"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """The arrays of features that a file has.

    Attributes:
      widths: D of every `LAYER_MODALITY`.
      class_names: of the input; empty without labels.
    """

    widths: Mapping[str, int]
    class_names: tuple[str, ...]

    def videos(self) -> dict[str, int]:
        """Width of the arrays with a row for each video."""
        bos = {name + BOS: width for name, width in self.widths.items() if not name.startswith("cnn")}
        return dict(self.widths) | bos

    def clips(self) -> dict[str, int]:
        """Width of the arrays with a row for each clip."""
        return {name + CLIPS: width for name, width in self.widths.items()}


@dataclass(frozen=True)
class EncodedVideo:
    """A video with its features.

    Attributes:
      video_id: of the video.
      has_video: whether it has an image.
      has_audio: whether it has sound.
      seconds: its duration.
      note: sentences about what it lacks and what is odd.
      labels: numbers of its classes.
      features: from `Encoder.encode`.
    """

    video_id: str
    has_video: bool
    has_audio: bool
    seconds: float
    note: str
    labels: Sequence[int]
    features: Mapping[str, np.ndarray]


def to_arrays(videos: Sequence[EncodedVideo], skipped: Sequence[tuple[str, str]], layout: Layout) -> Arrays:
    """The arrays of a part: N videos with C clips in all; what a video lacks is not a number."""
    arrays: Arrays = {
        "video_id": np.array([video.video_id for video in videos], np.str_),
        "note": np.array([video.note for video in videos], np.str_),
        "has_video": np.array([video.has_video for video in videos], bool),
        "has_audio": np.array([video.has_audio for video in videos], bool),
        "seconds": np.array([video.seconds for video in videos], np.float32),
        "num_clips": np.array([len(video.features["clip_seconds"]) for video in videos], np.int32),
        "clip_seconds": joined([video.features["clip_seconds"] for video in videos], ()),
        "skipped_id": np.array([name for name, _ in skipped], np.str_),
        "skipped_reason": np.array([reason for _, reason in skipped], np.str_),
    }
    if layout.class_names:
        arrays["labels"] = np.zeros((len(videos), len(layout.class_names)), np.uint8)
        for row, video in enumerate(videos):
            arrays["labels"][row, list(video.labels)] = 1
    for name, width in layout.videos().items():
        missing = np.full(width, np.nan, np.float32)
        arrays[name] = joined([video.features.get(name, missing)[None] for video in videos], (width,))
    for name, width in layout.clips().items():
        found = [
            video.features.get(name, np.full((len(video.features["clip_seconds"]), width), np.nan, np.float32))
            for video in videos
        ]
        arrays[name] = joined(found, (width,))
    return arrays


def joined(rows: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Concatenates arrays of rows of a shape, maybe none, as float32."""
    return np.concatenate([np.zeros((0, *shape), np.float32), *rows])


class FeatureFile:
    """A file of features that is being written, or gone on with."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """Begins a file, or goes on with it.

        Args:
          path: of the file.
          settings: what its content depends on, JSON values.

        Raises:
          UserError: the suffix is unknown, or the file or what is unfinished of it was made of something else.
        """
        if path.suffix not in SUFFIXES:
            raise UserError(f"--output={path} must end in {' or '.join(SUFFIXES)}.")
        self.path, self._settings = path, json.loads(json.dumps(settings))
        self._folder = path.with_name(f".{path.name}.unfinished")
        self.is_finished = path.exists()
        if self.is_finished:
            self._check_same(read_about(path)["settings"], f"The file {path} holds", f"delete {path}")
            return
        noted = self._folder / "settings.json"
        if noted.exists():
            self._check_same(
                json.loads(noted.read_text()), f"{self._folder} holds a part of", f"delete {self._folder} to begin anew"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        for partial in (*self._folder.glob(".*.partial"), *path.parent.glob(f".{glob.escape(path.name)}.*.partial")):
            partial.unlink()  # Of a killed process.
        with new_file(noted) as partial:
            Path(partial).write_text(json.dumps(self._settings))

    def parts(self) -> list[Path]:
        """The parts that are there, from the first to the first that is missing."""
        found = []
        while (path := self._part(len(found))).exists():
            found.append(path)
        return found

    def num_videos(self) -> int:
        """How many videos the parts hold, those included that were skipped."""
        count = 0
        for part in self.parts():
            with np.load(part) as arrays:
                count += len(arrays["video_id"]) + len(arrays["skipped_id"])
        return count

    def add_part(self, arrays: Arrays) -> None:
        """Writes the next part."""
        with new_file(self._part(len(self.parts()))) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)

    def finish(self, layout: Layout) -> dict[str, Any]:
        """Makes the file of the parts, and removes them; returns what the file says about itself."""
        parts = self.parts()
        counts = {"videos": 0, "without_audio": 0, "without_video": 0, "clips": 0}
        skipped: list[dict[str, str]] = []
        for part in parts:
            with np.load(part) as arrays:
                counts["videos"] += len(arrays["video_id"])
                counts["without_audio"] += int(np.sum(~arrays["has_audio"]))
                counts["without_video"] += int(np.sum(~arrays["has_video"]))
                counts["clips"] += int(arrays["num_clips"].sum())
                skipped += [
                    {"video_id": str(name), "reason": str(reason)}
                    for name, reason in zip(arrays["skipped_id"], arrays["skipped_reason"], strict=True)
                ]
        about = {"settings": self._settings, **counts, "skipped": skipped}
        if counts["videos"]:
            write: Callable[..., None] = write_npz if self.path.suffix == ".npz" else write_parquet
            with new_file(self.path) as partial:
                write(partial, parts, layout, about)
        shutil.rmtree(self._folder)
        return about

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.npz"

    def _check_same(self, found: Mapping[str, Any], what: str, otherwise: str) -> None:
        names = sorted({*found, *self._settings})
        different = [
            f"{name} is {found.get(name)} there and {self._settings.get(name)} here"
            for name in names
            if found.get(name) != self._settings.get(name)
        ]
        if different:
            raise UserError(f"{what} other features: {'; '.join(different)}. Choose another --output, or {otherwise}.")


def read_about(path: Path) -> dict[str, Any]:
    """What a file of features says about itself; `UserError` where it is none."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return json.loads(str(file[ABOUT]))
        return json.loads(pq.read_schema(path).metadata[ABOUT.encode()])
    except Exception as error:  # What the readers raise for files that are damaged is theirs, and of many classes.
        raise UserError(f"{path} is there, and is no file of features: choose another --output.") from error


def write_npz(path: str, parts: Sequence[Path], layout: Layout, about: Mapping[str, Any]) -> None:
    """Writes parts as one .npz file, one array after the other and each part by part, so that memory holds one of them.

    Args:
      path: of the file.
      parts: files of `to_arrays`.
      layout: of the parts.
      about: to keep with it.
    """
    small = ("video_id", "note", "has_video", "has_audio", "seconds", "num_clips", "clip_seconds")
    arrays = {name: np.concatenate([array for array in read_each(parts, name)]) for name in small}
    arrays["clip_video"] = np.repeat(np.arange(len(arrays["video_id"]), dtype=np.int32), arrays["num_clips"])
    arrays[ABOUT] = np.array(json.dumps(about))
    large = {
        **{name: (len(arrays["video_id"]), width) for name, width in layout.videos().items()},
        **{name: (len(arrays["clip_video"]), width) for name, width in layout.clips().items()},
    }
    if layout.class_names:
        arrays["class_names"] = np.array(layout.class_names)
        arrays["labels"] = np.concatenate([array for array in read_each(parts, "labels")])
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        for name, shape in large.items():
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for array in read_each(parts, name):
                    file.write(array.astype("<f4").tobytes())


def read_each(parts: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    """Yields one array of every part."""
    for part in parts:
        with np.load(part) as arrays:
            yield arrays[name]


def write_parquet(path: str, parts: Sequence[Path], layout: Layout, about: Mapping[str, Any]) -> None:
    """Writes parts as one Parquet file with a row for each video, a row group for each part; as `write_npz`."""
    schema = parquet_schema(layout).with_metadata({ABOUT: json.dumps(about)})
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            with np.load(part) as arrays:
                writer.write_table(to_table(arrays, layout, schema))


def parquet_schema(layout: Layout) -> pa.Schema:
    """The columns of a Parquet file."""
    fields = [("video_id", pa.string()), ("note", pa.string()), ("has_video", pa.bool_()), ("has_audio", pa.bool_())]
    fields += [("seconds", pa.float32())]
    if layout.class_names:
        fields.append(("labels", pa.list_(pa.string())))
    fields.append(("clip_seconds", pa.list_(pa.float32())))
    # Not lists of a fixed size: Arrow writes those with nulls to Parquet and then cannot read them.
    fields += [(name, pa.list_(pa.float32())) for name in layout.videos()]
    fields += [(name, pa.list_(pa.list_(pa.float32()))) for name in layout.clips()]
    return pa.schema(fields)


def to_table(arrays: Mapping[str, np.ndarray], layout: Layout, schema: pa.Schema) -> pa.Table:
    """The rows of a part; what a video lacks is null."""
    columns = {name: pa.array(arrays[name].tolist()) for name in ("video_id", "note", "has_video", "has_audio")}
    columns["seconds"] = pa.array(arrays["seconds"])
    if layout.class_names:
        columns["labels"] = pa.array([[layout.class_names[k] for k in np.flatnonzero(row)] for row in arrays["labels"]])
    every = np.ones(len(arrays["num_clips"]), bool)
    columns["clip_seconds"] = lists(pa.array(arrays["clip_seconds"]), arrays["num_clips"], every)
    for name in layout.videos():
        there = ~np.isnan(arrays[name][:, 0])
        width = np.full(len(there), arrays[name].shape[1])
        columns[name] = lists(pa.array(arrays[name][there].ravel()), width, there)
    for name in layout.clips():
        there = ~np.isnan(arrays[name.removesuffix(CLIPS)][:, 0])
        rows = arrays[name][np.repeat(there, arrays["num_clips"])]
        values = lists(pa.array(rows.ravel()), np.full(len(rows), rows.shape[1]), np.ones(len(rows), bool))
        columns[name] = lists(values, arrays["num_clips"], there)
    return pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def lists(values: pa.Array, lengths: np.ndarray, there: np.ndarray) -> pa.ListArray:
    """Cuts values into lists.

    Args:
      values: of the lists that are there, one after the other.
      lengths: (N,) int of all lists.
      there: (N,) bool; the others are null.
    """
    offsets = np.concatenate([[0], np.cumsum(np.where(there, lengths, 0))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(~there))
