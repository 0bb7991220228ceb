"""A pretraining config's step on a mesh from shapes alone: to compile it without data, weights, or even the devices."""

from functools import partial

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.plan import abstract_batch
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.sharding import batch_shardings, state_shardings
from avshare_jax.training.step import Batch, TrainState, create_state, make_train_step


def abstract_state_and_batch(config: ConfigDict, mesh: Mesh) -> tuple[TrainState, Batch]:
    """Shapes, dtypes and shardings of a run's state and of its batch, as `jax.ShapeDtypeStruct`."""
    batch = abstract_batch(config)
    create = partial(create_state, Pretraining(config), make_optimizer(config.optimizer, config.total_steps))
    state = jax.eval_shape(create, jax.random.key(config.seed), batch)

    def placed(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return (
        jax.tree.map(placed, state, state_shardings(state, mesh, config.sharding)),
        jax.tree.map(placed, batch, batch_shardings(batch, mesh, config.sharding)),
    )


def lower_step(config: ConfigDict, mesh: Mesh, state: TrainState, batch: Batch) -> jax.stages.Lowered:
    """Traces and lowers the step as the training loop has it, for what `abstract_state_and_batch` gives."""
    step = make_train_step(
        Pretraining(config),
        make_optimizer(config.optimizer, config.total_steps),
        mesh,
        seed=config.seed,
        rules=config.sharding,
        state_sharding=jax.tree.map(lambda x: x.sharding, state),
        accumulation_steps=config.memory.accumulation_steps,
    )
    return step.lower(state, batch)
