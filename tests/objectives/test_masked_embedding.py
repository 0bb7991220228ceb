"""Scores, L_NCE, its gradient, both accuracies and their chance levels against loops in float64."""

import jax
import numpy as np
import pytest

from avshare_jax.objectives.masked_embedding import (
    chance,
    chance_of_batch,
    masked_embedding_scores,
    noise_contrastive_loss,
    top1_of_batch,
)

VIDEOS, CLIPS, WIDTH, NEGATIVES = 3, 4, 5, 3
POSITIONS = np.array([[0, 2], [1, 3], [2, 3]])
ALL_VALID = np.ones((VIDEOS, 2, NEGATIVES), bool)
ALL_PRESENT = np.ones(VIDEOS, bool)
SOME_VALID = np.array([[[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]], [[0, 1, 1], [1, 1, 1]]], bool)
MASKS = {
    "everything": (ALL_VALID, ALL_PRESENT),
    "fewer negatives": (SOME_VALID, ALL_PRESENT),
    "absent video": (ALL_VALID, np.array([True, True, False])),
    "both": (SOME_VALID, np.array([True, False, True])),
}


@pytest.fixture(scope="module")
def example():
    """Predictions, targets (B, S, D) and negatives (B, M, K)."""
    random = np.random.default_rng(0)
    predictions, targets = random.normal(size=(2, VIDEOS, CLIPS, WIDTH)).astype(np.float32)
    others = [
        [np.setdiff1d(np.arange(VIDEOS * CLIPS), [video * CLIPS + position]) for position in POSITIONS[video]]
        for video in range(VIDEOS)
    ]
    negatives = np.array([[random.permutation(candidates)[:NEGATIVES] for candidates in row] for row in others])
    return predictions, targets, negatives


def loss(predictions, targets, negatives, valid=ALL_VALID, present=None):
    return noise_contrastive_loss(*masked_embedding_scores(predictions, targets, POSITIONS), negatives, valid, present)


def reference(predictions, targets, negatives, valid, present):
    """-mean log(I(x_t, o_t) / (I(x_t, o_t) + sum I(x_j, o_t))), its gradients, and how often I(x_t, o_t) is largest."""
    predictions, targets = predictions.astype(np.float64), targets.astype(np.float64)
    clips = targets.reshape(-1, WIDTH)
    counted = [(v, m) for v, m in np.ndindex(POSITIONS.shape) if present[v] and valid[v, m].any()]
    losses, best, guesses = [], [], []
    prediction_gradient, clip_gradient = np.zeros_like(predictions), np.zeros_like(clips)
    for video, index in counted:
        position = POSITIONS[video, index]
        own = video * CLIPS + position
        scores = clips @ predictions[video, position]
        chosen = np.array([own, *negatives[video, index][valid[video, index]]])
        share = np.exp(scores[chosen]) / np.exp(scores[chosen]).sum()
        losses.append(-np.log(share[0]))
        best.append(scores[chosen].argmax() == 0)
        guesses.append(1 / len(chosen))
        slope = (share - np.eye(len(chosen))[0]) / len(counted)
        prediction_gradient[video, position] += slope @ clips[chosen]
        clip_gradient[chosen] += slope[:, None] * predictions[video, position]
    gradients = prediction_gradient, clip_gradient.reshape(targets.shape)
    return np.mean(losses), gradients, np.mean(best), np.mean(guesses)


def reference_of_batch(predictions, targets, present):
    """How often I(x_t, o_t) is the largest among all clips of present videos, and the chance of a guess."""
    rivals = np.flatnonzero(np.repeat(present, CLIPS))
    clips = targets.reshape(-1, WIDTH)[rivals].astype(np.float64)
    best = [
        rivals[np.argmax(clips @ predictions[video, position])] == video * CLIPS + position
        for video in np.flatnonzero(present)
        for position in POSITIONS[video]
    ]
    return np.mean(best), 1 / len(rivals)


