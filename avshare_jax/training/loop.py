"""The training loop: restore or initialize, then step, log, next batch, checkpoint, until the last step."""

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax.training.checkpoints import Checkpoints, DamagedCheckpointError, check_run, claim_workdir
from avshare_jax.training.goodput import CHECKPOINTS, COMPILATION, DATASET, INPUT, RESTORE, STEPS, Goodput
from avshare_jax.training.hosts import RESTART, Preemption
from avshare_jax.training.metrics import Reporter, duration
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.partition import IsTrained, everything
from avshare_jax.training.profiles import Profiles
from avshare_jax.training.sharding import check_layout, shard_batch, state_shardings
from avshare_jax.training.step import Batch, Metrics, Task, TrainState, create_state, make_train_step

MakeOptimizer = Callable[[ConfigDict, int], optax.GradientTransformation]
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
    measure_input: Callable[[], Mapping[str, float]] = dict,
    preemption: Preemption | None = None,
    is_trained: IsTrained = everything,
    make_optimizer: MakeOptimizer = make_optimizer,
    start_from: Callable[[TrainState], TrainState] | None = None,
    goodput: Goodput | None = None,
    profile_steps: tuple[int, int] | None = None,
) -> None:
    """Trains until `config.total_steps`, from the last checkpoint in `workdir` if there is one.

    The same call after a kill goes on with the very losses that an uninterrupted run would have had: state and step
    come from the checkpoint, randomness from (seed, step), and data from `make_batches(step)`.

    Args:
      config: `seed`, `batch_size`, `total_steps`, `data.num_clips`, `model` (compared only), `optimizer`, `sharding`,
        `memory`, `norm_groups`, `log_every`, `checkpoint_every`, `checkpoints_kept`, `max_nonfinite_steps`.
      workdir: gets config.json, dataset.json, metrics.jsonl, goodput.jsonl, checkpoints/, tensorboard/ and profiles/.
      task: what is trained.
      make_batches: takes the step to start at; gives a generator of this process's rows (B / processes, ...) of
        each step's batch.
      dataset_identity: `name` and `fingerprint` of the data set.
      mesh: from `make_mesh`.
      shown_metrics: names of metrics that the console shows beside the loss.
      measure_input: gives metrics of the input so far, which go to the files with each logged step.
      preemption: what has been listening for a warning that the machine is taken away; by default, from now on. Once
        training has ended, it no longer does.
      is_trained: which parameters are trained.
      make_optimizer: from `config.optimizer` and the number of steps.
      start_from: puts weights that are there already into the freshly initialized state.
      goodput: what has been measuring where the time goes; by default, from now on.
      profile_steps: first and last step of those to write a profile of.

    Raises:
      UserError: the workdir belongs to another run, the batch does not divide over the mesh, or the loss stayed not
        finite.
    """
    check_run(workdir, config, dataset_identity)
    check_layout(config, mesh)
    preemption, goodput = preemption or Preemption(), goodput or Goodput()
    with preemption, goodput, Checkpoints(workdir, config.checkpoints_kept) as checkpoints:
        while True:
            start_step = checkpoints.latest_step() or 0
            if start_step >= config.total_steps:
                try:
                    checkpoints.verify_latest()
                except DamagedCheckpointError as damage:
                    set_aside(checkpoints, damage)
                    continue
                print(f"Nothing to do: the run has its {config.total_steps} steps.")
                return
            claim_workdir(workdir, config, dataset_identity)
            goodput.open(workdir, start_step)
            if start_step:
                print(f"Resuming from the checkpoint of step {start_step}.", flush=True)
            goodput.turn_to(DATASET)
            with closing(make_batches(start_step)) as batches:
                batch = shard_batch(next(batches), mesh, config.sharding)
                try:
                    state, train_step = prepare(
                        config, task, mesh, batch, checkpoints, goodput, is_trained, make_optimizer, start_from
                    )
                except DamagedCheckpointError as damage:
                    set_aside(checkpoints, damage)
                    continue
                with (
                    Reporter(config, workdir, start_step, shown_metrics, measure_input, goodput) as reporter,
                    Profiles(workdir, goodput, start_step, config.total_steps, profile_steps) as profiles,
                ):
                    take_steps(
                        config,
                        state,
                        batch,
                        train_step,
                        batches,
                        mesh,
                        reporter,
                        checkpoints,
                        preemption,
                        goodput,
                        profiles,
                    )
            goodput.turn_to(CHECKPOINTS)  # Leaving the context waits for the last one.
            return


def set_aside(checkpoints: Checkpoints, damage: DamagedCheckpointError) -> None:
    """Moves the last checkpoint, which is damaged, out of the way, and says so."""
    aside = checkpoints.set_aside_latest()
    print(f"{damage} It is now in {aside}; going back to the one before.", flush=True)


