"""Which clips masked embedding prediction hides from the Transformers."""

import jax
import jax.numpy as jnp


def masked_count(num_clips: int, fraction: float) -> int:
    """Number of clips to mask in a video of `num_clips`: the rounded fraction, at least 1 and not all of them."""
    return min(max(1, round(fraction * num_clips)), num_clips - 1)


def sample_masked_positions(key: jax.Array, batch_size: int, num_clips: int, count: int) -> jax.Array:
    """Draws `count` different clips of each video; returns their positions (B, count), int32, ascending."""
    scores = jax.random.uniform(key, (batch_size, num_clips))
    return jnp.sort(jnp.argsort(scores, axis=1)[:, :count], axis=1)


def positions_to_mask(positions: jax.Array, num_clips: int) -> jax.Array:
    """Turns positions (B, count) into a mask (B, S) that is true at those positions."""
    return jnp.any(jax.nn.one_hot(positions, num_clips, dtype=bool), axis=1)
