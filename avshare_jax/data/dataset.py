"""A data set on disk, opened for reading: its metadata, its size, and its records by number."""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.names import printable
from avshare_jax.data.records import REVISION, SETTINGS, dataset_directory, preparation_directory

__all__ = ["Dataset", "DatasetError", "check_frontend", "is_unfinished", "open_dataset"]

DATASET_INFO, FEATURES = "dataset_info.json", "features.json"
OWN_FEATURES = "tensorflow_datasets.core.features."
CONTENTS = ("features_dict", "sequence", "text", "tensor", "class_label")
"""The kinds of features that records have; others, such as JSON in JSON, could hide what is in them."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that `avshare_jax.prepare` has written.

    Attributes:
      name: its name.
      directory: where it is.
      frontend: what its records were made with.
      class_names: names of the classes in the order of their numbers; empty without labels.
      multi_label: whether a record may have several classes.
      split_names: further names for unions of splits, such as `train1` → `fold2+fold3`.
      revision: of what its records hold; see `records.REVISION`.
    """

    name: str
    directory: epath.Path
    frontend: FrontEnd
    class_names: tuple[str, ...]
    multi_label: bool
    split_names: Mapping[str, str]
    _builder: tfds.core.DatasetBuilder = dataclasses.field(repr=False, compare=False)
    revision: int = REVISION

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits, each record being in one of them, and of unions of splits."""
        return (*sorted(self._builder.info.splits), *self.split_names)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that differ for data sets that differ in front end, splits or their sizes."""
        identity = {
            "name": self._builder.info.full_name,
            "frontend": dataclasses.asdict(self.frontend),
            "class_names": self.class_names,
            "splits": {
                split: (info.shard_lengths, info.num_bytes) for split, info in sorted(self._builder.info.splits.items())
            },
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def num_videos(self, split: str) -> int:
        """Number of records of a split; `DatasetError` where there is no such split."""
        return self._builder.info.splits[self._resolve(split)].num_examples

    def source(self, split: str) -> Sequence[dict[str, Any]]:
        """Random access to the records of a split, which can be sent to other processes.

        Args:
          split: one of `splits`, or several joined as in `train+val`.

        Returns:
          A sequence of dicts: `video_id` and `source_id` bytes; `frames`, a list of JPEG byte strings; `log_mel` (time,
          mels) float32; `has_video` and `has_audio`; and, in a data set with classes, `label` (-1: none) or, where a
          record may have several, `labels`, a list of numbers.

        Raises:
          DatasetError: there is no such split.
        """
        return self._builder.as_data_source(self._resolve(split))

    def parts(self, split: str) -> tuple[str, ...]:
        """The splits, each record being in one, that a name or several joined by + stand for.

        Raises:
          DatasetError: there is no such split.
        """
        parts = []
        for name in split.split("+"):
            if name not in self.splits:
                raise DatasetError(
                    f"The data set {self.directory} has no split {name!r}; it has {', '.join(self.splits)}. "
                    "Choose one with config.data.train_split or config.data.eval_split, or prepare others."
                )
            parts += self.split_names.get(name, name).split("+")
        return tuple(dict.fromkeys(parts))  # A record of two of the names counts once.

    def _resolve(self, split: str) -> str:
        return "+".join(self.parts(split))


def open_dataset(data_dir: epath.PathLike, name: str) -> Dataset:
    """Opens the data set DATA_DIR/NAME; says so on standard error where its records are of an older revision.

    Raises:
      DatasetError: it is not there, not finished or not one of ours; says how to make it.
    """
    directory = dataset_directory(data_dir, name)
    if is_unfinished(data_dir, name):
        raise DatasetError(
            f"The data set {directory} is not finished: give the command of avshare_jax.prepare that began it once "
            "more, and it goes on where it stopped."
        )
    if not (directory / DATASET_INFO).exists():
        raise DatasetError(
            f"There is no data set {directory}: make it with `python -m avshare_jax.prepare folder --videos=DIR "
            f"--name={name} --data_dir={data_dir}`, or point config.data.data_dir and config.data.name at another."
        )
    dataset = read_dataset(data_dir, name)
    if dataset.revision < REVISION:
        _note_revision(dataset.directory)
    return dataset


@functools.cache
def _note_revision(directory: epath.Path) -> None:
    """Says once what is wrong with pictures of revision 1."""
    print(
        f"Note: the data set {directory} was prepared before colors were converted. Pictures of videos that name "
        "another color matrix than BT.601, as most HD videos do, are up to 23 of 255 levels off. It can be used as it "
        f"is; to mend it, delete {directory.parent} and give the command of avshare_jax.prepare again, or use another "
        "--name.",
        file=sys.stderr,
        flush=True,
    )


def is_unfinished(data_dir: epath.PathLike, name: str) -> bool:
    """Whether a preparation of that data set has begun and not ended."""
    return (preparation_directory(data_dir, name) / SETTINGS).exists()


def read_dataset(data_dir: epath.PathLike, name: str) -> Dataset:
    """Reads a data set's description; `DatasetError` where it is not one of ours, or damaged."""
    directory = dataset_directory(data_dir, name)
    check_features(directory)
    try:
        builder = tfds.builder_from_directory(directory)
        metadata: dict[str, Any] = dict(builder.info.metadata or {})
    except Exception as error:  # Damage comes as anything: from protobuf, JSON or TFDS.
        raise _damaged(directory, error) from error
    try:
        frontend = FrontEnd(**metadata["frontend"])
        class_names = tuple(map(printable, metadata["class_names"]))
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{directory} was not written by avshare_jax.prepare: it says nothing about the front end of its records."
        ) from error
    split_names = metadata.get("split_names", {})
    multi_label, revision = metadata.get("multi_label", False), metadata.get("revision", 1)
    return Dataset(name, directory, frontend, class_names, multi_label, split_names, builder, revision)


