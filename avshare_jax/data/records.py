"""Records: one video as JPEG frames and a log-mel spectrogram, and the TFDS data sets that hold them.

A source of videos is an iterable of `Video` for each split; everything after that is the same for all sources.
"""

import contextlib
import dataclasses
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from etils import epath

from avshare_jax.data.frontend import FrontEnd, log_mel
from avshare_jax.data.media import MediaError, MissingStreamError, iterate_frames, read_audio

VERSION = "1.0.0"
"""Version of the records' format, and of the data sets that hold them."""

Record = dict[str, Any]


class DatasetError(ValueError):
    """A data set cannot be written or used; the message is a sentence that says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Video:
    """One video of a source.

    Attributes:
      video_id: unique within its split.
      path: the media file.
      label: name of its class, if it has one.
    """

    video_id: str
    path: str
    label: str | None = None


def make_record(video: Video, frontend: FrontEnd, jpeg_quality: int) -> Record:
    """Decodes a video into a record; a missing stream leaves its modality empty and the flag False.

    Returns:
      `video_id`; `frames`, a list of N JPEG byte strings; `log_mel` (time, mels) float32; `has_video`, `has_audio`;
      `label`, a class name or None.

    Raises:
      MediaError: the file cannot be decoded, or has neither frames nor sound.
    """
    try:
        frames = [
            simplejpeg.encode_jpeg(frame, quality=jpeg_quality, colorsubsampling="420")
            for frame in iterate_frames(video.path, frontend.fps, frontend.short_side)
        ]
    except MissingStreamError:
        frames = []
    try:
        spectrogram = log_mel(read_audio(video.path, frontend.sample_rate), frontend)
    except MissingStreamError:
        spectrogram = np.zeros((0, frontend.mels), np.float32)
    if not frames and not len(spectrogram):
        raise MediaError(f"{video.path} has neither video nor audio.")
    return {
        "video_id": video.video_id,
        "frames": frames,
        "log_mel": spectrogram,
        "has_video": bool(frames),
        "has_audio": bool(len(spectrogram)),
        "label": video.label,
    }


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds the TFDS data set of some splits' records, in an order that depends on the video ids alone."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        name: str,
        data_dir: epath.PathLike,
        splits: Mapping[str, Iterable[Record]],
        frontend: FrontEnd,
        class_names: Iterable[str],
        jpeg_quality: int,
    ):
        self.name = name
        self._splits = splits
        self._class_names = list(class_names)
        self._metadata = {
            "frontend": dataclasses.asdict(frontend),
            "jpeg_quality": jpeg_quality,
            "class_names": self._class_names,
        }
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "video_id": tfds.features.Text(),
            # TFDS's own image and video features cannot do without TensorFlow.
            "frames": tfds.features.Sequence(tfds.features.Text()),
            "log_mel": tfds.features.Tensor(
                shape=(None, self._metadata["frontend"]["mels"]), dtype=np.float32, encoding="bytes"
            ),
            "has_video": np.bool_,
            "has_audio": np.bool_,
        }
        if self._class_names:
            features["label"] = tfds.features.ClassLabel(num_classes=len(self._class_names))
        return tfds.core.DatasetInfo(
            builder=self,
            description="Videos as JPEG frames and log-mel spectrograms.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(self._metadata),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, Record]]]:
        return {split: self._generate_examples(records) for split, records in self._splits.items()}

    def _generate_examples(self, records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
        for record in records:
            example = dict(record)
            label = example.pop("label")
            if self._class_names:
                example["label"] = -1 if label is None else self._class_names.index(label)
            yield example["video_id"], example


def dataset_directory(data_dir: epath.PathLike, name: str) -> epath.Path:
    """Where the data set of that name lies."""
    return epath.Path(data_dir).expanduser() / name / VERSION


def check_new_dataset(name: str, data_dir: epath.PathLike) -> None:
    """Checks that a data set can be written under that name.

    Raises:
      DatasetError: the name is not one, it is taken, or the directory cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DatasetError(
            f"{name!r} cannot be a data set's name: use lower-case letters, digits and underscores, a letter first."
        )
    directory = dataset_directory(data_dir, name)
    if directory.exists():
        raise DatasetError(f"The data set {directory} exists already: delete it, or use another name.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        (directory.parent / ".writable").write_text("")
        (directory.parent / ".writable").unlink()
    except OSError as error:
        raise DatasetError(f"The directory {directory.parent} cannot be written: {error.strerror}.") from error


def write_dataset(
    name: str,
    data_dir: epath.PathLike,
    splits: Mapping[str, Iterable[Record]],
    *,
    frontend: FrontEnd,
    class_names: Iterable[str],
    jpeg_quality: int,
) -> None:
    """Writes the data set DATA_DIR/NAME; it appears when it is whole.

    Args:
      name: of the data set.
      data_dir: directory of data sets.
      splits: records of `make_record` by split, each split with at least one.
      frontend: of the records.
      class_names: names of the classes in the order of their numbers; empty for unlabeled videos.
      jpeg_quality: of the records' frames.

    Raises:
      DatasetError: the data set exists already or cannot be written.
    """
    check_new_dataset(name, data_dir)
    builder = RecordBuilder(name, epath.Path(data_dir).expanduser(), splits, frontend, class_names, jpeg_quality)
    tfds.disable_progress_bar()
    # TFDS announces a download on stdout and makes a folder for it; there is none.
    with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=downloads)
