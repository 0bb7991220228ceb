"""Masked embedding prediction (MEP): tell a masked clip's embedding from negatives (paper, section 3, L_NCE)."""

import jax
import jax.numpy as jnp


def masked_embedding_scores(
    predictions: jax.Array, targets: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scores of every masked clip's prediction against every clip of the batch.

    Args:
      predictions: (B, S, D) float32, FFN(o)^T W_I of each clip's Transformer output o.
      targets: (B, S, D) float32 clip embeddings x; gradients reach them.
      positions: (B, M) masked positions.

    Returns:
      Scores (B, M, B * S), and the index (B, M) of each masked clip's own embedding among them.
    """
    batch_size, num_clips, width = targets.shape
    masked = jnp.take_along_axis(predictions, positions[..., None], axis=1)
    scores = jnp.einsum("bmd,nd->bmn", masked, targets.reshape(-1, width))
    return scores, jnp.arange(batch_size)[:, None] * num_clips + positions


def noise_contrastive_loss(scores: jax.Array, own: jax.Array, negatives: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L_NCE of one head: -mean over masked clips of log(I+ / (I+ + sum of I-)), with I = exp(score).

    Args:
      scores: (B, M, B * S) and own: (B, M), from `masked_embedding_scores`.
      own: see above.
      negatives: (B, M, K) indices of the negatives.

    Returns:
      The scalar loss, and the share (scalar) of masked clips whose own embedding scores above all K negatives.
    """
    positive = jnp.take_along_axis(scores, own[..., None], axis=-1)
    against = jnp.take_along_axis(scores, negatives, axis=-1)
    log_probability = jax.nn.log_softmax(jnp.concatenate([positive, against], axis=-1), axis=-1)[..., 0]
    return -jnp.mean(log_probability), jnp.mean(positive[..., 0] > jnp.max(against, axis=-1))


def top1_of_batch(scores: jax.Array, own: jax.Array) -> jax.Array:
    """Share (scalar) of masked clips whose own embedding scores above all other clips; chance is 1 / (B * S).

    Arguments as for `noise_contrastive_loss`.
    """
    positive = jnp.take_along_axis(scores, own[..., None], axis=-1)[..., 0]
    others = jnp.where(own[..., None] == jnp.arange(scores.shape[-1]), -jnp.inf, scores)
    return jnp.mean(positive > jnp.max(others, axis=-1))
