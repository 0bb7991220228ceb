"""A config's state and batch for measurements: of the right shapes, without data and without compiling anything."""

import jax
import numpy as np
from ml_collections import ConfigDict

from avshare_jax import schema, settings
from avshare_jax.training.step import Batch, TrainState


def load_pretraining_config(path_and_variant: str, network_alone: bool = False) -> ConfigDict:
    """Reads FILE.py[:VARIANT]; `UserError` where there is none, or where it is not a right one of pretraining.

    Args:
      path_and_variant: of the config.
      network_alone: whether the objectives are not measured, so that the batch may be too small for them.
    """
    config = settings.load_config_file(path_and_variant)
    checked = config.copy_and_resolve_references()
    if network_alone and isinstance(config.get("batch_size"), int) and config.batch_size > 0:
        checked.batch_size *= checked.objectives.num_negatives + 1
    schema.check(checked, (schema.PRETRAINING,))
    return config


def random_state(abstract: TrainState) -> TrainState:
    """A state of random numbers, which compress as little as trained ones."""
    random = np.random.default_rng(0)

    def fill(x: jax.ShapeDtypeStruct) -> jax.Array:
        values = 0.02 * random.standard_normal(x.shape, np.float32)
        return jax.device_put(values.astype(x.dtype), x.sharding)

    return jax.tree.map(fill, abstract)


def random_batch(abstract: Batch) -> Batch:
    """Noise as frames and spectrograms."""
    random = np.random.default_rng(1)

    def fill(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if x.dtype == np.uint8:
            return random.integers(0, 256, x.shape, np.uint8)
        return random.standard_normal(x.shape, np.float32).astype(x.dtype)

    return {name: fill(x) for name, x in abstract.items()}
