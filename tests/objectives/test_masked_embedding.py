"""Scores, L_NCE, its gradient and both accuracies against loops in float64."""

import jax
import numpy as np
import pytest

from avshare_jax.objectives.masked_embedding import masked_embedding_scores, noise_contrastive_loss, top1_of_batch

VIDEOS, CLIPS, WIDTH = 3, 4, 5
POSITIONS = np.array([[0, 2], [1, 3], [2, 3]])


@pytest.fixture(scope="module")
def example():
    """Predictions, targets (B, S, D) and negatives (B, M, K)."""
    random = np.random.default_rng(0)
    predictions, targets = random.normal(size=(2, VIDEOS, CLIPS, WIDTH)).astype(np.float32)
    others = [
        [np.setdiff1d(np.arange(VIDEOS * CLIPS), [video * CLIPS + position]) for position in POSITIONS[video]]
        for video in range(VIDEOS)
    ]
    negatives = np.array([[random.permutation(candidates)[:3] for candidates in row] for row in others])
    return predictions, targets, negatives


def loss(predictions, targets, negatives):
    return noise_contrastive_loss(*masked_embedding_scores(predictions, targets, POSITIONS), negatives)


def reference(predictions, targets, negatives):
    """-mean log(I(x_t, o_t) / (I(x_t, o_t) + sum I(x_j, o_t))), its gradients, and how often I(x_t, o_t) is largest."""
    predictions, targets = predictions.astype(np.float64), targets.astype(np.float64)
    clips = targets.reshape(-1, WIDTH)
    losses, best, best_of_all = [], [], []
    prediction_gradient, clip_gradient = np.zeros_like(predictions), np.zeros_like(clips)
    for video, row in enumerate(POSITIONS):
        for index, position in enumerate(row):
            own = video * CLIPS + position
            scores = clips @ predictions[video, position]
            chosen = np.array([own, *negatives[video, index]])
            share = np.exp(scores[chosen]) / np.exp(scores[chosen]).sum()
            losses.append(-np.log(share[0]))
            best.append(scores[own] > scores[negatives[video, index]].max())
            best_of_all.append(scores.argmax() == own)
            slope = (share - np.eye(len(chosen))[0]) / POSITIONS.size
            prediction_gradient[video, position] += slope @ clips[chosen]
            clip_gradient[chosen] += slope[:, None] * predictions[video, position]
    gradients = prediction_gradient, clip_gradient.reshape(targets.shape)
    return np.mean(losses), gradients, np.mean(best), np.mean(best_of_all)


def test_scores_are_dot_products_with_every_clip(example):
    predictions, targets, _ = example
    scores, own = masked_embedding_scores(predictions, targets, POSITIONS)
    assert scores.shape == (VIDEOS, 2, VIDEOS * CLIPS)
    for video, index in np.ndindex(POSITIONS.shape):
        position = POSITIONS[video, index]
        assert own[video, index] == video * CLIPS + position
        expected = [predictions[video, position].astype(np.float64) @ clip for clip in targets.reshape(-1, WIDTH)]
        np.testing.assert_allclose(scores[video, index], expected, rtol=1e-4, atol=1e-5)


def test_loss_accuracy_and_gradients(example):
    expected_loss, expected_gradients, expected_top1, expected_top1_of_batch = reference(*example)
    (value, top1), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(*example)
    assert value == pytest.approx(expected_loss, rel=1e-5)
    assert top1 == pytest.approx(expected_top1)
    for actual, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    scores_and_own = masked_embedding_scores(*example[:2], POSITIONS)
    assert top1_of_batch(*scores_and_own) == pytest.approx(expected_top1_of_batch)


def test_no_preference_costs_the_logarithm_of_the_choices(example):
    _, targets, negatives = example
    value, top1 = loss(np.zeros_like(targets), targets, negatives)
    assert value == pytest.approx(np.log(1 + negatives.shape[-1]), rel=1e-5)
    assert top1 == 0  # A draw is not a win.


def test_perfect_predictions_cost_nothing_however_large(example):
    _, targets, negatives = example
    unit = targets / np.linalg.norm(targets, axis=-1, keepdims=True)
    value, gradients = jax.value_and_grad(lambda *arguments: loss(*arguments)[0], (0, 1))(1e4 * unit, unit, negatives)
    assert value == pytest.approx(0, abs=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    scores_and_own = masked_embedding_scores(unit, unit, POSITIONS)
    assert noise_contrastive_loss(*scores_and_own, negatives)[1] == top1_of_batch(*scores_and_own) == 1
    worst, _ = loss(-1e4 * unit, unit, negatives)
    assert np.isfinite(worst)
    assert worst > 1e3
