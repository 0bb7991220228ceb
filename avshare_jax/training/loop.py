"""The training loop: restore or initialize, then step, log, next batch, checkpoint, until the last step."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax.training.checkpoints import Checkpoints, check_run, claim_workdir
from avshare_jax.training.mesh import replicated, shard_batch
from avshare_jax.training.metrics import Reporter, duration
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.step import Batch, Metrics, Task, TrainState, create_state, make_train_step

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def train(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    task: Task,
    make_batches: Callable[[int], Generator[dict[str, np.ndarray]]],
    dataset_identity: Mapping[str, Any],
    mesh: Mesh,
    shown_metrics: Sequence[str] = (),
) -> None:
    """Trains until `config.total_steps`, from the last checkpoint in `workdir` if there is one.

    The same call after a kill goes on with the very losses that an uninterrupted run would have had: state and step
    come from the checkpoint, randomness from (seed, step), and data from `make_batches(step)`.

    Args:
      config: `seed`, `batch_size`, `total_steps`, `data.num_clips`, `model` (compared only), `optimizer`, `log_every`,
        `checkpoint_every`, `checkpoints_kept`, `max_nonfinite_steps`.
      workdir: gets config.json, dataset.json, metrics.jsonl, checkpoints/ and tensorboard/.
      task: what is trained.
      make_batches: takes the step to start at; gives a generator of this process's rows (B / processes, ...) of
        each step's batch.
      dataset_identity: `name` and `fingerprint` of the data set.
      mesh: from `make_mesh`.
      shown_metrics: names of metrics that the console shows beside the loss.

    Raises:
      UserError: the workdir belongs to another run, or the loss stayed not finite.
    """
    check_run(workdir, config, dataset_identity)
    with Checkpoints(workdir, config.checkpoints_kept) as checkpoints:
        start_step = checkpoints.latest_step() or 0
        if start_step >= config.total_steps:
            print(f"Nothing to do: the run has its {config.total_steps} steps (last checkpoint: step {start_step}).")
            return
        claim_workdir(workdir, config, dataset_identity)
        if start_step:
            print(f"Resuming from the checkpoint of step {start_step}.", flush=True)
        with closing(make_batches(start_step)) as batches:
            batch = shard_batch(next(batches), mesh)
            state, train_step = prepare(config, task, mesh, batch, checkpoints)
            with Reporter(config, workdir, start_step, shown_metrics) as reporter:
                take_steps(config, state, batch, train_step, batches, mesh, reporter, checkpoints)


def take_steps(
    config: ConfigDict,
    state: TrainState,
    batch: Batch,
    train_step: StepFunction,
    batches: Iterator[dict[str, np.ndarray]],
    mesh: Mesh,
    reporter: Reporter,
    checkpoints: Checkpoints,
) -> None:
    """Takes all steps after `state`, whose first batch is `batch`."""
    pending = None
    for step in range(int(state.step) + 1, config.total_steps + 1):
        # Dispatch first: while the devices compute this step, the host reports the step before, which is done, and
        # takes the next batch. Nothing here waits for the step just dispatched.
        state, metrics = train_step(state, batch)
        if pending:
            reporter.report(*pending)
        pending = (step, metrics)
        if step < config.total_steps:
            batch = shard_batch(reporter.progress.next(batches), mesh)
        if step % config.checkpoint_every == 0 or step == config.total_steps:
            # The line of this step comes before its checkpoint: a resumed run would not write it again.
            reporter.report(*pending)
            pending = None
            checkpoints.save(state)


def prepare(
    config: ConfigDict, task: Task, mesh: Mesh, batch: Batch, checkpoints: Checkpoints
) -> tuple[TrainState, StepFunction]:
    """Restores or initializes the state, and compiles the step for it."""
    optimizer = make_optimizer(config.optimizer, config.total_steps)
    create = partial(create_state, task, optimizer)
    key, whole = jax.random.key(config.seed), replicated(mesh)
    print("Compiling ...", end=" ", flush=True)
    started = time.monotonic()
    if checkpoints.latest_step() is None:
        state = jax.jit(create, out_shardings=whole)(key, batch)
    else:
        shapes = jax.eval_shape(create, key, batch)
        state = checkpoints.restore(
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
        )
    # Ahead of time, so that neither speed nor ETA count it.
    train_step = make_train_step(task, optimizer, mesh, config.seed).lower(state, batch).compile()
    print(f"took {duration(time.monotonic() - started)}.", flush=True)
    return state, train_step
