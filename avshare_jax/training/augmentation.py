"""Augmentation that is cheap on the accelerator: horizontal flip and SpecAugment-style masks, per video."""

import jax
import jax.numpy as jnp

from avshare_jax.data.frontend import LOG_FLOOR


def augment(
    key: jax.Array, batch: dict[str, jax.Array], *, flip: float, frequency_mask: float, time_mask: float
) -> dict[str, jax.Array]:
    """Augments each video of a batch with the same draw for all its clips.

    Args:
      key: random key.
      batch: `frames` (B, S, T, H, W, 3), `log_mel` (B, S, time, mels).
      flip: probability of a horizontal flip.
      frequency_mask: one mask of up to this share of the mel bands is set to silence.
      time_mask: one mask of up to this share of a clip's spectrogram frames is set to silence.

    Returns:
      The batch with `frames` and `log_mel` replaced.
    """
    flip_key, frequency_key, time_key = jax.random.split(key, 3)
    frames, log_mel = batch["frames"], batch["log_mel"]
    batch_size, _, num_times, num_mels = log_mel.shape
    flipped = jax.random.bernoulli(flip_key, flip, (batch_size,))
    frames = jnp.where(flipped[:, None, None, None, None, None], frames[..., ::-1, :], frames)
    hide_mels = random_span(frequency_key, batch_size, num_mels, frequency_mask)
    hide_times = random_span(time_key, batch_size, num_times, time_mask)
    hidden = hide_mels[:, None, None, :] | hide_times[:, None, :, None]
    return {**batch, "frames": frames, "log_mel": jnp.where(hidden, LOG_FLOOR, log_mel)}


def random_span(key: jax.Array, batch_size: int, length: int, share: float) -> jax.Array:
    """Masks (B, length), true on one span of uniform width in [0, share * length], rounded, at a uniform place."""
    width_key, start_key = jax.random.split(key)
    width = jnp.round(jax.random.uniform(width_key, (batch_size, 1)) * share * length)
    start = jnp.floor(jax.random.uniform(start_key, (batch_size, 1)) * (length - width + 1))
    index = jnp.arange(length)
    return (index >= start) & (index < start + width)
