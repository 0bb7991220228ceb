"""Checksums: of every bit and place, for every kind of number, the same however an array is laid out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avshare_jax.training.checksums import tree_checksums


def reference(x: np.ndarray) -> int:
    """From the definition, with Python's unlimited integers."""
    words = x if x.dtype == bool else x.view(f"uint{8 * min(x.dtype.itemsize, 4)}")
    total = 0
    for place, word in enumerate(words.astype(np.uint32).ravel().tolist()):
        for factor in (0x85EBCA6B, 0xC2B2AE35):
            word = (word ^ (word >> 15)) * factor % 2**32
        total += word * (2 * place + 1)
    return total % 2**32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (5, 3, 2)])
def test_checksum_is_as_defined(dtype, shape):
    x = np.asarray(np.random.default_rng(0).normal(size=shape) * 10).astype(jnp.dtype(dtype))
    assert tree_checksums({"x": jnp.asarray(x)}) == {"x": reference(x)}


def test_every_bit_and_every_swap_counts():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    found = set()
    for place in range(x.size):
        for bit in range(32):
            flipped = x.copy()
            flipped.view(np.uint32).ravel()[place] ^= np.uint32(1 << bit)
            found.add(tree_checksums({"x": flipped})["x"])
    found.add(tree_checksums({"x": x[::-1]})["x"])
    found.add(tree_checksums({"x": x})["x"])
    assert len(found) == 32 * x.size + 2


def test_names_are_paths():
    assert tree_checksums({"a": {"b": jnp.zeros(2)}, "c": [jnp.ones(1)]}).keys() == {"a/b", "c/0"}


def test_the_layout_does_not_matter():
    x = jnp.arange(24, dtype=jnp.float32).reshape(4, 6)
    assert tree_checksums({"x": x}) == tree_checksums({"x": jnp.asarray(np.asfortranarray(x))})
    assert tree_checksums({"x": x}) != tree_checksums({"x": jax.numpy.reshape(x, (6, 4)).T})
