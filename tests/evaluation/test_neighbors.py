"""The vote of the nearest neighbors against scikit-learn's, and what it does at the edges."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from avshare_jax.evaluation.neighbors import cosines, neighbor_predictions, vote


def make_videos(random, videos, classes=4, width=6, noise=0.6):
    labels = random.integers(0, classes, videos)
    return np.eye(classes, width)[labels] + noise * random.normal(size=(videos, width)) + 0.5, labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (7, 0.5), (60, 0.07)])
def test_the_vote_is_scikit_learns_with_these_weights(k, temperature):
    random = np.random.default_rng(0)
    (train, labels), (test, _) = make_videos(random, 60), make_videos(random, 40)
    expected = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature))
    expected.fit(train, labels)
    options = {"k": (k,), "temperature": temperature}
    np.testing.assert_array_equal(neighbor_predictions([train], labels, [test], **options), expected.predict(test))
    several = np.eye(4, dtype=np.uint8)[labels]
    shares = neighbor_predictions([train], several, [test], **options)
    np.testing.assert_allclose(shares, expected.predict_proba(test), atol=1e-9)


def test_each_modality_has_its_own_cosine():
    """A modality whose features are a thousand times larger has no more to say."""
    random = np.random.default_rng(0)
    (train, labels), (test, expected) = make_videos(random, 300), make_videos(random, 200)
    noise = 1000 * random.normal(size=(500, 6))
    found = neighbor_predictions([train, noise[:300]], labels, [test, noise[300:]], k=(20,), temperature=0.07)
    assert np.mean(found == expected) > 0.6
    together = [np.hstack([train, noise[:300]])], labels, [np.hstack([test, noise[300:]])]
    assert np.mean(neighbor_predictions(*together, k=(20,), temperature=0.07) == expected) < 0.4


def test_more_neighbors_than_videos_and_labels_with_gaps():
    found = vote(np.eye(3)[[2, 0]], np.array([7, 2, 9]), k=20, temperature=0.01)
    assert found.tolist() == [9, 7]


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_k_is_the_one_that_does_best_among_training_videos(noise):
    """Classes that mix need many votes, classes of few videos have few."""
    random = np.random.default_rng(0)
    classes = 40 if noise == 0.3 else 2
    (train, labels), (test, _) = (make_videos(random, videos, classes, 40, noise) for videos in (100, 50))
    chosen, few, many = (
        neighbor_predictions([train], labels, [test], k=k, temperature=0.5) for k in ((1, 60), (1,), (60,))
    )
    np.testing.assert_array_equal(chosen, few if noise == 0.3 else many)
    assert np.any(few != many)


def test_a_row_of_zeros_is_like_nothing():
    assert cosines(np.zeros((1, 2)), np.eye(2)).tolist() == [[0, 0]]


def test_what_all_videos_have_in_common_does_not_hide_how_they_differ():
    """Cosines are all within 1e-7 of 1, which is as far as float32 can tell them apart."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300)
    common, of_class = random.normal(size=64), random.normal(size=(5, 64))
    features = (common + 1e-4 * (of_class[labels] + 0.3 * random.normal(size=(300, 64)))).astype(np.float32)
    found = neighbor_predictions([features[:200]], labels[:200], [features[200:]], k=(1,), temperature=0.07)
    assert np.mean(found == labels[200:]) == 1