def test_scores_are_dot_products_with_every_clip(example):
    predictions, targets, _ = example
    scores, own = masked_embedding_scores(predictions, targets, POSITIONS)
    assert scores.shape == (VIDEOS, 2, VIDEOS * CLIPS)
    for video, index in np.ndindex(POSITIONS.shape):
        position = POSITIONS[video, index]
        assert own[video, index] == video * CLIPS + position
        expected = [predictions[video, position].astype(np.float64) @ clip for clip in targets.reshape(-1, WIDTH)]
        np.testing.assert_allclose(scores[video, index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("valid", "present"), MASKS.values(), ids=MASKS)
def test_loss_accuracy_gradients_and_chance(example, valid, present):
    expected_loss, expected_gradients, expected_top1, expected_chance = reference(*example, valid, present)
    (value, top1), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(*example, valid, present)
    assert value == pytest.approx(expected_loss, rel=1e-5)
    assert top1 == pytest.approx(expected_top1)
    assert chance(valid, present) == pytest.approx(expected_chance)
    for actual, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("present", [ALL_PRESENT, np.array([True, False, True]), np.array([False, True, False])])
def test_accuracy_among_the_whole_batch(example, present):
    predictions, targets, _ = example
    # Near enough to their own clips that some are recognized and some are not; absent videos' clips would beat all.
    predictions = 0.5 * predictions + targets
    targets = np.where(present[:, None, None], targets, 100 * targets)
    expected, expected_chance = reference_of_batch(predictions, targets, present)
    scores_and_own = masked_embedding_scores(predictions, targets, POSITIONS)
    assert top1_of_batch(*scores_and_own, present) == pytest.approx(expected)
    assert chance_of_batch(VIDEOS, CLIPS, present) == pytest.approx(expected_chance)
    assert expected > 0


def test_without_flags_every_video_is_present(example):
    assert loss(*example) == loss(*example, ALL_VALID, ALL_PRESENT)
    assert chance(ALL_VALID) == chance(ALL_VALID, ALL_PRESENT) == 1 / (1 + NEGATIVES)
    scores_and_own = masked_embedding_scores(*example[:2], POSITIONS)
    assert top1_of_batch(*scores_and_own) == top1_of_batch(*scores_and_own, ALL_PRESENT)
    assert chance_of_batch(VIDEOS, CLIPS) == chance_of_batch(VIDEOS, CLIPS, ALL_PRESENT)


@pytest.mark.parametrize(
    ("valid", "present"), [(~ALL_VALID, ALL_PRESENT), (ALL_VALID, ~ALL_PRESENT)], ids=["no negatives", "no videos"]
)
def test_nothing_that_counts_costs_nothing(example, valid, present):
    (value, top1), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(*example, valid, present)
    assert (value, top1, chance(valid, present)) == (0, 0, 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    scores_and_own = masked_embedding_scores(*example[:2], POSITIONS)
    if not present.any():
        assert (top1_of_batch(*scores_and_own, present), chance_of_batch(VIDEOS, CLIPS, present)) == (0, 0)


def test_no_preference_costs_the_logarithm_of_the_choices(example):
    _, targets, negatives = example
    value, top1 = loss(np.zeros_like(targets), targets, negatives)
    assert value == pytest.approx(np.log(1 + NEGATIVES), rel=1e-5)
    assert top1 == 0  # A draw is not a win.


def test_perfect_predictions_cost_nothing_however_large(example):
    _, targets, negatives = example
    unit = targets / np.linalg.norm(targets, axis=-1, keepdims=True)
    value, gradients = jax.value_and_grad(lambda *arguments: loss(*arguments)[0], (0, 1))(1e4 * unit, unit, negatives)
    assert value == pytest.approx(0, abs=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    scores_and_own = masked_embedding_scores(unit, unit, POSITIONS)
    assert noise_contrastive_loss(*scores_and_own, negatives, ALL_VALID)[1] == top1_of_batch(*scores_and_own) == 1
    worst, _ = loss(-1e4 * unit, unit, negatives)
    assert np.isfinite(worst)
    assert worst > 1e3
