"""One training step: gradient, update, and what happens where the loss is not finite."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from avshare_jax.training.mesh import batch_sharding, replicated

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class Task(Protocol):
    """What is trained: pretraining, or a downstream task. Both methods are pure and jittable."""

    def init(self, key: jax.Array, batch: Batch) -> dict[str, Any]:
        """Returns fresh variables: `params` and, where the network has BatchNorm, `batch_stats`."""

    def loss(
        self, variables: dict[str, Any], batch: Batch, key: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        """Returns the scalar loss, and (scalar metrics, new `batch_stats`)."""


@struct.dataclass
class TrainState:
    """All that training changes; saved and restored as a whole.

    Attributes:
      step: () int32, batches seen; the next batch is the one with this index.
      params: float32 arrays.
      batch_stats: running statistics of BatchNorm.
      opt_state: the optimizer's moments and its count of updates.
      skipped: () int32, updates left out because the loss or the gradient was not finite.
      skipped_in_a_row: () int32, how many of them in a row up to now.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_in_a_row: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What the task's network takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(task: Task, optimizer: optax.GradientTransformation, key: jax.Array, batch: Batch) -> TrainState:
    """Returns the state before the first step; pure, so that `jax.eval_shape` gives its shapes for free."""
    variables = task.init(key, batch)
    # One array each: a donated state must not hold the same buffer twice.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def train_step(
    state: TrainState, batch: Batch, *, task: Task, optimizer: optax.GradientTransformation, seed: int
) -> tuple[TrainState, Metrics]:
    """Takes one step on a global batch.

    All randomness comes from `seed` folded with the step. Where the loss or the gradient's norm is not finite, the
    update is skipped: only the step and the counters move.

    Returns:
      The new state, and scalar metrics: the task's, `loss`, `grad_norm`, `skipped` and `skipped_in_a_row`.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        return task.loss({"params": params, "batch_stats": state.batch_stats}, batch, key, train=True)

    (loss, (metrics, batch_stats)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    gradient_norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    updated = (optax.apply_updates(state.params, updates), batch_stats, opt_state)
    current = (state.params, state.batch_stats, state.opt_state)
    params, batch_stats, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, current)
    state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )
    counters = {"skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
    return state, {**metrics, "loss": loss, "grad_norm": gradient_norm, **counters}


def make_train_step(
    task: Task, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Compiles `train_step` for the mesh: rows over `data`, the state on every device and donated."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(state, batch, task=task, optimizer=optimizer, seed=seed)

    whole = replicated(mesh)
    return jax.jit(step, in_shardings=(whole, batch_sharding(mesh)), out_shardings=whole, donate_argnums=0)
