"""Masked embedding prediction (MEP): tell a masked clip's embedding from negatives (paper, section 3, L_NCE).

`present` says everywhere which videos (B,) bool have the modality; by default, all do. Masked clips of the others
count in no mean.
"""

import jax
import jax.numpy as jnp

from avshare_jax.objectives.counting import mean_of_counted


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
    # Accelerators round float32 factors to bfloat16 or TF32 unless told otherwise; scores go into an exponential.
    scores = jnp.einsum("bmd,nd->bmn", masked, targets.reshape(-1, width), precision="highest")
    return scores, jnp.arange(batch_size)[:, None] * num_clips + positions


def noise_contrastive_loss(
    scores: jax.Array, own: jax.Array, negatives: jax.Array, valid: jax.Array, present: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """L_NCE of one head: -mean over masked clips of log(I+ / (I+ + sum of I-)), with I = exp(score).

    A masked clip without any valid negative does not count; where none counts, both results are 0.

    Args:
      scores: (B, M, B * S) and
      own: (B, M), both from `masked_embedding_scores`.
      negatives: (B, M, K) indices of the negatives and
      valid: (B, M, K) bool, which of them are negatives at all, both from `sample_negatives`.
      present: see the top of this module.

    Returns:
      The scalar loss, and the share (scalar) of masked clips whose own embedding scores above all its negatives.
    """
    positive = jnp.take_along_axis(scores, own[..., None], axis=-1)
    against = jnp.where(valid, jnp.take_along_axis(scores, negatives, axis=-1), -jnp.inf)
    log_probability = jax.nn.log_softmax(jnp.concatenate([positive, against], axis=-1), axis=-1)[..., 0]
    best = (positive[..., 0] > jnp.max(against, axis=-1)).astype(scores.dtype)
    counted = _has_negatives(valid, present)
    return -mean_of_counted(log_probability, counted), mean_of_counted(best, counted)


def chance(valid: jax.Array, present: jax.Array | None = None) -> jax.Array:
    """Share (scalar) that a blind guess among own embedding and valid negatives (B, M, K) gets; as for the loss."""
    choices = 1 + jnp.sum(valid, axis=-1)
    return mean_of_counted(1 / choices, _has_negatives(valid, present))


def top1_of_batch(scores: jax.Array, own: jax.Array, present: jax.Array | None = None) -> jax.Array:
    """Share (scalar) of masked clips whose own embedding scores above all other clips of videos that are present.

    Arguments as for `noise_contrastive_loss`; 0 where no video is present.
    """
    batch_size = scores.shape[0]
    present = jnp.ones(batch_size, bool) if present is None else present
    rivals = jnp.repeat(present, scores.shape[-1] // batch_size) & (own[..., None] != jnp.arange(scores.shape[-1]))
    positive = jnp.take_along_axis(scores, own[..., None], axis=-1)[..., 0]
    best = positive > jnp.max(jnp.where(rivals, scores, -jnp.inf), axis=-1)
    return mean_of_counted(best.astype(scores.dtype), jnp.broadcast_to(present[:, None], own.shape))


def chance_of_batch(batch_size: int, num_clips: int, present: jax.Array | None = None) -> jax.Array:
    """Share (scalar) that a blind guess among all S clips of the present ones of B videos gets; 0 without videos."""
    videos = batch_size if present is None else jnp.sum(present)
    return jnp.where(videos > 0, 1 / jnp.maximum(videos * num_clips, 1), 0.0)


def _has_negatives(valid: jax.Array, present: jax.Array | None) -> jax.Array:
    """(B, M) bool: masked clips of present videos that have a negative."""
    counted = jnp.any(valid, axis=-1)
    return counted if present is None else counted & present[:, None]
