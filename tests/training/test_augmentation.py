"""Flips and spectrogram masks: one draw per video, bounded, and nothing else is touched."""

import jax
import numpy as np
import pytest
import scipy.stats

from avshare_jax.training.augmentation import augment, drop_modalities

VIDEOS, CLIPS, TIMES, MELS = 200, 2, 40, 20
SHARES = {"frequency_mask": 0.2, "time_mask": 0.1}


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return {
        "frames": random.integers(0, 256, (VIDEOS, CLIPS, 2, 3, 4, 3), np.uint8),
        "log_mel": random.normal(-5, 1, (VIDEOS, CLIPS, TIMES, MELS)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def draw(batch):
    compiled = jax.jit(lambda key: augment(key, batch, flip=0.5, modality_dropout=0.0, **SHARES))
    return lambda seed: jax.tree.map(np.asarray, compiled(jax.random.key(seed)))


@pytest.fixture(scope="module")
def augmented(draw):
    return draw(0)


@pytest.fixture(scope="module")
def spans(augmented, batch):
    """Which times (B, TIMES) and which mel bands (B, MELS) are hidden in each video; the same in all clips."""
    hidden = augmented["log_mel"] != batch["log_mel"]
    times, mels = hidden.all(axis=3), hidden.all(axis=2)
    np.testing.assert_array_equal(hidden, times[..., None] | mels[:, :, None])
    for span in (times, mels):
        np.testing.assert_array_equal(span, np.broadcast_to(span[:, :1], span.shape))
    return {"time_mask": times[:, 0], "frequency_mask": mels[:, 0]}


def test_hidden_parts_are_silent_and_the_rest_is_untouched(augmented, batch, spans):
    hidden = spans["time_mask"][:, None, :, None] | spans["frequency_mask"][:, None, None]
    expected = np.where(hidden, np.float32(np.log(1e-6)), batch["log_mel"])
    np.testing.assert_allclose(augmented["log_mel"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", SHARES)
def test_spans_are_contiguous_bounded_and_of_all_widths(spans, name):
    span = spans[name]
    widths = span.sum(1)
    assert set(widths) == set(range(round(SHARES[name] * span.shape[1]) + 1))
    edges = np.diff(np.pad(span, ((0, 0), (1, 1))).astype(int), axis=1)
    np.testing.assert_array_equal((edges == 1).sum(1), widths > 0)
    # Spans lie anywhere: the ends of the axis are hidden in some videos.
    assert span.any(0).all()


def test_frames_are_mirrored_left_to_right_or_not_at_all(augmented, batch):
    mirrored = (augmented["frames"] == batch["frames"][:, :, :, :, ::-1]).all((1, 2, 3, 4, 5))
    same = (augmented["frames"] == batch["frames"]).all((1, 2, 3, 4, 5))
    np.testing.assert_array_equal(mirrored, ~same)
    assert augmented["frames"].dtype == np.uint8
    assert scipy.stats.binomtest(int(mirrored.sum()), VIDEOS, 0.5).pvalue > 0.001


def test_draws_follow_the_key(draw, augmented):
    jax.tree.map(np.testing.assert_array_equal, draw(0), augmented)
    assert all((one != other).any() for one, other in zip(draw(1).values(), augmented.values(), strict=True))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_without_masks_and_with_certain_flips_nothing_is_left_to_chance(batch, flip):
    options = {"frequency_mask": 0.0, "time_mask": 0.0, "modality_dropout": 0.0}
    compiled = jax.jit(lambda key: augment(key, batch, flip=flip, **options))
    augmented = compiled(jax.random.key(0))
    np.testing.assert_array_equal(augmented["log_mel"], batch["log_mel"])
    np.testing.assert_array_equal(augmented["frames"], batch["frames"][..., :: -1 if flip else 1, :])


def test_modality_dropout_takes_image_or_sound_from_complete_videos():
    """A third of the videos lack one already; of the others, 30 % lose the image, 30 % the sound, and none both."""
    videos = 6000
    has_video, has_audio = np.arange(videos) % 6 != 0, np.arange(videos) % 6 != 3
    batch = {"frames": np.zeros((videos, 1), np.uint8), "has_video": has_video, "has_audio": has_audio}
    dropped = jax.jit(lambda key: drop_modalities(key, batch, 0.6))(jax.random.key(0))
    after = {name: np.asarray(dropped[name]) for name in ("has_video", "has_audio")}
    complete = has_video & has_audio
    np.testing.assert_array_equal(after["has_video"][~complete], has_video[~complete])
    np.testing.assert_array_equal(after["has_audio"][~complete], has_audio[~complete])
    assert (after["has_video"] | after["has_audio"]).all()
    for flags in after.values():
        assert scipy.stats.binomtest(int((~flags[complete]).sum()), int(complete.sum()), 0.3).pvalue > 0.001


def test_modality_dropout_marks_complete_batches(batch):
    options = {"flip": 0.0, "frequency_mask": 0.0, "time_mask": 0.0, "modality_dropout": 1.0}
    dropped = jax.jit(lambda key: augment(key, batch, **options))(jax.random.key(0))
    np.testing.assert_array_equal(dropped["has_video"], ~np.asarray(dropped["has_audio"]))
