"""The linear probe learns what is linear, chooses on training videos, and gives scikit-learn's scores of classes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier

from avshare_jax.evaluation import linear_probe

OPTIONS = {"standardized_c": (0.1,), "whitened_c": (0.01, 0.1), "max_iterations": 200}


def accuracy(train_features, train_labels, test_features, test_labels, **options):
    """Of features in two blocks, as those of two modalities."""
    blocks = [np.hsplit(x, [x.shape[1] // 2]) for x in (train_features, test_features)]
    return linear_probe.accuracy(
        linear_probe.linear_predictions(blocks[0], train_labels, blocks[1], **options), test_labels
    )


def features_of(labels, classes, random, noise=0.3):
    """One-hot classes, rotated, on scales from 0.01 to 100, with noise."""
    rotation = np.linalg.qr(random.normal(size=(classes, classes)))[0]
    return (np.eye(classes)[labels] @ rotation + noise * random.normal(size=(len(labels), classes))) * np.logspace(
        -2, 2, classes
    )


def test_separable_classes_are_found_whatever_the_scale_of_a_feature():
    random = np.random.default_rng(0)
    train_labels, test_labels = random.integers(0, 8, 400), random.integers(0, 8, 200)
    every = features_of(np.concatenate([train_labels, test_labels]), 8, random, noise=0.1)
    assert accuracy(every[:400], train_labels, every[400:], test_labels, **OPTIONS) > 0.98


def test_shuffled_labels_are_at_chance():
    random = np.random.default_rng(0)
    train_labels, test_labels = random.integers(0, 8, 400), random.integers(0, 8, 1000)
    every = features_of(np.concatenate([train_labels, test_labels]), 8, random)
    found = accuracy(every[:400], random.permutation(train_labels), every[400:], test_labels, **OPTIONS)
    # The classifier's guesses favor whole clusters by accident, so more than a binomial's spread.
    assert abs(found - 1 / 8) < 0.1


def test_a_constant_feature_does_no_harm():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    features = np.stack([labels + 0.01 * random.normal(size=100), np.full(100, 7.0)], axis=1)
    assert accuracy(features[:50], labels[:50], features[50:], labels[50:], **OPTIONS) == 1


def test_scaling_and_penalty_are_those_that_do_best_on_every_fifth_training_video():
    """The last of the features tells the class in all but the held-out videos: only little of it must be learned."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    fifth = linear_probe.held_out(200)
    assert fifth.sum() == 40 and fifth[4] and not fifth[:4].any()
    wrong = np.where(fifth, 1 - labels, labels)
    features = np.stack([labels + random.normal(size=200), 100.0 * wrong], axis=1)
    fitted_to, chosen_on = features[~fifth], features[fifth]
    found = {}
    for c in (1e-5, 1.0):
        scaling = linear_probe.scaler(False).fit(fitted_to)
        classifier = linear_probe.fit_class(scaling.transform(fitted_to), labels[~fifth], c, 100)
        found[c] = linear_probe.accuracy(classifier(scaling.transform(chosen_on)), labels[fifth])
    assert found[1e-5] > found[1.0]
    everything = {"standardized_c": (1.0, 1e-5), "whitened_c": (), "max_iterations": 100}
    only = {**everything, "standardized_c": (1e-5,)}
    test = [random.normal(size=(300, 2))]
    predicted = [linear_probe.linear_predictions([features], labels, test, **options) for options in (everything, only)]
    np.testing.assert_array_equal(*predicted)


def several_labels(random, videos, classes=4, width=6):
    features = random.normal(size=(videos, width))
    labels = (
        features @ np.random.default_rng(9).normal(size=(width, classes)) + random.normal(size=(videos, classes))
    ) > 0.8
    return features, labels.astype(np.uint8)


def test_several_labels_are_regressions_of_each_class_against_the_rest():
    random = np.random.default_rng(0)
    features, labels = several_labels(random, 150)
    test, _ = several_labels(random, 60)
    expected = OneVsRestClassifier(LogisticRegression(C=0.3, tol=1e-8, max_iter=1000)).fit(features, labels)
    found = linear_probe.fit_classes(features, labels, c=0.3, max_iterations=1000)(test)
    np.testing.assert_allclose(found, expected.decision_function(test), rtol=1e-3, atol=1e-3)


def test_several_labels_are_scored_by_mean_average_precision():
    random = np.random.default_rng(0)
    features, labels = several_labels(random, 200)
    test, test_labels = several_labels(random, 100)
    scores = linear_probe.linear_predictions([features], labels, [test], **OPTIONS)
    assert scores.shape == (100, 4)
    found, labeled = linear_probe.mean_average_precision(scores, test_labels), test_labels.any(1)
    assert 0 < labeled.sum() < 100
    assert found == pytest.approx(average_precision_score(test_labels[labeled], scores[labeled], average="macro"))
    assert found > 0.75 > 2 * test_labels.mean()


def layer_normed(labels, random, width=64, clips=4):
    """Tokens after LayerNorm, mean over clips, float32: all channels together are 0 but for rounding."""
    always, of_class = np.random.default_rng(3).normal(size=(2, 8, width))
    tokens = 30 * always[0] + 0.3 * of_class[labels][:, None] + random.normal(size=(len(labels), clips, width))
    tokens = (tokens - tokens.mean(-1, keepdims=True)) / tokens.std(-1, keepdims=True)
    return tokens.astype(np.float32).mean(axis=1)


@pytest.mark.parametrize("videos", [60, 600])  # Fewer than channels, or so many that scikit-learn takes the covariance.
def test_a_direction_without_variance_does_no_harm_to_whitened_features(videos):
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, videos + 400)
    features = layer_normed(labels, random)
    single, double = (
        accuracy(x[:videos], labels[:videos], x[videos:], labels[videos:], **OPTIONS | {"standardized_c": ()})
        for x in (features, features.astype(np.float64))
    )
    assert single == double > (0.95 if videos == 600 else 0.3)
    whitening = linear_probe.scaler(True).fit(features[:videos].astype(np.float64))
    whitened = whitening.transform(features[videos:].astype(np.float64))
    assert whitened.shape[1] == min(videos, 64) - 1
    assert np.abs(whitened).max() < (6 if videos == 600 else 300)


def test_what_float32_can_tell_is_not_taken_for_rounding():
    """The class lies in a direction with a ten-thousandth of the deviation of the others."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    common = random.normal(size=(400, 1))
    features = (common @ np.ones((1, 4)) + 1e-4 * (2 * labels[:, None] - 1) * [1, -1, 1, -1]).astype(np.float32)
    features += 1e-5 * random.normal(size=features.shape).astype(np.float32)
    assert accuracy(features[:200], labels[:200], features[200:], labels[200:], **OPTIONS) == 1


@pytest.mark.parametrize("labels", [np.arange(20) % 3, np.eye(3, dtype=np.uint8)[np.arange(20) % 3]])
def test_features_that_are_all_constant_tell_nothing(labels):
    features = np.full((20, 4), 7.3, np.float32)
    found = linear_probe.linear_predictions([features], labels, [features[:6]], **OPTIONS)
    assert np.isfinite(found).all() and len(np.unique(found, axis=0)) == 1
