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


def reference(right, wrong):
    """Cross-entropies of right and of wrong pairs, in float64."""
    right, wrong = right.astype(np.float64), wrong.astype(np.float64)
    return -np.log(1 / (1 + np.exp(-right))), -np.log(1 - 1 / (1 + np.exp(-wrong)))


def test_loss_is_binary_cross_entropy():
    right, wrong = np.random.default_rng(0).normal(0, 3, (2, 9)).astype(np.float32)
    loss, accuracy = pair_loss(right, wrong)
    assert loss == pytest.approx(np.mean(np.concatenate(reference(right, wrong))), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(np.concatenate([right > 0, wrong <= 0])))
    all_present = np.ones(9, bool)
    assert pair_loss(right, wrong, all_present, all_present) == (loss, accuracy)


def test_pairs_that_lack_a_modality_do_not_count_and_both_sides_weigh_half():
    right, wrong = np.random.default_rng(1).normal(0, 3, (2, 9)).astype(np.float32)
    right_present, wrong_present = np.arange(9) < 5, np.arange(9) % 4 == 0
    (loss, accuracy), gradients = jax.value_and_grad(pair_loss, (0, 1), has_aux=True)(
        right, wrong, right_present, wrong_present
    )
    right_losses, wrong_losses = reference(right[:5], wrong[::4])
    assert loss == pytest.approx((right_losses.mean() + wrong_losses.mean()) / 2, rel=1e-5)
    assert accuracy == pytest.approx((np.mean(right[:5] > 0) + np.mean(wrong[::4] <= 0)) / 2)
    for gradient, present in zip(gradients, (right_present, wrong_present), strict=True):
        np.testing.assert_array_equal(gradient[~present], 0)
        assert (gradient[present] != 0).all()


@pytest.mark.parametrize("num_right", [0, 3])
def test_a_side_without_pairs_adds_nothing(num_right):
    right, wrong = np.float32([2, -1, 3]), np.float32([-5, 1, 1])
    right_present, none = np.arange(3) < num_right, np.zeros(3, bool)
    (loss, accuracy), gradients = jax.value_and_grad(pair_loss, (0, 1), has_aux=True)(right, wrong, right_present, none)
    if num_right:
        assert loss == pytest.approx(reference(right, wrong)[0].mean() / 2, rel=1e-5)
        assert accuracy == pytest.approx(2 / 3)
        assert (gradients[0] < 0).all()
    else:
        assert (loss, accuracy) == (0, 0)
        np.testing.assert_array_equal(gradients[0], np.zeros(3))
    np.testing.assert_array_equal(gradients[1], np.zeros(3))


def test_gradient_raises_right_and_lowers_wrong_logits_without_overflow():
    right, wrong = np.float32([0.0, -1e4, 1e4]), np.float32([0.0, 1e4, -1e4])
    (loss, accuracy), gradients = jax.value_and_grad(pair_loss, (0, 1), has_aux=True)(right, wrong)
    assert loss == pytest.approx((2 * np.log(2) + 2e4) / 6, rel=1e-5)
    assert accuracy == pytest.approx(3 / 6)  # A logit of zero says "wrong".
    np.testing.assert_allclose(gradients[0], np.array([-0.5, -1, 0]) / 6, atol=1e-6)
    np.testing.assert_allclose(gradients[1], np.array([0.5, 1, 0]) / 6, atol=1e-6)
