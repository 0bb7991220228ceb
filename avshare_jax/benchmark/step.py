"""How fast a config trains: with a batch that is always there, and with the real input.

The first is the speed of the devices, the second that of a run; what is between them, the input costs. Operations are
those of the model: each convolution and matrix product of forward and backward pass once, recomputation never.
"""

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax.benchmark.figures import Figures, note, positive, spread
from avshare_jax.benchmark.states import load_pretraining_config, random_batch, random_state
from avshare_jax.data.batches import train_batches
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.mixtures import open_mixture
from avshare_jax.models.placement import written_for
from avshare_jax.training import plan
from avshare_jax.training.abstract_step import abstract_state_and_batch, lower_step
from avshare_jax.training.chips import CHIPS
from avshare_jax.training.flops import count_flops
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.sharding import check_layout, shard_batch
from avshare_jax.training.step import Batch, TrainState

LIBRARIES = ("simplejpeg",)

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    parser.add_argument("--config", default="configs/pretrain.py:demo", help="config file: FILE.py or FILE.py:VARIANT")
    parser.add_argument("--steps", type=positive, default=10, help="steps in each turn")


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Takes `options.repeats` turns of `options.steps` steps with either kind of input, after a first turn of each."""
    return measure_config(load_pretraining_config(options.config), options.steps, options.repeats)


def measure_config(config: ConfigDict, steps: int, repeats: int) -> dict[str, Figures]:
    """Measures a config; the real input is left out, with a line that says why, where its data set is not there."""
    mesh = make_mesh(config.mesh)
    check_layout(config, mesh)
    abstract, abstract_batch = abstract_state_and_batch(config, mesh)
    state, step = random_state(abstract), compile_step(config, mesh, abstract, abstract_batch)
    batch = jax.device_put(random_batch(abstract_batch), {name: x.sharding for name, x in abstract_batch.items()})
    flops = model_flops(config)
    turns = steps, 1 + repeats

    state, seconds = take_turns(step, state, itertools.repeat(batch), *turns)
    results = {"a batch that is always there": speed(config, mesh, seconds, flops) | memory(step)}
    try:
        mixture = open_mixture(config.data)
    except DatasetError as error:
        note(f"The real input is left out: {error}")
        return results
    with closing(train_batches(mixture, config.data, seed=config.seed, batch_size=config.batch_size)) as batches:
        placed = (shard_batch(rows, mesh, config.sharding) for rows in batches)
        _, real_seconds = take_turns(step, state, placed, *turns)
    results["the real input"] = speed(config, mesh, real_seconds, flops)
    waiting = 1 - float(np.median(seconds) / np.median(real_seconds))
    results["what the input costs"] = {"share of the time": max(waiting, 0.0)}
    return results


def compile_step(config: ConfigDict, mesh: Mesh, state: TrainState, batch: Batch) -> jax.stages.Compiled:
    """Compiles the training step of a pretraining config as the training loop does."""
    return lower_step(config, mesh, state, batch).compile()


def take_turns(
    step: StepFunction, state: TrainState, batches: Iterator[Batch], steps: int, turns: int
) -> tuple[TrainState, list[float]]:
    """Takes turns of some steps as the training loop does: the next batch is fetched while devices compute.

    Returns:
      The state, and seconds a step of each turn but the first.
    """
    seconds, batch = [], next(batches)
    for _ in range(turns):
        started = time.monotonic()
        for _ in range(steps):
            state, metrics = step(state, batch)
            batch = next(batches)
            jax.block_until_ready(metrics)
        seconds.append((time.monotonic() - started) / steps)
    return state, seconds[1:]


def model_flops(config: ConfigDict) -> int:
    """Operations of a step's forward and backward pass, of all videos, by the trace without rematerialization.

    It is the trace for TPUs, whose convolutions are the model's own; other devices also multiply by padding.
    """
    return count_model(config).total()


def count_model(config: ConfigDict) -> Counter[str]:
    """What `model_flops` sums, by where in the program it is, such as ".../visual_cnn/stem"."""
    config = config.copy_and_resolve_references()
    config.memory.update(remat="none", clip_chunks=1, accumulation_steps=1)
    task, batch = Pretraining(config), plan.abstract_batch(config)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)

    def loss(params: dict, batch_stats: dict, batch: Batch) -> jax.Array:
        return task.loss({"params": params, "batch_stats": batch_stats}, batch, jax.random.key(0), train=True)[0]

    with written_for("tpu"):
        return count_flops(jax.grad(loss), variables["params"], variables["batch_stats"], batch)


def speed(config: ConfigDict, mesh: Mesh, seconds: list[float], flops: int) -> Figures:
    """Figures of steps that took `seconds` each and `flops` operations of the model."""
    figures = spread("seconds a step", seconds)
    figures |= spread("videos a second", [config.batch_size / each for each in seconds])
    rates = [flops / each / mesh.size for each in seconds]
    figures |= spread("TFLOP/s of the model on each device", [rate / 1e12 for rate in rates])
    chip = CHIPS.get(mesh.devices.flat[0].device_kind)
    return figures | (spread("share of the device's peak in bfloat16", [r / chip.flops for r in rates]) if chip else {})


def memory(step: jax.stages.Compiled) -> Figures:
    """Largest memory of a device so far where it counts that, else what the compiler plans for a step."""
    used = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if used:
        return {"GB of memory, at most": used / 1e9}
    planned = step.memory_analysis()
    return {"GB of memory, by the compiler": (planned.argument_size_in_bytes + planned.temp_size_in_bytes) / 1e9}
