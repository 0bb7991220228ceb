"""Wrong partners and the pair loss."""

import jax
import numpy as np
import pytest
import scipy.stats

from avshare_jax.objectives.correct_pair import pair_loss, sample_derangement


def derangements(size, repeats):
    keys = jax.random.split(jax.random.key(size), repeats)
    return np.asarray(jax.vmap(lambda key: sample_derangement(key, size))(keys))


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16])
def test_every_video_gets_the_sound_of_another(size):
    drawn = derangements(size, 200)
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.broadcast_to(np.arange(size), drawn.shape))
    assert (drawn != np.arange(size)).all()


def test_every_other_sound_is_as_likely():
    drawn = derangements(5, 4000)
    for video in range(5):
        counts = np.bincount(drawn[:, video], minlength=5)
        assert scipy.stats.chisquare(np.delete(counts, video)).pvalue > 0.001


def test_loss_is_binary_cross_entropy():
    right, wrong = np.random.default_rng(0).normal(0, 3, (2, 9)).astype(np.float32)
    loss, accuracy = pair_loss(right, wrong)
    sigmoid = 1 / (1 + np.exp(-np.concatenate([right, wrong]).astype(np.float64)))
    expected = -np.mean(np.log(np.concatenate([sigmoid[:9], 1 - sigmoid[9:]])))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == pytest.approx(np.mean(np.concatenate([right > 0, wrong <= 0])))


def test_gradient_raises_right_and_lowers_wrong_logits_without_overflow():
    right, wrong = np.float32([0.0, -1e4, 1e4]), np.float32([0.0, 1e4, -1e4])
    (loss, accuracy), gradients = jax.value_and_grad(pair_loss, (0, 1), has_aux=True)(right, wrong)
    assert loss == pytest.approx((2 * np.log(2) + 2e4) / 6, rel=1e-5)
    assert accuracy == pytest.approx(3 / 6)  # A logit of zero says "wrong".
    np.testing.assert_allclose(gradients[0], np.array([-0.5, -1, 0]) / 6, atol=1e-6)
    np.testing.assert_allclose(gradients[1], np.array([0.5, 1, 0]) / 6, atol=1e-6)
