"""How long training stands still for a checkpoint, how long it takes to be on disk, and to be read.

The state has the config's shapes and random numbers. What is read comes from the system's memory where that still holds
what was just written, as it does for small states.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avshare_jax.benchmark.figures import Figures, spread, timed
from avshare_jax.benchmark.states import load_pretraining_config, random_state
from avshare_jax.training.abstract_step import abstract_state_and_batch
from avshare_jax.training.checkpoints import Checkpoints
from avshare_jax.training.checksums import tree_checksums
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.step import TrainState

LIBRARIES = ("tensorstore",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    parser.add_argument("--config", default="configs/pretrain.py", help="config file: FILE.py or FILE.py:VARIANT")
    parser.add_argument("--directory", type=Path, help="where checkpoints are written; by default a temporary folder")


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Saves and restores a state of the config's size."""
    config = load_pretraining_config(options.config)
    return {options.config: measure_config(config, options.directory, options.repeats)}


def measure_config(config: ConfigDict, directory: Path | None, repeats: int) -> Figures:
    """Saves and restores a state of the config's size, `repeats` times after a first one."""
    abstract, _ = abstract_state_and_batch(config, make_mesh(config.mesh))
    state = jax.block_until_ready(random_state(abstract))
    seconds: dict[str, list[float]] = {"training stands still": [], "until on disk": [], "restore": [], "checksums": []}
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        for turn in range(1 + repeats):
            state = state.replace(step=jax.device_put(jnp.int32(turn + 1), abstract.step.sharding))
            measured = save_and_restore(folder, state, abstract)
            if turn:  # The first one compiles and makes folders.
                for values, value in zip(seconds.values(), measured, strict=True):
                    values.append(value)
        on_disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    figures: Figures = {"MB of state": sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6, "MB on disk": on_disk / 1e6}
    for name, values in seconds.items():
        figures |= spread(f"seconds, {name}", values)
    hidden = [1 - stopped / whole for stopped, whole in zip(*list(seconds.values())[:2], strict=True)]
    return figures | spread("share of saving behind training", hidden)


def save_and_restore(folder: str, state: TrainState, abstract: TrainState) -> tuple[float, float, float, float]:
    """Seconds for which saving blocks, until the checkpoint is on disk, to restore it, and for checksums alone."""
    with Checkpoints(folder, kept=1) as checkpoints:
        started = time.monotonic()
        checkpoints.save(state)
        stopped = time.monotonic() - started
    saved = time.monotonic() - started
    with Checkpoints(folder, kept=1) as checkpoints:
        restored = timed(lambda: jax.block_until_ready(checkpoints.restore(abstract)), time.monotonic)
    return stopped, saved, restored, timed(lambda: tree_checksums(state), time.monotonic)
