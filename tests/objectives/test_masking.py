"""How many and which clips are masked."""

import jax
import numpy as np
import pytest
import scipy.stats

from avshare_jax.objectives.masking import masked_count, positions_to_mask, sample_masked_positions


@pytest.mark.parametrize(
    ("num_clips", "fraction", "expected"),
    [(8, 0.25, 2), (10, 0.15, 2), (21, 0.15, 3), (100, 0.15, 15), (4, 0.0, 1), (4, 0.01, 1), (4, 1.0, 3), (2, 0.9, 1)],
)
def test_count_is_the_fraction_but_neither_none_nor_all(num_clips, fraction, expected):
    assert masked_count(num_clips, fraction) == expected


@pytest.fixture(scope="module")
def positions():
    return np.asarray(sample_masked_positions(jax.random.key(0), 4000, 6, 2))


def test_positions_are_different_clips_in_order(positions):
    assert positions.shape == (4000, 2)
    assert positions.min() == 0
    assert positions.max() == 5
    assert (np.diff(positions, axis=1) > 0).all()


def test_every_pair_of_clips_is_as_likely(positions):
    counts = np.bincount(6 * positions[:, 0] + positions[:, 1], minlength=36)
    counts = counts[counts > 0]
    assert len(counts) == 15
    assert scipy.stats.chisquare(counts).pvalue > 0.001


def test_positions_follow_the_key(positions):
    np.testing.assert_array_equal(sample_masked_positions(jax.random.key(0), 4000, 6, 2), positions)
    assert (np.asarray(sample_masked_positions(jax.random.key(1), 4000, 6, 2)) != positions).any()


def test_mask_is_true_at_the_positions(positions):
    mask = np.asarray(positions_to_mask(positions, 6))
    expected = np.zeros((4000, 6), bool)
    expected[np.arange(4000)[:, None], positions] = True
    np.testing.assert_array_equal(mask, expected)
