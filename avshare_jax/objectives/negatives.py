"""Negatives for masked embedding prediction: content-aware (CANS), of the same video, or uniform (paper, section 3)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

KEPT_INTERVAL = (0.025, 0.975)  # CANS drops what lies outside the central 95 % of the distances.

LogWeights = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def sample_negatives(
    key: jax.Array,
    tokens: jax.Array,
    positions: jax.Array,
    count: int,
    log_weights: LogWeights,
    *,
    present: jax.Array | None = None,
    groups: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Draws negatives without replacement for each masked clip from the other clips of its group.

    Drawing without replacement with probability proportional to a weight is taking the largest of
    log-weight + Gumbel noise. Clips of weight zero are never drawn: where fewer than `count` others remain, the rest of
    the draws is marked as not valid.

    Args:
      key: random key.
      tokens: (B, S, D) clip embeddings of one modality; no gradient flows through the choice.
      positions: (B, M) positions of the masked clips.
      count: K, negatives for each of them.
      log_weights: one of the functions below.
      present: (B,) bool, false for videos without the modality: their clips are no negatives, count in no distance
        statistics, and have no negatives themselves. All are present by default.
      groups: number of equal, consecutive parts of the batch; negatives come from the masked clip's own part.

    Returns:
      (B, M, K) int32 indices into the B * S clips of the whole batch, row-major, and (B, M, K) bool, true for draws
      that are negatives; these come first.

    Raises:
      ValueError: the batch cannot be divided into the groups.
    """
    batch_size, num_clips, width = tokens.shape
    if batch_size % groups:
        raise ValueError(f"A batch of {batch_size} videos cannot be divided into {groups} equal groups of negatives.")
    videos = batch_size // groups
    clips_of_group, drawn = videos * num_clips, min(count, videos * num_clips)
    present = jnp.ones(batch_size, bool) if present is None else present
    weights = jax.vmap(partial(_log_weights_of_group, log_weights=log_weights))(
        jax.lax.stop_gradient(tokens).reshape(groups, videos, num_clips, width),
        positions.reshape(groups, videos, -1),
        present.reshape(groups, videos),
    )
    scores, indices = jax.lax.top_k(weights + jax.random.gumbel(key, weights.shape), drawn)
    indices += clips_of_group * jnp.arange(groups)[:, None, None]
    shape, missing = (*positions.shape, drawn), ((0, 0), (0, 0), (0, count - drawn))
    return jnp.pad(indices.reshape(shape), missing), jnp.pad(scores.reshape(shape) > -jnp.inf, missing)


def _log_weights_of_group(
    tokens: jax.Array, positions: jax.Array, present: jax.Array, log_weights: LogWeights
) -> jax.Array:
    """Log-weights (N * M, N * S) of all clips (N, S, D) of a group of N videos for each of its masked clips (N, M)."""
    num_videos, num_clips, width = tokens.shape
    clips = tokens.reshape(-1, width).astype(jnp.float32)
    video_of_clip = jnp.arange(num_videos * num_clips) // num_clips
    # A shift changes no distance. But next to what all clips have in common, rounding would hide small ones (they are
    # differences of squares), and decide on draws.
    clips -= jnp.mean(clips, 0, where=present[video_of_clip][:, None])
    anchors = (jnp.arange(num_videos)[:, None] * num_clips + positions).reshape(-1)
    itself = anchors[:, None] == jnp.arange(num_videos * num_clips)
    same_video = (anchors // num_clips)[:, None] == video_of_clip
    candidates = ~itself & present[anchors // num_clips][:, None] & present[video_of_clip]
    return jnp.where(
        candidates, log_weights(pairwise_distances(clips[anchors], clips), candidates, same_video), -jnp.inf
    )


def similar(distances: jax.Array, candidates: jax.Array, same_video: jax.Array) -> jax.Array:
    """CANS-similar: log (1 - d), the nearer the likelier.

    Args:
      distances: (N, C) float32 from N masked clips to all C clips.
      candidates: (N, C) bool, which clips may be negatives.
      same_video: (N, C) bool, which clips are of the masked clip's video.

    Returns:
      (N, C) float32 logarithms of weights; what is no candidate may have any.
    """
    del same_video
    normalized, kept = normalize_distances(distances, candidates)
    return jnp.where(kept, jnp.log1p(-normalized), -jnp.inf)


def dissimilar(distances: jax.Array, candidates: jax.Array, same_video: jax.Array) -> jax.Array:
    """CANS-dissimilar: log d, the farther the likelier; arguments and result as for `similar`."""
    del same_video
    normalized, kept = normalize_distances(distances, candidates)
    return jnp.where(kept, jnp.log(normalized), -jnp.inf)


def uniform(distances: jax.Array, candidates: jax.Array, same_video: jax.Array) -> jax.Array:
    """Baseline: every other clip is as likely; arguments and result as for `similar`."""
    del candidates, same_video
    return jnp.zeros_like(distances)


def current_sequence(distances: jax.Array, candidates: jax.Array, same_video: jax.Array) -> jax.Array:
    """Baseline: only clips of the same video, S - 1 at most; arguments and result as for `similar`."""
    del candidates
    return jnp.where(same_video, jnp.zeros_like(distances), -jnp.inf)


LOG_WEIGHTS: dict[str, LogWeights] = {
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


def normalize_distances(distances: jax.Array, candidates: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scales each anchor's distances to [0, 1] and marks those within the central 95 %.

    Distances that are all the same, as of collapsed embeddings or of a single candidate, say nothing: they become 0.5,
    so that near and far weigh the same.

    Args:
      distances: (N, C).
      candidates: (N, C) bool; other distances count neither for scale nor interval.

    Returns:
      Normalized distances (N, C) and a mask (N, C) of the candidates that are kept.
    """
    smallest = jnp.min(distances, axis=1, keepdims=True, where=candidates, initial=jnp.inf)
    largest = jnp.max(distances, axis=1, keepdims=True, where=candidates, initial=-jnp.inf)
    scaled = (distances - smallest) / jnp.where(largest > smallest, largest - smallest, 1.0)
    normalized = jnp.clip(jnp.where(largest > smallest, scaled, 0.5), 0.0, 1.0)
    low, high = jnp.nanquantile(jnp.where(candidates, normalized, jnp.nan), jnp.array(KEPT_INTERVAL), axis=1)
    return normalized, (normalized >= low[:, None]) & (normalized <= high[:, None]) & candidates
