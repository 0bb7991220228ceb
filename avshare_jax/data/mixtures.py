"""Mixtures: several data sets to train on, each with its share of the batches."""

import dataclasses
import math
from typing import Any

from avshare_jax.data.dataset import Dataset, check_frontend, open_dataset
from avshare_jax.data.errors import DatasetError


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One data set or several.

    Attributes:
      datasets: all with the same front end.
      weights: of the data sets in the batches; empty: in proportion to their numbers of videos.
    """

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Their names, joined by +."""
        return "+".join(dataset.name for dataset in self.datasets)

    @property
    def fingerprint(self) -> str:
        """Their fingerprints, joined by + in the order of the names."""
        return "+".join(dataset.fingerprint for dataset in self.datasets)

    def num_videos(self, split: str) -> int:
        """Number of videos in all of them; `DatasetError` where one has no such split."""
        return sum(dataset.num_videos(split) for dataset in self.datasets)

    def shares(self, split: str) -> tuple[float, ...]:
        """Which share of the batches' videos comes from each; they add up to 1."""
        weights = self.weights or tuple(dataset.num_videos(split) for dataset in self.datasets)
        return tuple(weight / sum(weights) for weight in weights)


def dataset_names(name: str) -> tuple[str, ...]:
    """The data sets that `config.data.name` names: one, or several as in `speech+music`."""
    return tuple(name.split("+"))


def open_mixture(data_config: Any) -> Mixture:
    """Opens all data sets of `config.data`.

    Args:
      data_config: `config.data`: name, data_dir, weights and frontend.

    Raises:
      DatasetError: a data set is missing, named twice or made with another front end, or the weights do not fit.
    """
    names, weights = dataset_names(data_config.name), tuple(data_config.weights)
    if len(set(names)) < len(names):
        raise DatasetError(f"config.data.name={data_config.name} names a data set twice: use config.data.weights.")
    if weights and len(weights) != len(names):
        raise DatasetError(
            f"config.data.weights has {len(weights)} numbers for the {len(names)} data sets {data_config.name}: give "
            "one for each, or none for shares in proportion to their numbers of videos."
        )
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise DatasetError(f"config.data.weights={weights} must be positive numbers: leave a data set out by its name.")
    datasets = tuple(open_dataset(data_config.data_dir, name) for name in names)
    for dataset in datasets:
        check_frontend(dataset, data_config.frontend)
    return Mixture(datasets, weights)
