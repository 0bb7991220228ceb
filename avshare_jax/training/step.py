"""One training step: gradient, update, and what happens where the loss is not finite."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from avshare_jax.models.placement import BATCH_AXES, Rules, compiler_options, constrain, placement, split_axis
from avshare_jax.training.mesh import replicated
from avshare_jax.training.partition import IsTrained, everything, join, split

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
      opt_state: the optimizer's moments of what is trained, and its count of updates.
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


def create_state(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    batch: Batch,
    is_trained: IsTrained = everything,
) -> TrainState:
    """Returns the state before the first step; pure, so that `jax.eval_shape` gives its shapes for free."""
    variables = task.init(key, batch)
    # One array each: a donated state must not hold the same buffer twice.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(split(variables["params"], is_trained)[0]),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    task: Task,
    optimizer: optax.GradientTransformation,
    seed: int,
    accumulation_steps: int = 1,
    is_trained: IsTrained = everything,
) -> tuple[TrainState, Metrics]:
    """Takes one step on a global batch.

    All randomness comes from `seed` folded with the step. Gradients are taken for what is trained alone. Where the loss
    or the gradient's norm is not finite, the update is skipped: only the step and the counters move.

    Args:
      state: before the step.
      batch: arrays (B, ...).
      task: what is trained.
      optimizer: as for `create_state`.
      seed: of the run.
      accumulation_steps: number of parts that the batch is taken in, see `accumulate`.
      is_trained: which parameters are trained; the others stay as they are, and so do running statistics of their
        paths.

    Returns:
      The new state, and scalar metrics: the task's, `loss`, `grad_norm`, `skipped` and `skipped_in_a_row`.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    trained, frozen = split(state.params, is_trained)

    def differentiate(batch: Batch, key: jax.Array) -> tuple[tuple[jax.Array, tuple[Metrics, Any]], Any]:
        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            # Parameters that are split come together here. Left to itself, the compiler may split activations alike.
            params = jax.tree.map(lambda x: constrain(x, ()), join(params, frozen))
            return task.loss({"params": params, "batch_stats": state.batch_stats}, batch, key, train=True)

        return jax.value_and_grad(loss_fn, has_aux=True)(trained)

    (loss, (metrics, batch_stats)), gradient = accumulate(differentiate, batch, key, accumulation_steps)
    # A mean of equal numbers may be off by the last bit.
    batch_stats = join(split(batch_stats, is_trained)[0], split(state.batch_stats, is_trained)[1])
    gradient_norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

    updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
    updated = (optax.apply_updates(trained, updates), batch_stats, opt_state)
    current = (trained, state.batch_stats, state.opt_state)
    trained, batch_stats, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, current)
    state = TrainState(
        step=state.step + 1,
        params=join(trained, frozen),
        batch_stats=batch_stats,
        opt_state=opt_state,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )
    counters = {"skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
    return state, {**metrics, "loss": loss, "grad_norm": gradient_norm, **counters}


def accumulate(function: Callable[[Batch, jax.Array], Any], batch: Batch, key: jax.Array, steps: int) -> Any:
    """Means of what a function returns for each part of a batch, one part in memory at a time.

    Part i has the rows i, i + steps, i + 2 steps ... (see `split_axis`) and a key of its own. Whatever relates videos
    to each other, as negatives, pairs and BatchNorm do, stays within a part; running statistics move once, by the mean.

    Args:
      function: of (part of the batch, key); returns float arrays.
      batch: arrays (B, ...); `steps` divides B.
      key: random key; passed on as it is where there is one part.
      steps: number of parts.
    """
    if steps == 1:
        return function(batch, key)
    parts = {
        name: constrain(split_axis(x, 0, steps), (None, *BATCH_AXES.get(name, ("batch",)))) for name, x in batch.items()
    }

    def add(total: Any, part_and_key: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*part_and_key)), None

    keys = jax.random.split(key, steps)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts), key)
    total, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), (parts, keys))
    return jax.tree.map(lambda x: x / steps, total)


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    rules: Rules,
    state_sharding: TrainState,
    accumulation_steps: int = 1,
    is_trained: IsTrained = everything,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Compiles `train_step` for the mesh; the state is donated.

    Args:
      task: what is trained.
      optimizer: as for `create_state`.
      mesh: from `make_mesh`.
      seed: of the run.
      rules: where activations lie, as for `placement`.
      state_sharding: from `sharding.state_shardings`. The batch lies as `sharding.shard_batch` has put it.
      accumulation_steps: as for `train_step`.
      is_trained: as for `train_step`.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with placement(mesh, rules):
            return train_step(
                state,
                batch,
                task=task,
                optimizer=optimizer,
                seed=seed,
                accumulation_steps=accumulation_steps,
                is_trained=is_trained,
            )

    return jax.jit(
        step,
        in_shardings=(state_sharding, None),
        out_shardings=(state_sharding, replicated(mesh)),
        donate_argnums=0,
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )
