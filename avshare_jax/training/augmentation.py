"""Augmentation that is cheap on the accelerator: horizontal flip and SpecAugment-style masks, per video."""

import jax
import jax.numpy as jnp

from avshare_jax.data.frontend import LOG_FLOOR


def augment(
    key: jax.Array,
    batch: dict[str, jax.Array],
    *,
    flip: float,
    frequency_mask: float,
    time_mask: float,
    modality_dropout: float,
) -> dict[str, jax.Array]:
    """Augments each video of a batch with the same draw for all its clips.

    Args:
      key: random key.
      batch: `frames` (B, S, T, H, W, 3), `log_mel` (B, S, time, mels); or one of them.
      flip: probability of a horizontal flip.
      frequency_mask: one mask of up to this share of the mel bands is set to silence.
      time_mask: one mask of up to this share of a clip's spectrogram frames is set to silence.
      modality_dropout: probability that a video counts as one without image, or as one without sound; even odds.

    Returns:
      The batch with what there is of `frames` and `log_mel` replaced; with modality dropout, also `has_video` and
      `has_audio` (B,) bool.
    """
    flip_key, frequency_key, time_key, dropout_key = jax.random.split(key, 4)
    augmented = dict(batch)
    if "frames" in batch:
        frames = batch["frames"]
        flipped = jax.random.bernoulli(flip_key, flip, (frames.shape[0],))
        augmented["frames"] = jnp.where(flipped[:, None, None, None, None, None], frames[..., ::-1, :], frames)
    if "log_mel" in batch:
        batch_size, _, num_times, num_mels = batch["log_mel"].shape
        hide_mels = random_span(frequency_key, batch_size, num_mels, frequency_mask)
        hide_times = random_span(time_key, batch_size, num_times, time_mask)
        hidden = hide_mels[:, None, None, :] | hide_times[:, None, :, None]
        augmented["log_mel"] = jnp.where(hidden, LOG_FLOOR, batch["log_mel"])
    return drop_modalities(dropout_key, augmented, modality_dropout) if modality_dropout else augmented


def drop_modalities(key: jax.Array, batch: dict[str, jax.Array], rate: float) -> dict[str, jax.Array]:
    """Takes image or sound, with even odds, from a share `rate` of the videos that have both, by flags alone.

    Args:
      key: random key.
      batch: with `has_video` and `has_audio` (B,) bool, or without: all have both.
      rate: probability for a video to lose one.

    Returns:
      The batch with the flags replaced.
    """
    everywhere = jnp.ones(batch["frames"].shape[0], bool)
    has_video, has_audio = (batch.get(flag, everywhere) for flag in ("has_video", "has_audio"))
    draw = jnp.where(has_video & has_audio, jax.random.uniform(key, everywhere.shape), 1.0)
    return {
        **batch,
        "has_video": has_video & (draw >= rate / 2),
        "has_audio": has_audio & ~((draw >= rate / 2) & (draw < rate)),
    }


def random_span(key: jax.Array, batch_size: int, length: int, share: float) -> jax.Array:
    """Masks (B, length), true on one span of uniform width in [0, share * length], rounded, at a uniform place."""
    width_key, start_key = jax.random.split(key)
    width = jnp.round(jax.random.uniform(width_key, (batch_size, 1)) * share * length)
    start = jnp.floor(jax.random.uniform(start_key, (batch_size, 1)) * (length - width + 1))
    index = jnp.arange(length)
    return (index >= start) & (index < start + width)
