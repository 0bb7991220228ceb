"""Correct pair prediction (CPP): is this audio from this video? (paper, section 3)"""

import jax
import jax.numpy as jnp
import optax

from avshare_jax.objectives.counting import mean_of_counted


def sample_derangement(key: jax.Array, size: int) -> jax.Array:
    """Draws a random cyclic permutation (size,) int32: no element keeps its place. `size` must be at least 2."""
    order = jax.random.permutation(key, size)
    return jnp.zeros(size, jnp.int32).at[order].set(jnp.roll(order, -1))


def pair_loss(
    right: jax.Array,
    wrong: jax.Array,
    right_present: jax.Array | None = None,
    wrong_present: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy and accuracy of logits, right and wrong pairs weighing half each however many there are.

    Args:
      right: (B,) float32 logits of right pairs.
      wrong: (B,) float32 logits of wrong pairs.
      right_present: (B,) bool, false for right pairs that lack a modality and do not count; all count by default.
      wrong_present: the same for wrong pairs.

    Returns:
      The loss, to which a side without pairs adds nothing, and the accuracy, which is then the other side's; 0 where
      nothing counts. Both scalars.
    """
    right_present = jnp.ones(right.shape, bool) if right_present is None else right_present
    wrong_present = jnp.ones(wrong.shape, bool) if wrong_present is None else wrong_present
    right_loss = mean_of_counted(optax.sigmoid_binary_cross_entropy(right, jnp.ones_like(right)), right_present)
    wrong_loss = mean_of_counted(optax.sigmoid_binary_cross_entropy(wrong, jnp.zeros_like(wrong)), wrong_present)
    right_share = mean_of_counted((right > 0).astype(jnp.float32), right_present)
    wrong_share = mean_of_counted((wrong <= 0).astype(jnp.float32), wrong_present)
    sides = jnp.any(right_present).astype(jnp.float32) + jnp.any(wrong_present)
    return (right_loss + wrong_loss) / 2, (right_share + wrong_share) / jnp.maximum(sides, 1)
