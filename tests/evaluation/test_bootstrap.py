"""Intervals are those of SciPy, hold the truth as often as they say, and count videos as scikit-learn's weights do."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import average_precision_score

from avshare_jax.evaluation import bootstrap


def repeated(values, counts):
    """A resample written out."""
    return np.repeat(values, counts.astype(int), axis=0)


@pytest.fixture
def counts():
    return bootstrap.Bootstrap(31, 50, seed=1).counts


def test_resamples_are_as_large_as_the_sample_and_depend_on_the_seed(counts):
    assert counts.shape == (50, 31) and np.all(counts.sum(axis=1) == 31)
    np.testing.assert_array_equal(counts, bootstrap.Bootstrap(31, 50, seed=1).counts)
    assert np.any(counts != bootstrap.Bootstrap(31, 50, seed=2).counts)


@pytest.mark.parametrize(("statistic", "independent"), [(bootstrap.mean_of, np.mean), (bootstrap.median_of, np.median)])
@pytest.mark.parametrize("size", [31, 30])
def test_means_and_medians_are_those_of_the_resamples(statistic, independent, size):
    values = np.random.default_rng(0).integers(1, 12, size).astype(float)
    counts = bootstrap.Bootstrap(size, 50, seed=1).counts
    expected = [independent(repeated(values, row)) for row in counts]
    np.testing.assert_allclose(statistic(values)(counts), expected)
    assert bootstrap.figure(statistic(values), size) == pytest.approx(independent(values))


@pytest.mark.parametrize("decimals", [8, 1])  # 1: many equal scores
def test_average_precision_is_scikit_learns(counts, decimals):
    random = np.random.default_rng(0)
    hits = random.random((31, 3)) < 0.3
    scores = (hits + random.normal(size=hits.shape)).round(decimals)
    found = bootstrap.mean_average_precision_of(hits, scores)(counts)
    expected = [average_precision_score(repeated(hits, row), repeated(scores, row), average="macro") for row in counts]
    np.testing.assert_allclose(found, expected)


def test_average_precision_of_equal_scores_is_the_share_of_the_class(counts):
    hits = np.arange(31)[:, None] % 3 == 0
    found = bootstrap.mean_average_precision_of(hits, np.zeros((31, 1)))(counts)
    np.testing.assert_allclose(found, counts @ hits[:, 0] / 31)


def test_classes_without_a_video_do_not_count(counts):
    hits = np.zeros((31, 2), bool)
    hits[0, 0] = True
    scores = np.random.default_rng(0).normal(size=hits.shape)
    found = bootstrap.mean_average_precision_of(hits, scores)(counts)
    np.testing.assert_array_equal(np.isnan(found), counts[:, 0] == 0)
    one = bootstrap.figure(bootstrap.mean_average_precision_of(hits, scores), 31)
    assert one == pytest.approx(average_precision_score(hits[:, 0], scores[:, 0]))
    low, high = bootstrap.Bootstrap(31, 50, seed=1).interval(bootstrap.mean_average_precision_of(hits, scores))
    assert 0 < low <= one <= high


@pytest.mark.parametrize(("statistic", "independent"), [(bootstrap.mean_of, np.mean), (bootstrap.median_of, np.median)])
def test_intervals_are_scipys(statistic, independent):
    values = np.random.default_rng(0).exponential(size=200)
    low, high = bootstrap.Bootstrap(200, 10_000, seed=0).interval(statistic(values))
    expected = scipy.stats.bootstrap(
        (values,), independent, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03 * (expected.high - expected.low) + 0.01)


def test_intervals_hold_the_truth_in_95_of_100_samples():
    random, resamples = np.random.default_rng(0), bootstrap.Bootstrap(200, 500, seed=0)
    held = 0
    for _ in range(400):
        low, high = resamples.interval(bootstrap.mean_of((random.random(200) < 0.3).astype(float)))
        held += low <= 0.3 <= high
    assert 0.92 < held / 400 < 0.98  # 95 %, give or take the spread of 400 samples and of percentiles


def test_intervals_of_mean_average_precision_are_about_test_sets_as_large():
    """With few videos of each class, mAP is higher than with many: what is held is its mean over sets of this size."""
    random, resamples = np.random.default_rng(0), bootstrap.Bootstrap(100, 200, seed=0)

    def draw():
        hits = random.random((100, 6)) < 0.08
        return bootstrap.mean_average_precision_of(hits, 1.2 * hits + random.normal(size=hits.shape))

    expected = np.mean([bootstrap.figure(draw(), 100) for _ in range(500)])
    intervals = [resamples.interval(draw()) for _ in range(150)]
    assert 0.87 < np.mean([low <= expected <= high for low, high in intervals]) < 0.99


def test_intervals_are_written_like_values():
    assert bootstrap.format_interval([0.1234, 0.2], "%") == "12.3–20.0"
    assert bootstrap.format_interval([3.0, 20.5], "") == "3–20.5"
    assert bootstrap.format_interval([85.975, 114.0], "") == "86–114"
    assert bootstrap.format_interval(None, "%") == ""
