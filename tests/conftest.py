"""Settings and fixtures that all tests share."""

import atexit
import os
import shutil
import tempfile
import warnings

import jax
import numpy as np
import pytest
from absl import flags

QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# Tests compile far more than they compute: little is optimized, and no program is compiled twice. JAX reads the flags
# when it is first used; what tests start inherits the variables.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *QUICK)).strip()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

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


@pytest.fixture
def drawn_texts(monkeypatch):
    """Collects the texts of all figures that are saved; a warning, as of texts that leave no room, is an error."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    texts, save = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "(?!Glyph )")
            save(figure, *arguments, **options)
        texts.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", savefig)
    return texts
