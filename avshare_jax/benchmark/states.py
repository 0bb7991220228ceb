"""A config's state and batch for measurements: of the right shapes, without data and without compiling anything."""

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax import settings
from avshare_jax.settings import UserError
from avshare_jax.training import plan
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.sharding import batch_shardings, state_shardings
from avshare_jax.training.step import Batch, TrainState, create_state


def load_pretraining_config(path_and_variant: str) -> ConfigDict:
    """Reads FILE.py[:VARIANT]; `UserError` where there is none, or where it is that of a downstream task."""
    config = settings.load_config_file(path_and_variant)
    if "task" in config:
        raise UserError(f"{path_and_variant} is a downstream task; what is measured here is pretraining.")
    return config


def abstract_state_and_batch(config: ConfigDict, mesh: Mesh) -> tuple[TrainState, Batch]:
    """Shapes, dtypes and shardings of a run's state and of its batch, as `jax.ShapeDtypeStruct`."""
    batch = plan.abstract_batch(config)
    create = partial(create_state, Pretraining(config), make_optimizer(config.optimizer, config.total_steps))
    state = jax.eval_shape(create, jax.random.key(0), batch)

    def placed(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return (
        jax.tree.map(placed, state, state_shardings(state, mesh, config.sharding)),
        jax.tree.map(placed, batch, batch_shardings(batch, mesh, config.sharding)),
    )


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
