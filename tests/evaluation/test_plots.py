"""What the figures compute before they draw."""

import numpy as np

from avshare_jax.evaluation.plots import short_count, smooth


def test_smoothing_is_the_mean_of_the_neighbors_there_are():
    values = np.random.default_rng(0).normal(size=9)
    expected = [values[max(0, i - 2) : i + 3].mean() for i in range(9)]
    np.testing.assert_allclose(smooth(values, 2), expected)


def test_smoothing_fewer_values_than_the_window():
    np.testing.assert_allclose(smooth(np.array([1.0, 3.0]), 1), [2, 2])


def test_counts_are_written_shortly():
    assert [short_count(value) for value in (12, 250_000, 1_500_000)] == ["12", "250 k", "1.5 M"]
