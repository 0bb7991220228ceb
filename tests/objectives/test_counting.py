"""Means where not everything counts."""

import jax
import numpy as np
import pytest

from avshare_jax.objectives.counting import mean_of_counted


def test_only_what_counts_is_averaged_and_gets_gradients():
    values, counted = np.float32([[1, 2, 30], [4, 50, 60]]), np.array([[1, 1, 0], [1, 0, 0]], bool)
    mean, gradient = jax.value_and_grad(mean_of_counted)(values, counted)
    assert mean == pytest.approx(7 / 3)
    np.testing.assert_allclose(gradient, counted / 3)


def test_nothing_averages_to_zero():
    mean, gradient = jax.value_and_grad(mean_of_counted)(np.ones(3, np.float32), np.zeros(3, bool))
    assert mean == 0
    np.testing.assert_array_equal(gradient, np.zeros(3))
