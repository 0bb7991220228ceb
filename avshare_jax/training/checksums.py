"""Checksums of arrays, computed on the devices where they are: the same for every sharding and number of devices."""

import math
from typing import Any

import jax
import jax.numpy as jnp

MIX = (0x85EBCA6B, 0xC2B2AE35)


def tree_checksums(tree: Any) -> dict[str, int]:
    """Returns one checksum (32 bits) for each leaf of a tree of arrays, by its path: `params/linear/bias`.

    A change of any one element, down to one bit, always changes the leaf's checksum.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get(_checksums([leaf for _, leaf in leaves]))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: int(x) for name, x in zip(names, sums, strict=True)}


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(x: jax.Array) -> jax.Array:
    """Sum modulo 2^32 of the mixed elements, each times an odd number that tells its place; () uint32.

    Mixing is a bijection and an odd factor has an inverse, so no change of an element leaves its term as it was. A sum
    does not depend on the order in which devices add.
    """
    words = _words(x)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
    for factor in MIX:
        words = (words ^ (words >> 15)) * jnp.uint32(factor)
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """The bits of an array as uint32; elements of 8 bytes become two."""
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    size = x.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * min(size, 4)}"))
    return bits.astype(jnp.uint32)