def take_steps(
    config: ConfigDict,
    state: TrainState,
    batch: Batch,
    train_step: StepFunction,
    batches: Iterator[dict[str, np.ndarray]],
    mesh: Mesh,
    reporter: Reporter,
    checkpoints: Checkpoints,
    preemption: Preemption,
    goodput: Goodput,
    profiles: Profiles,
) -> None:
    """Takes all steps after `state`, whose first batch is `batch`; told to end, saves the state first.

    Raises:
      SystemExit: with `hosts.RESTART`, after the process was told to end.
    """
    pending = None
    goodput.turn_to(STEPS)
    with watching() as watcher:
        for step in range(int(state.step) + 1, config.total_steps + 1):
            # Dispatch first: while the devices compute this step, the host reports the step before, which is done, and
            # takes the next batch. Nothing here waits for the step just dispatched.
            with profiles.step(step):
                state, metrics = train_step(state, batch)
            if pending:
                reporter.report(*pending)
            pending = (step, metrics)
            if step < config.total_steps:
                batch = shard_batch(next_batch(batches, metrics, watcher, goodput), mesh, config.sharding)
            profiles.finish(step, metrics)
            if ending := preemption.is_due(step):
                checkpoints.ownership.note_ending()
            if step % config.checkpoint_every == 0 or step == config.total_steps or ending:
                # The line of this step comes before its checkpoint: a resumed run would not write it again.
                reporter.report(*pending)
                pending = None
                goodput.turn_to(CHECKPOINTS)
                goodput.write()  # So that it is known how long the steps took that are saved now.
                checkpoints.save(state)
                goodput.turn_to(STEPS)
            if ending and step < config.total_steps:
                goodput.turn_to(CHECKPOINTS)
                # It is said when it is so: until the last byte is written, a killed process loses the step.
                saved = checkpoints.finish_last() or f"Told to end: step {step} is saved."
                print(f"{saved} The same command goes on from there.", flush=True)
                sys.exit(RESTART)


@contextmanager
def watching() -> Iterator[ThreadPoolExecutor]:
    """A thread that waits for devices. Leaving does not wait for it: they may hang."""
    watcher = ThreadPoolExecutor(1, thread_name_prefix="watcher")
    try:
        yield watcher
    finally:
        watcher.shutdown(wait=False)


def next_batch(
    batches: Iterator[dict[str, np.ndarray]], metrics: Metrics, watcher: ThreadPoolExecutor, goodput: Goodput
) -> dict[str, np.ndarray]:
    """Takes the next batch, and counts as waiting for it the time in which devices had already computed `metrics`."""

    def computed_at() -> float:
        jax.block_until_ready(metrics)
        return time.monotonic()

    computed, started = watcher.submit(computed_at), time.monotonic()
    batch = next(batches)
    arrived = time.monotonic()
    if computed.done():
        goodput.move(INPUT, max(arrived - max(started, computed.result()), 0.0))
    return batch


def prepare(
    config: ConfigDict,
    task: Task,
    mesh: Mesh,
    batch: Batch,
    checkpoints: Checkpoints,
    goodput: Goodput,
    is_trained: IsTrained,
    make_optimizer: MakeOptimizer,
    start_from: Callable[[TrainState], TrainState] | None,
) -> tuple[TrainState, StepFunction]:
    """Restores or initializes the state, and compiles the step for it."""
    optimizer = make_optimizer(config.optimizer, config.total_steps)
    create = partial(create_state, task, optimizer, is_trained=is_trained)
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(create, key, batch)
    sharding = state_shardings(shapes, mesh, config.sharding)
    goodput.turn_to(COMPILATION)
    print("Compiling ...", end=" ", flush=True)
    started = time.monotonic()
    if checkpoints.latest_step() is None:
        # What runs once is worth less optimization: on CPUs, it compiles in half the time to the same numbers.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        state = jax.jit(create, out_shardings=sharding, compiler_options=options)(key, batch)
        if start_from:
            with goodput.during(RESTORE):
                state = start_from(state)
    else:
        with goodput.during(RESTORE):
            state = checkpoints.restore(
                jax.tree.map(lambda x, lies: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=lies), shapes, sharding)
            )
    train_step = make_train_step(
        task,
        optimizer,
        mesh,
        seed=config.seed,
        rules=config.sharding,
        state_sharding=sharding,
        accumulation_steps=config.memory.accumulation_steps,
        is_trained=is_trained,
    )
    # Ahead of time, so that neither speed nor ETA count it.
    train_step = train_step.lower(state, batch).compile()
    print(f"took {duration(time.monotonic() - started)}.", flush=True)
    return state, train_step