def check_features(directory: epath.Path) -> None:
    """Checks the description of a data set's features before TFDS reads it.

    TFDS imports the module of every class that the description names, so that a folder could bring code along.

    Raises:
      DatasetError: a class is none of TFDS's own, or the description is damaged or not as `records` writes it.
    """
    try:
        features = json.loads((directory / FEATURES).read_text())
        # Features in this file would be read instead.
        inside = json.loads((directory / DATASET_INFO).read_text()).get("features")
        top = json_format.ParseDict(features, feature_pb2.Feature())
        found = list(_nested(top))
    except Exception as error:
        raise _damaged(directory, error) from error
    foreign = [feature.python_class_name for feature in found if not _is_own(feature)]
    if foreign or inside is not None:
        which = f"the class {foreign[0]!r} in {FEATURES}" if foreign else f"the features in {DATASET_INFO}"
        raise DatasetError(
            f"{directory} was not written by avshare_jax.prepare: {which} could run code that came with the data set. "
            "Nothing of it has been run; take the data set from whom you trust, or prepare the videos."
        )


def _nested(feature: feature_pb2.Feature) -> Iterator[feature_pb2.Feature]:
    """Yields a feature and all features in it."""
    yield feature
    for part in (*feature.features_dict.features.values(), feature.sequence.feature):
        if part.ByteSize():
            yield from _nested(part)


def _is_own(feature: feature_pb2.Feature) -> bool:
    """Whether a feature is of TFDS's own classes, and all that is in it was looked at."""
    return feature.python_class_name.startswith(OWN_FEATURES) and feature.WhichOneof("content") in CONTENTS


def _damaged(directory: epath.Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"The description of the data set {directory} is damaged, or is none of avshare_jax.prepare: copy or prepare "
        f"the data set again. ({' '.join(str(error).split())[:300] or type(error).__name__})"
    )


def check_frontend(dataset: Dataset, expected: Any) -> None:
    """Checks that a data set was made with the front end that a config expects.

    Args:
      dataset: the data set.
      expected: a mapping of fields of `FrontEnd` (`config.data.frontend`); those it lacks have their defaults.

    Raises:
      DatasetError: names the fields that differ, with both values.
    """
    found, wanted = dataclasses.asdict(dataset.frontend), dataclasses.asdict(FrontEnd()) | dict(expected)
    differences = [
        f"{name} is {found[name]} in the data set and {wanted[name]} in the config"
        for name in found
        if found[name] != wanted[name]
    ]
    if differences:
        raise DatasetError(
            f"The data set {dataset.directory} does not fit the config: {'; '.join(differences)}. "
            "Change config.data.frontend, or prepare the videos again."
        )
