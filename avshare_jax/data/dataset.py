"""A data set on disk, opened for reading: its metadata, its size, and its records by number."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import DatasetError, dataset_directory

__all__ = ["Dataset", "DatasetError", "check_frontend", "open_dataset"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that `avshare_jax.prepare` has written.

    Attributes:
      name: its name.
      directory: where it is.
      frontend: what its records were made with.
      class_names: names of the classes in the order of their numbers; empty without labels.
    """

    name: str
    directory: epath.Path
    frontend: FrontEnd
    class_names: tuple[str, ...]
    _builder: tfds.core.DatasetBuilder = dataclasses.field(repr=False, compare=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits."""
        return tuple(sorted(self._builder.info.splits))

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
        if split not in self.splits:
            raise DatasetError(
                f"The data set {self.directory} has no split {split!r}; it has {', '.join(self.splits)}. "
                "Choose one with config.data.train_split or config.data.eval_split, or prepare it with other splits."
            )
        return self._builder.info.splits[split].num_examples

    def source(self, split: str) -> Sequence[dict[str, Any]]:
        """Random access to the records of a split, which can be sent to other processes.

        Returns:
          A sequence of dicts: `video_id` bytes; `frames`, a list of JPEG byte strings; `log_mel` (time, mels) float32;
          `has_video` and `has_audio`; and, in a data set with classes, `label` (-1: none).

        Raises:
          DatasetError: there is no such split.
        """
        self.num_videos(split)
        return self._builder.as_data_source(split)


def open_dataset(data_dir: epath.PathLike, name: str) -> Dataset:
    """Opens the data set DATA_DIR/NAME.

    Raises:
      DatasetError: it is not there or not one of ours; says how to make it.
    """
    directory = dataset_directory(data_dir, name)
    if not (directory / "dataset_info.json").exists():
        raise DatasetError(
            f"There is no data set {directory}: make it with `python -m avshare_jax.prepare folder --videos=DIR "
            f"--name={name} --data_dir={data_dir}`, or point config.data.data_dir and config.data.name at another."
        )
    builder = tfds.builder_from_directory(directory)
    metadata: dict[str, Any] = builder.info.metadata or {}
    try:
        frontend = FrontEnd(**metadata["frontend"])
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{directory} was not written by avshare_jax.prepare: it says nothing about the front end of its records."
        ) from error
    return Dataset(name, directory, frontend, tuple(metadata["class_names"]), builder)


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
