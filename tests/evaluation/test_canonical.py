"""Canonical correlations are scikit-learn's, and find what two modalities have in common and nothing else."""

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from avshare_jax.evaluation.canonical import canonical_directions, canonical_scores
from avshare_jax.evaluation.retrieval import retrieval_metrics


def two_views(random, videos, shared=3):
    """Features in which `shared` numbers of each video are hidden among others."""
    rotations = np.random.default_rng(7)
    latent = random.normal(size=(videos, shared))
    return tuple(
        np.hstack([latent + 0.1 * random.normal(size=latent.shape), 3 * random.normal(size=(videos, width))])
        @ rotations.normal(size=(shared + width, shared + width))
        for width in (4, 6)
    )


def test_correlations_are_scikit_learns():
    visual, audio = (x - x.mean(0) for x in two_views(np.random.default_rng(0), 200))
    left, right, correlations = canonical_directions(visual, audio, penalty=0.0)
    projected = CCA(n_components=3, max_iter=5000, tol=1e-10).fit(visual, audio).transform(visual, audio)
    expected = [np.corrcoef(projected[0][:, k], projected[1][:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(correlations[:3], expected, rtol=1e-3)
    found = [np.corrcoef(visual @ left[:, k], audio @ right[:, k])[0, 1] for k in range(7)]
    np.testing.assert_allclose(found, correlations, rtol=1e-6)


def test_what_is_shared_finds_the_other_half():
    random = np.random.default_rng(0)
    train, test = two_views(random, 400), two_views(random, 100)
    found = retrieval_metrics(canonical_scores(train, test, (0.001, 0.1)))
    assert found["recall@10"] > 0.9 and found["median_rank"] <= 2
    assert retrieval_metrics(canonical_scores(train, test, (0.001, 0.1)).T)["recall@10"] > 0.9
    foreign = test[0], two_views(random, 100)[1]
    assert retrieval_metrics(canonical_scores(train, foreign, (0.001, 0.1)))["recall@10"] == pytest.approx(0.1, abs=0.1)


def test_the_penalty_is_chosen_on_training_videos():
    """With fewer videos than features, without a penalty everything correlates."""
    random = np.random.default_rng(0)
    noisy = [
        tuple(np.hstack([x, 5 * random.normal(size=(videos, 60))]) for x in two_views(random, videos))
        for videos in (80, 60)
    ]
    chosen, none, some = (canonical_scores(*noisy, penalties) for penalties in ((1e-9, 1.0), (1e-9,), (1.0,)))
    np.testing.assert_array_equal(chosen, some)
    assert retrieval_metrics(some)["recall@10"] > retrieval_metrics(none)["recall@10"]


def test_a_constant_feature_does_no_harm():
    random = np.random.default_rng(0)
    train, test = (tuple(np.hstack([x, np.full((len(x), 1), 7.0)]) for x in two_views(random, n)) for n in (300, 50))
    assert retrieval_metrics(canonical_scores(train, test, (0.01,)))["recall@10"] > 0.9


def test_features_far_from_zero_are_compared_as_in_float64():
    """Float32 sums over many videos would be off by more than the features differ."""
    random = np.random.default_rng(0)
    train, test = (tuple((1e3 + 1e-2 * x).astype(np.float32) for x in two_views(random, n)) for n in (4000, 50))
    double = [tuple(x.astype(np.float64) for x in pair) for pair in (train, test)]
    found = canonical_scores(train, test, (0.01,))
    np.testing.assert_allclose(found, canonical_scores(*double, (0.01,)), rtol=1e-9)
    assert retrieval_metrics(found)["recall@10"] > 0.9
