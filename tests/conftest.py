"""Settings and fixtures that all tests share."""

from functools import partial

import jax
import numpy as np
import pytest
from absl import flags

# Grain's worker processes read absl's flags, which only absl.app.run would have parsed.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def random_variables():
    """Returns a function that fills the variables of `init(key)` at random: no bias is zero, no scale one."""

    def make(init, seed=0):
        random = np.random.default_rng(seed)

        def fill(path, leaf):
            value = random.normal(size=leaf.shape)
            if path[-1].key in ("scale", "var"):
                value = np.exp(0.3 * value)
            elif leaf.ndim > 1:
                value /= np.sqrt(np.prod(leaf.shape[:-1]))
            else:
                value *= 0.3
            return value.astype(np.float32)

        return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, jax.random.key(0)))

    return make


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` that spends little time on optimizing what runs once on the CPU."""
    options = {
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    return partial(jax.jit, compiler_options=options)
