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
    found = linear_probe.mean_average_precision(scores, test_labels)
    assert found == pytest.approx(average_precision_score(test_labels, scores, average="macro"))
    assert found > 0.75 > 2 * test_labels.mean()
