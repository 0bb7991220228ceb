"""Records: one video as JPEG frames and a log-mel spectrogram, and the TFDS data sets that hold them."""

import dataclasses
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd

VERSION = "1.0.0"
"""Version of the records' format, and of the data sets that hold them."""

REVISION = 2
"""Of what records hold. 1, or none in the metadata: luma and chroma as the file has them, whatever its matrix, and
pictures turned but not mirrored. 2: JPEG's colors, all orientations, and the cropping that the container asks for."""

SETTINGS = "settings.json"

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Contents:
    """What all records of a data set have in common; its TFDS metadata.

    Attributes:
      frontend: rates and sizes.
      jpeg_quality: of the frames, 1 to 100.
      class_names: the classes in the order of their numbers; empty without labels.
      multi_label: whether a record may have several classes.
      split_names: further names for unions of splits, such as `train1` → `fold2+fold3`.
      revision: of what records hold, `REVISION` of the package that writes them.
    """

    frontend: FrontEnd
    jpeg_quality: int
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    split_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    revision: int = REVISION


def dataset_directory(data_dir: epath.PathLike, name: str) -> epath.Path:
    """Where the data set of that name lies."""
    return _expanded(data_dir) / name / VERSION


def preparation_directory(data_dir: epath.PathLike, name: str) -> epath.Path:
    """Where a preparation notes what it does; while its file `SETTINGS` is there, the data set is not finished."""
    return _expanded(data_dir) / name / "unfinished"


def _expanded(data_dir: epath.PathLike) -> epath.Path:
    path = epath.Path(data_dir).expanduser()
    if os.fspath(path).startswith("~"):
        raise DatasetError(f"{data_dir} names no folder: there is no home that ~ stands for.")
    return path


def check_name(name: str) -> None:
    """Raises `DatasetError` where a text cannot be a data set's name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DatasetError(
            f"{name!r} cannot be a data set's name: use lower-case letters, digits and underscores, a letter first."
        )


def dataset_info(name: str, data_dir: epath.PathLike, contents: Contents) -> tfds.core.DatasetInfo:
    """The TFDS description of a data set, without its splits."""
    classes = len(contents.class_names)
    features = {
        "video_id": tfds.features.Text(),
        "source_id": tfds.features.Text(),
        # TFDS's own image and video features cannot do without TensorFlow.
        "frames": tfds.features.Sequence(tfds.features.Text()),
        "log_mel": tfds.features.Tensor(shape=(None, contents.frontend.mels), dtype=np.float32, encoding="bytes"),
        "has_video": np.bool_,
        "has_audio": np.bool_,
    }
    if contents.multi_label:
        features["labels"] = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=classes))
    elif classes:
        features["label"] = tfds.features.ClassLabel(num_classes=classes)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.Version(VERSION),
            data_dir=os.fspath(dataset_directory(data_dir, name)),
            module_name=__name__,
        ),
        description="Videos as JPEG frames and log-mel spectrograms.",
        features=tfds.features.FeaturesDict(features),
        metadata=tfds.core.MetadataDict(dataclasses.asdict(contents)),
    )
    info.set_file_format("array_record")
    return info


def shard_path(directory: epath.Path, name: str, split: str, shard: int, num_shards: int) -> epath.Path:
    """The file of one shard (counted from 0) of a split, named as TFDS names it."""
    return epath.Path(_template(directory, name, split).sharded_filepath(shard_index=shard, num_shards=num_shards))


def write_records(
    path: str, info: tfds.core.DatasetInfo, class_names: tuple[str, ...], records: Iterable[Record]
) -> None:
    """Writes records to an ArrayRecord file.

    Args:
      path: of the file, on this machine.
      info: of the data set, from `dataset_info`.
      class_names: the classes in the order of their numbers.
      records: with `video_id`, `source_id`, `frames` (JPEG byte strings), `log_mel` (time, mels) float32, `has_video`,
        `has_audio`, and `labels`, names of classes.

    Raises:
      OSError: the file cannot be written.
    """
    serializer = ExampleSerializer(info.features.get_serialized_info())
    numbers = {name: number for number, name in enumerate(class_names)}
    with _writing(path):
        # One record a group: otherwise random reads are many times slower. JPEG does not get smaller by compression.
        writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
    for record in records:
        example = serializer.get_tf_example(info.features.encode_example(_numbered(record, numbers, info)))
        with _writing(path):
            # Not TFDS's own call: it leaves the order of features to chance, so that no two runs give the same bytes.
            writer.write(example.SerializeToString(deterministic=True))
    with _writing(path):
        writer.close()


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """Turns the errors of ArrayRecord's writer into `OSError`."""
    try:
        yield
    except RuntimeError as error:
        # For example "write() failed: No space left on device; writing FILE; at byte 4096".
        raise OSError(None, str(error).split(";")[0].rpartition(": ")[2], path) from error


def write_info(directory: epath.Path, info: tfds.core.DatasetInfo, shard_lengths: Mapping[str, list[int]]) -> None:
    """Writes the TFDS files that make shards a data set: `dataset_info.json`, `features.json` and `metadata.json`.

    Args:
      directory: of the shards.
      info: from `dataset_info`.
      shard_lengths: numbers of records in the shards of each split.
    """
    splits = []
    for split, lengths in sorted(shard_lengths.items()):
        paths = [shard_path(directory, info.name, split, shard, len(lengths)) for shard in range(len(lengths))]
        size = sum(map(_length, paths))
        template = _template(directory, info.name, split)
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
        )
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(directory)


def _length(path: epath.Path) -> int:
    """The bytes of a file; `epath` looks up the name of its owner, whom containers may not know."""
    return path.stat().length if "://" in os.fspath(path) else os.stat(path).st_size


def write_dataset(
    name: str, data_dir: epath.PathLike, splits: Mapping[str, Iterable[Record]], contents: Contents
) -> None:
    """Writes records that are in memory as the data set DATA_DIR/NAME, one shard a split.

    Args:
      name: of the data set.
      data_dir: directory of data sets.
      splits: records as for `write_records`, by split.
      contents: what they have in common.

    Raises:
      DatasetError: the name is not one.
    """
    check_name(name)
    directory, info = dataset_directory(data_dir, name), dataset_info(name, data_dir, contents)
    directory.mkdir(parents=True)
    lengths = {}
    for split, records in splits.items():
        records = list(records)
        path = shard_path(directory, name, split, 0, 1)
        write_records(os.fspath(path), info, contents.class_names, records)
        lengths[split] = [len(records)]
    write_info(directory, info, lengths)


@contextmanager
def new_file(path: epath.Path) -> Iterator[str]:
    """Gives a local file name to write to; at the end, that file becomes `path` in one step.

    What is left of a killed process is a hidden file `.NAME.….partial` beside `path`.
    """
    if "://" in os.fspath(path):
        with tempfile.TemporaryDirectory() as directory:
            yield (partial := os.path.join(directory, path.name))
            epath.Path(partial).copy(path, overwrite=True)  # Object stores show a file when it is whole.
        return
    partial = Path(path).with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield str(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _numbered(record: Record, numbers: Mapping[str, int], info: tfds.core.DatasetInfo) -> Record:
    """The record with numbers for the names of its classes."""
    example = dict(record)
    labels = [numbers[name] for name in example.pop("labels")]
    if "labels" in info.features:
        example["labels"] = labels
    elif "label" in info.features:
        example["label"] = labels[0] if labels else -1
    return example


def _template(directory: epath.Path, name: str, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name=name, split=split, filetype_suffix="array_record"
    )
