"""How long the training step of a config takes to trace and compile, and to come from the compilation cache."""

import argparse
import tempfile
import time
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from avshare_jax.benchmark.figures import Figures, spread
from avshare_jax.benchmark.states import load_pretraining_config
from avshare_jax.training.abstract_step import abstract_state_and_batch, lower_step
from avshare_jax.training.mesh import make_mesh

LIBRARIES = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    parser.add_argument(
        "configs",
        nargs="*",
        metavar="CONFIG",
        default=["configs/pretrain.py:demo"],
        help="config files: FILE.py or FILE.py:VARIANT; without: configs/pretrain.py:demo",
    )


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Compiles each config's step `options.repeats` times into an empty cache, and as often from it."""
    return {path: measure_config(load_pretraining_config(path), options.repeats) for path in options.configs}


def measure_config(config: ConfigDict, repeats: int) -> Figures:
    """Compiles a config's step for this machine's devices; there is no warm-up, of which nothing would stay."""
    seconds: dict[str, list[float]] = {"trace and lower": [], "compile": [], "from the cache": []}
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            use_cache(folder, 0.0)
            for name in ("compile", "from the cache"):
                traced, compiled = compile_step(config)
                seconds["trace and lower"].append(traced)
                seconds[name].append(compiled)
            megabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    use_cache(*before)
    figures: Figures = {}
    for name, values in seconds.items():
        figures |= spread(f"seconds, {name}", values)
    return figures | {"MB in the cache": megabytes}


def compile_step(config: ConfigDict) -> tuple[float, float]:
    """Seconds to trace and lower the step, and to compile it or read it from the cache, whichever JAX does."""
    jax.clear_caches()
    mesh = make_mesh(config.mesh)
    state, batch = abstract_state_and_batch(config, mesh)
    started = time.monotonic()
    lowered = lower_step(config, mesh, state, batch)
    traced = time.monotonic()
    lowered.compile()
    return traced - started, time.monotonic() - traced


def use_cache(folder: str | None, smallest_seconds: float) -> None:
    """Has JAX keep compiled programs there from now on."""
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", smallest_seconds)
