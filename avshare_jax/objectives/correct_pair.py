"""Correct pair prediction (CPP): is this audio from this video? (paper, section 3)"""

import jax
import jax.numpy as jnp
import optax


def sample_derangement(key: jax.Array, size: int) -> jax.Array:
    """Draws a random cyclic permutation (size,) int32: no element keeps its place. `size` must be at least 2."""
    order = jax.random.permutation(key, size)
    return jnp.zeros(size, jnp.int32).at[order].set(jnp.roll(order, -1))


def pair_loss(right: jax.Array, wrong: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy and accuracy (both scalars) of logits (B,) for right and for wrong pairs."""
    logits = jnp.concatenate([right, wrong])
    labels = jnp.concatenate([jnp.ones_like(right), jnp.zeros_like(wrong)])
    loss = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))
    return loss, jnp.mean((logits > 0) == (labels > 0.5))
