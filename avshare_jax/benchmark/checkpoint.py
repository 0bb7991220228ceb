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

from avshare_jax import settings
from avshare_jax.benchmark.figures import Figures, spread, timed
from avshare_jax.benchmark.states import abstract_state_and_batch, random_state
from avshare_jax.training.checkpoints import Checkpoints
from avshare_jax.training.checksums import tree_checksums
from avshare_jax.training.mesh import make_mesh

LIBRARIES = ("tensorstore",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    parser.add_argument("--config", default="configs/pretrain.py", help="config file: FILE.py or FILE.py:VARIANT")
    parser.add_argument("--directory", type=Path, help="where checkpoints are written; by default a temporary folder")


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Saves and restores a state of the config's size, `options.repeats` times after a first one."""
    config = settings.load_config_file(options.config)
    abstract, _ = abstract_state_and_batch(config, make_mesh(config.mesh))
    state = jax.block_until_ready(random_state(abstract))
    seconds: dict[str, list[float]] = {"training stands still": [], "until on disk": [], "restore": [], "checksums": []}
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for turn in range(1 + options.repeats):
            state = state.replace(step=jax.device_put(jnp.int32(turn + 1), abstract.step.sharding))
            started = time.monotonic()
            with Checkpoints(folder, kept=1) as checkpoints:
                begun = time.monotonic()
                checkpoints.save(state)
                stopped = time.monotonic() - begun
            saved = time.monotonic() - started
            with Checkpoints(folder, kept=1) as checkpoints:
                restored = timed(
                    lambda opened=checkpoints: jax.block_until_ready(opened.restore(abstract)), time.monotonic
                )
            summed = timed(lambda state=state: tree_checksums(state), time.monotonic)
            if turn:  # The first one compiles and makes folders.
                for values, value in zip(seconds.values(), (stopped, saved, restored, summed), strict=True):
                    values.append(value)
        on_disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    figures: Figures = {"MB of state": sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6, "MB on disk": on_disk / 1e6}
    for name, values in seconds.items():
        figures |= spread(f"seconds, {name}", values)
    hidden = [1 - stopped / whole for stopped, whole in zip(*list(seconds.values())[:2], strict=True)]
    return {options.config: figures | spread("share of saving behind training", hidden)}
