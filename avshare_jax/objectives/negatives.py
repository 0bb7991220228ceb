"""Negatives for masked embedding prediction: content-aware (CANS), of the same video, or uniform (paper, section 3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

KEPT_INTERVAL = (0.025, 0.975)  # CANS drops what lies outside the central 95 % of the distances.


def sample_negatives(
    key: jax.Array, tokens: jax.Array, positions: jax.Array, count: int, log_weights: Callable
) -> jax.Array:
    """Draws `count` negatives without replacement for each masked clip from all other clips of the batch.

    Drawing without replacement with probability proportional to a weight is taking the largest of
    log-weight + Gumbel noise. Candidates of weight zero are taken only when nothing else is left.

    Args:
      key: random key.
      tokens: (B, S, D) clip embeddings of one modality; no gradient flows through the choice.
      positions: (B, M) positions of the masked clips.
      count: K, negatives for each of them; less than B * S.
      log_weights: one of the functions below.

    Returns:
      (B, M, K) int32 indices into the B * S clips of the batch, row-major.
    """
    batch_size, num_clips, width = tokens.shape
    anchors = (jnp.arange(batch_size)[:, None] * num_clips + positions).reshape(-1)
    clips = jax.lax.stop_gradient(tokens).reshape(-1, width)
    distances = pairwise_distances(clips[anchors], clips)
    itself = anchors[:, None] == jnp.arange(batch_size * num_clips)
    same_video = anchors[:, None] // num_clips == jnp.arange(batch_size * num_clips) // num_clips
    weights = jnp.where(itself, -jnp.inf, log_weights(distances, itself, same_video))
    noise = jax.random.gumbel(key, weights.shape)
    # A finite floor keeps excluded candidates below all others, yet the anchor itself below them.
    scores = jnp.where(itself, -jnp.inf, jnp.maximum(weights, -1e6) + noise)
    return jax.lax.top_k(scores, count)[1].reshape(batch_size, -1, count)


def similar(distances: jax.Array, itself: jax.Array, same_video: jax.Array) -> jax.Array:
    """CANS-similar: log (1 - d), the nearer the likelier; (N, B * S) from `pairwise_distances` of N anchors."""
    del same_video
    normalized, kept = normalize_distances(distances, itself)
    return jnp.where(kept, jnp.log1p(-normalized), -jnp.inf)


def dissimilar(distances: jax.Array, itself: jax.Array, same_video: jax.Array) -> jax.Array:
    """CANS-dissimilar: log d, the farther the likelier; shapes as for `similar`."""
    del same_video
    normalized, kept = normalize_distances(distances, itself)
    return jnp.where(kept, jnp.log(normalized), -jnp.inf)


def uniform(distances: jax.Array, itself: jax.Array, same_video: jax.Array) -> jax.Array:
    """Baseline: every other clip of the mini-batch is as likely; shapes as for `similar`."""
    del itself, same_video
    return jnp.zeros_like(distances)


def current_sequence(distances: jax.Array, itself: jax.Array, same_video: jax.Array) -> jax.Array:
    """Baseline: only clips of the same video; needs fewer negatives than clips. Shapes as for `similar`."""
    del itself
    return jnp.where(same_video, jnp.zeros_like(distances), -jnp.inf)


LOG_WEIGHTS = {
    "similar": similar,
    "dissimilar": dissimilar,
    "uniform": uniform,
    "current_sequence": current_sequence,
}


def pairwise_distances(anchors: jax.Array, clips: jax.Array) -> jax.Array:
    """Euclidean distances (N, C) between anchors (N, D) and clips (C, D), in float32, by one matrix product."""
    anchors, clips = anchors.astype(jnp.float32), clips.astype(jnp.float32)
    products = jnp.matmul(anchors, clips.T, precision="highest")
    squared = jnp.sum(anchors**2, -1)[:, None] + jnp.sum(clips**2, -1)[None, :] - 2 * products
    return jnp.sqrt(jnp.maximum(squared, 0.0))


def normalize_distances(distances: jax.Array, itself: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scales each anchor's distances to [0, 1] and marks those within the central 95 %.

    Args:
      distances: (N, C).
      itself: (N, C) bool, true where the candidate is the anchor, which counts neither for scale nor interval.

    Returns:
      Normalized distances (N, C) and a mask (N, C) of the candidates that are kept.
    """
    others = jnp.where(itself, jnp.nan, distances)
    smallest = jnp.nanmin(others, axis=1, keepdims=True)
    largest = jnp.nanmax(others, axis=1, keepdims=True)
    normalized = jnp.clip((distances - smallest) / jnp.maximum(largest - smallest, 1e-12), 0.0, 1.0)
    low, high = jnp.nanquantile(jnp.where(itself, jnp.nan, normalized), jnp.array(KEPT_INTERVAL), axis=1)
    return normalized, (normalized >= low[:, None]) & (normalized <= high[:, None]) & ~itself
