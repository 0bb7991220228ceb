"""The pretraining objectives on videos that were not trained on, and the fresh network they are compared with."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avshare_jax.models.placement import compiler_options
from avshare_jax.settings import UserError
from avshare_jax.training.step import Task

Variables = Mapping[str, Any]
Batch = dict[str, Any]


def heldout_metrics(
    task: Task, networks: Mapping[str, Variables], batches: Iterable[Batch], key: jax.Array
) -> tuple[dict[str, dict[str, float]], int]:
    """Averages the objectives' metrics over the full batches of a split; nothing is augmented or updated.

    All networks see the same batches with the same masks, negatives and mismatched pairs. A batch that is not whole is
    left out: a repeated video would be among its own negatives, and one that lacks image or sound teaches nothing.

    Args:
      task: Gives the loss and its metrics.
      networks: name → variables, all of one structure.
      batches: With `frames`, `log_mel` and `valid` (B,).
      key: Of the masks, negatives and mismatched pairs; folded with the number of the batch.

    Returns:
      name → metric → mean over batches ("loss" is the total), and the number of videos they were measured on.

    Raises:
      UserError: There is no full batch.
    """

    @partial(jax.jit, compiler_options=compiler_options())
    def measure(variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        loss, (metrics, _) = task.loss(variables, batch, key, train=False)
        return {**metrics, "loss": loss}

    rows: dict[str, list[dict[str, jax.Array]]] = {name: [] for name in networks}
    num_videos = 0
    for number, batch in enumerate(batches):
        if not np.all(batch["valid"]):
            continue
        inputs = {name: batch[name] for name in ("frames", "log_mel")}
        batch_key = jax.random.fold_in(key, number)
        # All networks are dispatched before the first result is waited for; no further batch is read meanwhile.
        pending = {name: measure(variables, inputs, batch_key) for name, variables in networks.items()}
        for name, metrics in pending.items():
            rows[name].append(jax.device_get(metrics))
        num_videos += len(batch["valid"])
    if not num_videos:
        raise UserError(
            "There is no full batch of held-out videos with image and sound: use a smaller --config.batch_size."
        )
    means = {name: jax.tree.map(lambda *x: float(np.mean(x)), *found) for name, found in rows.items()}
    return means, num_videos


def fresh_variables(task: Task, key: jax.Array, batches: Iterable[Batch]) -> Variables:
    """Initializes the network anew, with the BatchNorm statistics of real videos.

    Initial running statistics (mean 0, variance 1) do not fit the activations of random weights: features would
    fade or blow up from layer to layer, and a comparison with them would flatter training. So the weights stay at
    their initial values, while the statistics are what training would have collected with them over the given
    batches: the exponential average, freed of its starting value.

    Args:
      task: Gives init and loss.
      key: Of the initial weights.
      batches: Some training batches, at least one.

    Returns:
      {"params", "batch_stats"}.
    """

    @partial(jax.jit, compiler_options=compiler_options())
    def update(variables: Variables, batch: Batch, key: jax.Array) -> Any:
        return task.loss(variables, batch, key, train=True)[1][1]

    variables: dict[str, Any] = {}
    for count, batch in enumerate(batches, start=1):
        inputs = {name: batch[name] for name in ("frames", "log_mel")}
        batch_key = jax.random.fold_in(key, count)
        if not variables:
            variables = dict(jax.jit(task.init, compiler_options=init_options())(key, inputs))
            ones = variables | {"batch_stats": jax.tree.map(jnp.ones_like, variables["batch_stats"])}
            variables["batch_stats"] = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
            from_ones = update(ones, inputs, batch_key)
        variables["batch_stats"] = update(variables, inputs, batch_key)
        if count == 1:
            # What a single update keeps of the old value, which each batch after it keeps of the batches before.
            kept = jax.tree.map(jnp.subtract, from_ones, variables["batch_stats"])
    batch_stats = jax.tree.map(lambda total, kept: total / (1 - kept**count), variables["batch_stats"], kept)
    return {"params": variables["params"], "batch_stats": batch_stats}


def init_options() -> dict[str, Any] | None:
    """Compiler options for initializing a network: on a CPU, to optimize that code takes longer than all else here."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
