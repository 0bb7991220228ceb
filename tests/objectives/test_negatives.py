"""Distances, weights and draws of negatives against NumPy and against exact inclusion probabilities."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest
import scipy.spatial
import scipy.stats

from avshare_jax.objectives.negatives import LOG_WEIGHTS, normalize_distances, pairwise_distances, sample_negatives

VIDEOS, CLIPS = 2, 6
TOTAL = VIDEOS * CLIPS
REPEATS = 5000
POSITIONS = np.array([[1, 4], [0, 5]])
ANCHORS = np.array([1, 4, 6, 11])


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).normal(size=(VIDEOS, CLIPS, 3)).astype(np.float32)


def reference_distances(tokens, anchor):
    """Normalized distances (TOTAL,) from one anchor, and which candidates lie in the central 95 %; float64."""
    clips = tokens.reshape(TOTAL, -1).astype(np.float64)
    distances = scipy.spatial.distance.cdist(clips[anchor : anchor + 1], clips)[0]
    others = np.arange(TOTAL) != anchor
    smallest, largest = distances[others].min(), distances[others].max()
    normalized = (distances - smallest) / (largest - smallest)
    low, high = np.quantile(normalized[others], [0.025, 0.975])
    return normalized, others & (normalized >= low) & (normalized <= high)


def reference_weights(tokens, anchor, strategy):
    normalized, kept = reference_distances(tokens, anchor)
    others = np.arange(TOTAL) != anchor
    return {
        "similar": np.where(kept, 1 - normalized, 0),
        "dissimilar": np.where(kept, normalized, 0),
        "uniform": 1.0 * others,
        "current_sequence": 1.0 * (others & (np.arange(TOTAL) // CLIPS == anchor // CLIPS)),
    }[strategy]


def inclusion_probabilities(weights, count):
    """Probability of each candidate to be among `count` drawn one after the other, by adding up all sequences."""
    included = np.zeros(len(weights))
    for sequence in itertools.permutations(np.flatnonzero(weights), count):
        left = weights.sum() - np.concatenate([[0], np.cumsum(weights[list(sequence[:-1])])])
        included[list(sequence)] += np.prod(weights[list(sequence)] / left)
    return included


@pytest.fixture(scope="module", params=LOG_WEIGHTS)
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def draw(strategy, quick_jit):
    """Returns a function that draws all candidates in order, many times: (REPEATS, anchors, TOTAL - 1)."""

    @quick_jit
    def draw(key, tokens):
        sample = partial(
            sample_negatives, tokens=tokens, positions=POSITIONS, count=TOTAL - 1, log_weights=LOG_WEIGHTS[strategy]
        )
        return jax.vmap(sample)(jax.random.split(key, REPEATS)).reshape(REPEATS, len(ANCHORS), TOTAL - 1)

    return lambda tokens, seed=0: np.asarray(draw(jax.random.key(seed), tokens))


@pytest.fixture(scope="module")
def drawn(draw, tokens):
    return draw(tokens)


def test_distances_are_euclidean():
    random = np.random.default_rng(1)
    anchors, clips = random.normal(3, 1, (4, 32)).astype(np.float32), random.normal(3, 1, (9, 32)).astype(np.float32)
    expected = scipy.spatial.distance.cdist(anchors.astype(np.float64), clips.astype(np.float64))
    np.testing.assert_allclose(pairwise_distances(anchors, clips), expected, rtol=1e-4)


def test_distances_are_scaled_and_cut_to_the_central_95_percent():
    random = np.random.default_rng(2)
    tokens = random.normal(size=(TOTAL * 10, 4)).astype(np.float32)
    distances = scipy.spatial.distance.cdist(tokens[:5], tokens)
    itself = np.arange(5)[:, None] == np.arange(len(tokens))
    normalized, kept = map(np.asarray, normalize_distances(distances.astype(np.float32), itself))
    for row in range(5):
        others = np.delete(distances[row], row)
        scaled = (others - others.min()) / (others.max() - others.min())
        np.testing.assert_allclose(np.delete(normalized[row], row), scaled, atol=1e-5)
        low, high = np.quantile(scaled, [0.025, 0.975])
        np.testing.assert_array_equal(np.delete(kept[row], row), (scaled >= low) & (scaled <= high))
        # 2.5 % of 119 candidates are three at each end.
        assert kept[row].sum() == 119 - 6
        assert not kept[row, row]


def test_weights(tokens, strategy):
    clips = tokens.reshape(TOTAL, -1)
    distances = pairwise_distances(clips[ANCHORS], clips)
    itself = ANCHORS[:, None] == np.arange(TOTAL)
    same_video = ANCHORS[:, None] // CLIPS == np.arange(TOTAL) // CLIPS
    weights = np.exp(np.asarray(LOG_WEIGHTS[strategy](distances, itself, same_video)))
    expected = np.stack([reference_weights(tokens, anchor, strategy) for anchor in ANCHORS])
    np.testing.assert_allclose(weights[~itself], expected[~itself], atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_draws_are_sequential_without_replacement(drawn, tokens, strategy, count):
    for column, anchor in enumerate(ANCHORS):
        frequency = np.bincount(drawn[:, column, :count].ravel(), minlength=TOTAL) / REPEATS
        expected = inclusion_probabilities(reference_weights(tokens, anchor, strategy), count)
        np.testing.assert_array_equal(frequency[expected == 0], 0)
        assert (np.abs(frequency - expected) < 5 * np.sqrt(expected * (1 - expected) / REPEATS) + 1e-3).all()


def test_negatives_are_all_others_and_never_the_masked_clip(drawn):
    for column, anchor in enumerate(ANCHORS):
        others = np.setdiff1d(np.arange(TOTAL), anchor)
        np.testing.assert_array_equal(np.sort(drawn[:, column], axis=-1), np.broadcast_to(others, (REPEATS, TOTAL - 1)))


def test_what_has_no_weight_is_taken_only_when_the_rest_is_used_up(drawn, tokens, strategy):
    for column, anchor in enumerate(ANCHORS):
        expected = np.flatnonzero(reference_weights(tokens, anchor, strategy))
        first = np.sort(drawn[:, column, : len(expected)], axis=-1)
        np.testing.assert_array_equal(first, np.broadcast_to(expected, first.shape))


def test_collapsed_embeddings_still_have_negatives_by_chance(draw, strategy):
    drawn = draw(np.ones((VIDEOS, CLIPS, 3), np.float32))
    for column, anchor in enumerate(ANCHORS):
        counts = np.bincount(drawn[:, column, 0], minlength=TOTAL)
        candidates = np.arange(TOTAL) != anchor
        if strategy == "current_sequence":
            candidates &= np.arange(TOTAL) // CLIPS == anchor // CLIPS
        assert counts[candidates].sum() == REPEATS
        assert scipy.stats.chisquare(counts[candidates]).pvalue > 1e-4


def test_fewer_negatives_are_the_first_of_the_order(tokens):
    few, all_others = (
        np.asarray(sample_negatives(jax.random.key(3), tokens, POSITIONS, count, LOG_WEIGHTS["similar"]))
        for count in (4, TOTAL - 1)
    )
    assert few.shape == (VIDEOS, 2, 4)
    np.testing.assert_array_equal(few, all_others[..., :4])


def test_draws_follow_the_key(draw, drawn, tokens):
    np.testing.assert_array_equal(draw(tokens), drawn)
    assert (draw(tokens, seed=1) != drawn).any()
