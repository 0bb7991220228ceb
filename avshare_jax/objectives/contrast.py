"""Contrast between clips (InfoNCE), beside the paper's objectives: across modalities, or within one.

Shapes: B videos, S clips of each, P numbers of each clip's projection.
"""

import jax
import jax.numpy as jnp

from avshare_jax.objectives.counting import mean_of_counted

LARGEST_SCALE = 100.0
"""Cosines are multiplied by no more than this, the inverse of the lowest temperature (Radford et al. 2021)."""


def contrast(
    first: jax.Array,
    second: jax.Array,
    log_scale: jax.Array,
    *,
    present: jax.Array | None = None,
    same_video_weight: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Symmetric InfoNCE: each clip of one view has to find its own clip of the other view, and the other way round.

    Negatives are all clips of other videos. Other clips of the same video are negatives only as far as
    `same_video_weight` says: they are told apart by what happens when (synchronization), not by what is in the video.

    Args:
      first: (B, S, P) float32 projections, of any length: cosines are compared.
      second: the same clips in another view: the other modality, or `next_clips` of the same.
      log_scale: () float32, the logarithm of what cosines are multiplied by; learned.
      present: (B,) bool, false for videos that lack one of the views: they count nowhere. All are present by default.
      same_video_weight: what another clip of the same video counts as in the denominator, in clips; 0: it does not.

    Returns:
      The loss in nats, and the share of clips whose own clip is the most similar of all that count; scalars, 0 where no
      clip has a negative.
    """
    batch_size, num_clips, _ = first.shape
    present = jnp.ones(batch_size, bool) if present is None else present
    scale = jnp.minimum(jnp.exp(log_scale), LARGEST_SCALE)
    first, second = (unit(x.astype(jnp.float32)).reshape(-1, x.shape[-1]) for x in (first, second))
    # Accelerators round float32 factors to bfloat16 or TF32 unless told otherwise; scores go into an exponential.
    scores = scale * jnp.matmul(first, second.T, precision="highest")
    clips = jnp.arange(batch_size * num_clips)
    own, video = clips[:, None] == clips, clips // num_clips
    same_video = (video[:, None] == video) & ~own
    # A weight of 0 has the logarithm -inf, which takes a clip out of the denominator.
    weights = jnp.where(same_video, jnp.log(jnp.float32(same_video_weight)), 0.0)
    weights = jnp.where(present[video], weights, -jnp.inf)
    counted = present[video] & jnp.any(~own & (weights > -jnp.inf), axis=1)
    results = [_find_own(rows, weights, own, counted) for rows in (scores, scores.T)]
    return tuple(sum(values) / 2 for values in zip(*results, strict=True))


def _find_own(scores: jax.Array, weights: jax.Array, own: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss and top-1 of the rows that count, from scores, logarithms of weights and the mask of pairs (N, N)."""
    positive = jnp.sum(jnp.where(own, scores, 0.0), axis=1)  # jnp.diagonal would gather what devices share.
    total = jax.nn.logsumexp(scores + jnp.where(own, 0.0, weights), axis=1)
    rivals = jnp.max(jnp.where(own | (weights == -jnp.inf), -jnp.inf, scores), axis=1)
    best = (positive > rivals).astype(scores.dtype)
    return mean_of_counted(total - positive, counted), mean_of_counted(best, counted)


def next_clips(projections: jax.Array) -> jax.Array:
    """Each clip's next one of the same video (B, S, P), the first for the last: the other view within a modality."""
    return jnp.roll(projections, -1, axis=1)


def video_means(projections: jax.Array) -> jax.Array:
    """One projection a video, (B, 1, P): the mean of its clips' directions; contrast is then between videos."""
    return jnp.mean(unit(projections), axis=1, keepdims=True)


def unit(vectors: jax.Array) -> jax.Array:
    """Vectors (..., P) of length 1; a vector of zeros stays one."""
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1.0))
