"""Ranks, recall and class of the best match against plain loops, known extremes and averages over random scores."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from avshare_jax.evaluation import retrieval

RESAMPLING = {"resamples": 1000, "seed": 0}


def test_ranks_are_places_in_the_sorted_row():
    scores = np.random.default_rng(0).normal(size=(30, 30))
    expected = [1 + sorted(row, reverse=True).index(row[place]) for place, row in enumerate(scores)]
    assert retrieval.true_pair_ranks(scores).tolist() == expected


def test_perfect_scores_give_full_recall_and_reversed_ones_none():
    perfect = retrieval.retrieval_metrics(np.eye(20))
    assert perfect == {"recall@1": 1, "recall@5": 1, "recall@10": 1, "median_rank": 1}
    worst = retrieval.retrieval_metrics(-np.eye(20))
    assert worst == {"recall@1": 0, "recall@5": 0, "recall@10": 0, "median_rank": 20}


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_network_that_scores_all_pairs_alike_finds_nothing(value):
    assert retrieval.true_pair_ranks(np.full((12, 12), value)).tolist() == [12] * 12


def test_chance_is_the_average_of_random_scores():
    random = np.random.default_rng(0)
    draws = [retrieval.retrieval_metrics(random.normal(size=(25, 25))) for _ in range(400)]
    for name, expected in retrieval.chance_metrics(25).items():
        assert np.mean([draw[name] for draw in draws]) == pytest.approx(expected, rel=0.05)


def test_chance_of_a_small_gallery_is_no_more_than_one():
    assert retrieval.chance_metrics(4)["recall@10"] == 1


def test_same_class_leaves_the_video_itself_out():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[9, 1, 0, 0], [0, 9, 1, 0], [0, 1, 9, 0], [0, 0, 1, 9]])
    assert retrieval.finds_same_class(scores, labels).tolist() == [True, False, False, True]


def test_same_class_chance_is_the_average_of_random_scores():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 40)
    draws = [retrieval.finds_same_class(random.normal(size=(40, 40)), labels) for _ in range(300)]
    assert np.mean(draws) == pytest.approx(retrieval.same_class_chance(labels), rel=0.05)


def test_pair_scores_are_the_logits_of_every_pair():
    random = np.random.default_rng(0)
    visual, audio = random.normal(size=(2, 7, 4, 3)).astype(np.float32)
    weights = random.normal(size=(3, 3)).astype(np.float32)

    def pair_logits(variables, visual, audio):
        products = jnp.einsum("bsd,de,bse->bs", visual, variables, audio)
        return {"bos": products[:, 0], "step": products[:, 1:]}

    scores = retrieval.pair_scores(pair_logits, weights, visual, audio)
    for row in range(7):
        for column in range(7):
            products = np.sum(visual[row].astype(np.float64) @ weights * audio[column], axis=1)
            assert scores[row, column] == pytest.approx(products[0] + products[1:].mean(), rel=1e-4, abs=1e-4)


def test_directions_are_rows_and_columns():
    scores = np.random.default_rng(0).normal(size=(12, 12))
    scores[:, 3] = 100  # One sound fits every image.
    found = retrieval.compare_networks({"network": scores}, np.full(12, -1), **RESAMPLING)
    assert found["num_videos"] == 12
    assert found["network"]["video_to_audio"]["recall@1"] == pytest.approx(1 / 12)
    assert found["network"]["audio_to_video"] == retrieval.retrieval_metrics(scores.T)
    assert "same_class_at_1" not in found["chance"]


def test_a_gallery_of_one_has_no_other_video_of_the_class():
    found = retrieval.compare_networks({"trained": np.ones((1, 1))}, np.array([3]), **RESAMPLING)
    assert found["chance"] == {"recall@1": 1, "recall@5": 1, "recall@10": 1, "median_rank": 1}
    assert "same_class_at_1" not in found["trained"]["video_to_audio"]


def test_intervals_are_those_of_the_queries_ranks():
    """Queries are drawn again; what they search stays, so that ranks do."""
    scores = np.random.default_rng(0).normal(size=(40, 40)) + np.eye(40)
    found = retrieval.compare_networks({"network": scores}, np.arange(40) % 4, **RESAMPLING)
    for direction, directed in (("video_to_audio", scores), ("audio_to_video", scores.T)):
        ranks = retrieval.true_pair_ranks(directed)
        for metric, values, independent in (
            ("recall@5", ranks <= 5, np.mean),
            ("median_rank", ranks, np.median),
            ("same_class_at_1", retrieval.finds_same_class(directed, np.arange(40) % 4), np.mean),
        ):
            expected = scipy.stats.bootstrap(
                (values,), independent, n_resamples=1000, method="percentile", rng=np.random.default_rng(1)
            ).confidence_interval
            ends = found["intervals"]["network"][direction][metric]
            spread = np.diff(expected)[0]
            np.testing.assert_allclose(ends, expected, atol=0.2 * spread)
            assert found["network"][direction][metric] == independent(values)
