"""Distances, weights and draws of negatives against NumPy and against exact, enumerated probabilities."""

import dataclasses
import itertools
from functools import partial

import jax
import numpy as np
import pytest
import scipy.spatial
import scipy.stats

from avshare_jax.objectives.negatives import LOG_WEIGHTS, normalize_distances, pairwise_distances, sample_negatives

VIDEOS, CLIPS = 4, 5
TOTAL = VIDEOS * CLIPS
REPEATS = 20_000
POSITIONS = np.array([[1, 4], [0, 3], [2, 4], [0, 1]])
ANCHORS = (np.arange(VIDEOS)[:, None] * CLIPS + POSITIONS).ravel()


@dataclasses.dataclass(frozen=True)
class Scope:
    """Where negatives may come from."""

    groups: int = 1
    absent: tuple[int, ...] = ()

    @property
    def present(self):
        return ~np.isin(np.arange(VIDEOS), self.absent)

    def candidates(self, anchor):
        """(TOTAL,) bool: all clips that may be negatives of this one."""
        clips = np.arange(TOTAL)
        same_group = clips // (TOTAL // self.groups) == anchor // (TOTAL // self.groups)
        return (clips != anchor) & same_group & self.present[clips // CLIPS] & self.present[anchor // CLIPS]


SCOPES = {
    "global": Scope(),
    "groups": Scope(groups=2),
    "global with absent": Scope(absent=(2,)),
    "groups with absent": Scope(groups=2, absent=(0, 3)),
}


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).normal(size=(VIDEOS, CLIPS, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=LOG_WEIGHTS)
def strategy(request):
    return request.param


@pytest.fixture(scope="module", params=SCOPES.values(), ids=SCOPES)
def scope(request):
    return request.param


def reference_distances(tokens, anchor, candidates):
    """Normalized distances (TOTAL,) from one clip, and which candidates lie in the central 95 %; float64."""
    clips = tokens.reshape(TOTAL, -1).astype(np.float64)
    distances = scipy.spatial.distance.cdist(clips[anchor : anchor + 1], clips)[0]
    smallest, largest = distances[candidates].min(), distances[candidates].max()
    normalized = (distances - smallest) / (largest - smallest)
    low, high = np.quantile(normalized[candidates], [0.025, 0.975])
    return normalized, candidates & (normalized >= low) & (normalized <= high)


def reference_weights(tokens, anchor, strategy, candidates):
    if not candidates.any():
        return np.zeros(TOTAL)
    normalized, kept = reference_distances(tokens, anchor, candidates)
    return {
        "similar": np.where(kept, 1 - normalized, 0),
        "dissimilar": np.where(kept, normalized, 0),
        "uniform": 1.0 * candidates,
        "current_sequence": 1.0 * (candidates & (np.arange(TOTAL) // CLIPS == anchor // CLIPS)),
    }[strategy]


@pytest.fixture(scope="module")
def draw():
    """Returns a function that draws more than there are, many times: indices and flags (REPEATS, anchors, TOTAL)."""

    @partial(jax.jit, static_argnums=(2, 3))
    def many(key, tokens, strategy, scope):
        def once(key):
            return sample_negatives(
                key, tokens, POSITIONS, TOTAL, LOG_WEIGHTS[strategy], present=scope.present, groups=scope.groups
            )

        return jax.vmap(once)(jax.random.split(key, REPEATS))

    def draw(tokens, strategy, scope, seed=0):
        drawn = many(jax.random.key(seed), tokens, strategy, scope)
        return [np.asarray(part).reshape(REPEATS, len(ANCHORS), TOTAL) for part in drawn]

    return draw


@pytest.fixture(scope="module")
def drawn(draw, tokens, strategy, scope):
    return draw(tokens, strategy, scope)


def assert_chi_square(counts, probabilities):
    """Counts of outcomes against their probabilities; rare outcomes are pooled, impossible ones must not occur."""
    np.testing.assert_array_equal(counts[probabilities == 0], 0)
    expected = probabilities * counts.sum()
    frequent = expected >= 10
    counts, expected = (np.append(values[frequent], values[~frequent].sum()) for values in (counts, expected))
    possible = expected > 0
    assert scipy.stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-5  # Some 300 such tests.


def test_distances_are_euclidean():
    random = np.random.default_rng(1)
    anchors, clips = random.normal(3, 1, (4, 32)).astype(np.float32), random.normal(3, 1, (9, 32)).astype(np.float32)
    expected = scipy.spatial.distance.cdist(anchors.astype(np.float64), clips.astype(np.float64))
    np.testing.assert_allclose(pairwise_distances(anchors, clips), expected, rtol=1e-4)


@pytest.mark.parametrize("excluded", [1, 20])
def test_distances_are_scaled_and_cut_to_the_central_95_percent(excluded):
    random = np.random.default_rng(2)
    tokens = random.normal(size=(120, 4)).astype(np.float32)
    distances = scipy.spatial.distance.cdist(tokens[:5], tokens)
    candidates = np.ones((5, 120), bool)
    for row in range(5):
        candidates[row, (row + np.arange(excluded)) % 120] = False
    normalized, kept = map(np.asarray, normalize_distances(distances.astype(np.float32), candidates))
    np.testing.assert_array_equal(kept[~candidates], False)
    for row in range(5):
        others = distances[row][candidates[row]]
        scaled = (others - others.min()) / (others.max() - others.min())
        np.testing.assert_allclose(normalized[row][candidates[row]], scaled, atol=1e-5)
        low, high = np.quantile(scaled, [0.025, 0.975])
        np.testing.assert_array_equal(kept[row][candidates[row]], (scaled >= low) & (scaled <= high))
        assert kept[row].sum() == 120 - excluded - 6  # 2.5 % of 119 and of 100 candidates are three at each end.


def test_equal_distances_are_neither_near_nor_far():
    distances, candidates = np.full((2, 6), 7, np.float32), np.ones((2, 6), bool)
    distances[1, 2:] = np.arange(4)
    candidates[1] = np.arange(6) == 3  # A single candidate.
    normalized, kept = normalize_distances(distances, candidates)
    np.testing.assert_array_equal(np.asarray(normalized)[candidates], 0.5)
    np.testing.assert_array_equal(kept, candidates)


def test_weights(tokens, strategy):
    clips = tokens.reshape(TOTAL, -1)
    distances = pairwise_distances(clips[ANCHORS], clips)
    candidates = np.stack([SCOPES["global with absent"].candidates(anchor) for anchor in ANCHORS])
    same_video = ANCHORS[:, None] // CLIPS == np.arange(TOTAL) // CLIPS
    weights = np.exp(np.asarray(LOG_WEIGHTS[strategy](distances, candidates, same_video)))
    expected = np.stack(
        [reference_weights(tokens, anchor, strategy, row) for anchor, row in zip(ANCHORS, candidates, strict=True)]
    )
    np.testing.assert_allclose(weights[candidates], expected[candidates], atol=1e-4)


def test_draws_follow_the_weights_without_replacement(drawn, tokens, strategy, scope):
    indices, valid = drawn
    for column, anchor in enumerate(ANCHORS):
        weights = reference_weights(tokens, anchor, strategy, scope.candidates(anchor))
        possible = np.flatnonzero(weights)
        if len(possible) < 2:
            continue
        assert valid[:, column, :2].all()
        first = np.bincount(indices[:, column, 0], minlength=TOTAL)
        assert_chi_square(first, weights / weights.sum())
        pairs = np.bincount(TOTAL * indices[:, column, 0] + indices[:, column, 1], minlength=TOTAL**2)
        probabilities = np.zeros(TOTAL**2)
        for one, two in itertools.permutations(possible, 2):
            left = weights.sum() - weights[one]
            probabilities[TOTAL * one + two] = weights[one] / weights.sum() * weights[two] / left
        assert_chi_square(pairs, probabilities)


def test_valid_draws_are_all_clips_of_positive_weight_once_and_no_others(drawn, tokens, strategy, scope):
    indices, valid = drawn
    for column, anchor in enumerate(ANCHORS):
        candidates = scope.candidates(anchor)
        possible = np.flatnonzero(reference_weights(tokens, anchor, strategy, candidates))
        assert candidates[possible].all()  # Not itself, not another group's, not an absent video's.
        np.testing.assert_array_equal(
            valid[:, column], np.broadcast_to(np.arange(TOTAL) < len(possible), (REPEATS, TOTAL))
        )
        chosen = np.sort(indices[:, column, : len(possible)], axis=-1)
        np.testing.assert_array_equal(chosen, np.broadcast_to(possible, chosen.shape))
    assert indices.min() >= 0 and indices.max() < TOTAL


def test_masked_clips_of_absent_videos_have_no_negatives(drawn, scope):
    _, valid = drawn
    absent = ~np.repeat(scope.present, POSITIONS.shape[1])
    assert not valid[:, absent].any()
    assert valid[:, ~absent, 0].all()


def test_collapsed_embeddings_still_have_negatives_by_chance(draw, strategy, scope):
    indices, valid = draw(np.full((VIDEOS, CLIPS, 3), 0.3, np.float32), strategy, scope)
    for column, anchor in enumerate(ANCHORS):
        candidates = scope.candidates(anchor)
        if strategy == "current_sequence":
            candidates &= np.arange(TOTAL) // CLIPS == anchor // CLIPS
        np.testing.assert_array_equal(valid[:, column].sum(axis=-1), candidates.sum())
        if candidates.any():
            assert_chi_square(np.bincount(indices[:, column, 0], minlength=TOTAL), candidates / candidates.sum())


def test_groups_are_batches_of_their_own(tokens, strategy):
    """Replacing one group's videos changes nothing in the other, though it moves all distances of the batch."""
    sample = partial(
        sample_negatives,
        jax.random.key(5),
        positions=POSITIONS,
        count=6,
        log_weights=LOG_WEIGHTS[strategy],
        groups=2,
    )
    changed = np.concatenate([tokens[:2], 50 * tokens[:2]])
    for before, after in zip(sample(tokens), sample(changed), strict=True):
        np.testing.assert_array_equal(before[:2], after[:2])


def test_fewer_negatives_are_the_first_of_the_order(tokens):
    few, many = (
        sample_negatives(jax.random.key(3), tokens, POSITIONS, count, LOG_WEIGHTS["similar"])
        for count in (4, TOTAL + 7)
    )
    assert few[0].dtype == np.int32
    for part, of_many in zip(few, many, strict=True):
        assert part.shape == (VIDEOS, 2, 4)
        assert of_many.shape == (VIDEOS, 2, TOTAL + 7)
        np.testing.assert_array_equal(part, of_many[..., :4])


def test_absent_by_default_is_nothing(tokens):
    sample = partial(sample_negatives, jax.random.key(4), tokens, POSITIONS, 6, LOG_WEIGHTS["similar"])
    for by_default, flagged in zip(sample(), sample(present=np.ones(VIDEOS, bool)), strict=True):
        np.testing.assert_array_equal(by_default, flagged)


def test_draws_follow_the_key(tokens):
    draws = [
        np.asarray(sample_negatives(jax.random.key(seed), tokens, POSITIONS, 6, LOG_WEIGHTS["uniform"])[0])
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_no_gradient_flows_through_the_choice(tokens):
    def chosen(tokens):
        indices, _ = sample_negatives(jax.random.key(0), tokens, POSITIONS, 4, LOG_WEIGHTS["similar"])
        return tokens.reshape(TOTAL, -1)[indices].sum()

    indices, _ = sample_negatives(jax.random.key(0), tokens, POSITIONS, 4, LOG_WEIGHTS["similar"])
    times_chosen = np.bincount(np.ravel(indices), minlength=TOTAL).reshape(VIDEOS, CLIPS, 1)
    np.testing.assert_array_equal(jax.grad(chosen)(tokens), np.broadcast_to(times_chosen, tokens.shape))


def test_batches_that_cannot_be_divided_get_a_sentence(tokens):
    with pytest.raises(ValueError, match="batch of 4 videos cannot be divided into 3 equal groups"):
        sample_negatives(jax.random.key(0), tokens, POSITIONS, 4, LOG_WEIGHTS["uniform"], groups=3)


def test_what_all_clips_have_in_common_decides_on_no_draw(tokens):
    shifted = tokens + np.float32(4096)
    tokens = shifted - np.float32(4096)  # Exact: what is left of the tokens next to 4096.
    draw = partial(
        sample_negatives, positions=POSITIONS, count=4, log_weights=LOG_WEIGHTS["similar"], present=np.arange(4) != 2
    )
    for seed in range(50):
        key = jax.random.key(seed)
        np.testing.assert_array_equal(draw(key, shifted)[0], draw(key, tokens)[0])
