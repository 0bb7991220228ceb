"""What sharing weights costs and saves: the Transformers of a config beside unshared and fully shared ones.

Each scheme runs forward and backward through all three Transformers on the tokens of a batch, and one update of their
parameters, turn by turn. The multimodal Transformer sees each video twice, for both kinds of pairs.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.benchmark.figures import Figures, spread
from avshare_jax.benchmark.parts import random_array
from avshare_jax.benchmark.states import load_pretraining_config
from avshare_jax.models.placement import compiler_options
from avshare_jax.models.transformer import TRANSFORMERS
from avshare_jax.settings import UserError
from avshare_jax.training.optimizer import make_optimizer

LIBRARIES = ()

FULL_WEIGHTS = {"nothing shared": "none", "everything shared": "all"}


class Scheme(NamedTuple):
    """Transformers that are ready to run.

    Attributes:
      works: functions by name that run and wait.
      sizes: figures that need no clock.
    """

    works: dict[str, Callable[[], Any]]
    sizes: Figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    default = "configs/pretrain.py:batch_size=8"
    parser.add_argument("--config", default=default, help="config file with factorized weights: FILE.py:VARIANT")


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Takes `options.repeats` turns of each scheme, after a first call of each."""
    return measure_config(load_pretraining_config(options.config), options.repeats)


def measure_config(config: ConfigDict, repeats: int) -> dict[str, Figures]:
    """Measures the Transformers of a config on `batch_size` videos, in float32 where devices are CPUs.

    Raises:
      UserError: the weights of the config's Transformers are not factorized.
    """
    if config.model.rank is None:
        raise UserError("This part compares factorized weights with full ones: choose a config that has a rank.")
    config = config.copy_and_resolve_references()
    if jax.default_backend() == "cpu":
        config.model.dtype = "float32"
    schemes = {"as configured": make_scheme(config)}
    for name, sharing in FULL_WEIGHTS.items():
        config.model.update(rank=None, layer_sharing=sharing, transformer_sharing=sharing)
        schemes[name] = make_scheme(config)
    milliseconds: dict[str, dict[str, list[float]]] = {name: {} for name in schemes}
    for turn in range(1 + repeats):
        for name, scheme in schemes.items():
            for work, run in scheme.works.items():
                started = time.monotonic()
                run()
                if turn:
                    milliseconds[name].setdefault(work, []).append(1e3 * (time.monotonic() - started))
    results = {}
    for name, scheme in schemes.items():
        results[name] = dict(scheme.sizes)
        for work, each in milliseconds[name].items():
            results[name] |= spread(f"ms, {work}", each)
    for name in FULL_WEIGHTS:
        results[f"as configured / {name}"] = compare(
            schemes["as configured"].sizes, schemes[name].sizes, milliseconds["as configured"], milliseconds[name]
        )
    return results


def make_scheme(config: ConfigDict) -> Scheme:
    """Compiles the Transformers of a config, with random weights and tokens, and the update of their parameters."""
    network, tokens = models.build(config.model), random_tokens(config)

    def run(network: models.AVBert, tokens: Mapping[str, jax.Array]) -> list[jax.Array]:
        return [network.transformer(x, name, train=False) for name, x in tokens.items()]

    shapes = jax.eval_shape(lambda tokens: network.init(jax.random.key(0), tokens, method=run), tokens)["params"]
    params = jax.tree.map(lambda x: random_array(x.shape, x.dtype), shapes["transformer"])
    others = {name: random_array(x.shape, x.dtype) for name, x in shapes.items() if name != "transformer"}

    def loss(params: Any, tokens: Mapping[str, jax.Array]) -> jax.Array:
        outputs = network.apply({"params": others | {"transformer": params}}, tokens, method=run)
        # Not the sum of squares, which LayerNorm makes a constant.
        return sum(jnp.mean(x.astype(jnp.float32) ** 3) for x in outputs)

    optimizer = make_optimizer(config.optimizer, config.total_steps)
    state = optimizer.init(params)

    def update(params: Any, gradient: Any, state: optax.OptState) -> tuple[Any, optax.OptState]:
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    options = compiler_options()
    backward = jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=options).lower(params, tokens).compile()
    step = jax.jit(update, compiler_options=options).lower(params, params, state).compile()
    works = {
        "forward and backward": lambda: jax.block_until_ready(backward(params, tokens)),
        "update": lambda: jax.block_until_ready(step(params, params, state)),
    }
    sizes = {
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "MB of parameters": megabytes(params),
        "MB of the optimizer's state": megabytes(state),
        "MB of temporary memory, by the compiler": backward.memory_analysis().temp_size_in_bytes / 1e6,
    }
    return Scheme(works, sizes)


def random_tokens(config: ConfigDict) -> dict[str, jax.Array]:
    """Tokens (B, N, D) for each Transformer by name."""
    videos, tokens = config.batch_size, config.data.num_clips + 1
    shapes = {
        name: (2 * videos, 2 * tokens) if name == "multimodal" else (videos, tokens)
        for name in TRANSFORMERS[config.model.fusion]
    }
    dtype = jnp.dtype(config.model.dtype)
    return {name: random_array((*shape, config.model.hidden), dtype) for name, shape in shapes.items()}


def compare(
    sizes: Figures, other_sizes: Figures, times: Mapping[str, list[float]], other_times: Mapping[str, list[float]]
) -> Figures:
    """Ratios of all figures, those of times turn by turn."""
    ratios = {name: size / other_sizes[name] for name, size in sizes.items()}
    for work, milliseconds in times.items():
        pairs = zip(milliseconds, other_times[work], strict=True)
        ratios |= spread(f"ms, {work}", [one / other for one, other in pairs])
    return ratios


def megabytes(tree: Any) -> float:
    """Size of a tree of arrays."""
    return sum(np.dtype(x.dtype).itemsize * x.size for x in jax.tree.leaves(tree)) / 1e6
