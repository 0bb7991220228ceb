"""Metrics against scikit-learn's on random scores, and tables by hand."""

import numpy as np
import pytest
import sklearn.metrics

from avshare_jax.evaluation import classification_metrics as metrics
from avshare_jax.settings import UserError

VIDEOS, CLASSES = 200, 12


@pytest.fixture(scope="module")
def scores():
    return np.random.default_rng(0).random((VIDEOS, CLASSES))


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, CLASSES, VIDEOS)


@pytest.fixture(scope="module")
def several():
    return (np.random.default_rng(2).random((VIDEOS, CLASSES)) < 0.2).astype(np.uint8)


@pytest.mark.parametrize("k", [1, 5])
def test_accuracies_are_scikit_learns(scores, labels, k):
    expected = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(CLASSES))
    assert metrics.top_k_accuracy(scores, labels, k) == pytest.approx(expected)
    assert metrics.measure(scores, labels)[f"top{k}"] == pytest.approx(expected)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_scores_that_are_not_numbers_measure_nothing(scores, labels, broken):
    bad = scores.copy()
    bad[[3, 3, 7], [0, 1, 5]] = broken
    with pytest.raises(UserError, match="^2 of 200 videos have scores that are not numbers"):
        metrics.measure(bad, labels)


def official_average_precisions(scores, labels):
    """As in Charades_v1_classify.m: videos without any class have scores of minus infinity."""
    ranked = np.where(labels.any(axis=1, keepdims=True), scores.astype(np.float64), -np.inf)
    found = []
    for truth, score in zip(labels.T, ranked.T, strict=True):
        hits = truth[np.argsort(-score, kind="stable")] == 1
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        found.append(precision[hits].sum() / hits.sum())
    return found


def test_mean_average_precision_is_scikit_learns(scores, several):
    labeled = several.any(1)
    expected = sklearn.metrics.average_precision_score(several[labeled], scores[labeled], average="macro")
    assert metrics.measure(scores, several)["mean_average_precision"] == pytest.approx(expected)


def test_average_precision_is_that_of_the_official_script_of_charades(scores, several):
    assert 0 < (~several.any(1)).sum() < 30
    expected = official_average_precisions(scores, several)
    assert metrics.measure(scores, several)["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-12)
    rows = metrics.class_table(scores, several, [str(number) for number in range(CLASSES)])
    np.testing.assert_allclose([row["average_precision"] for row in rows], expected)


def test_videos_without_any_class_do_not_count():
    scores = np.array([[0.5, 0.3], [0.4, 0.6], [0.9, 0.8], [0.8, 0.9]])
    labels = np.array([[1, 0], [0, 1], [0, 0], [0, 0]])
    found = metrics.measure(scores, labels)
    # Ranked as any other videos, those without a class would leave a third and a third.
    assert found["mean_average_precision"] == np.mean(official_average_precisions(scores, labels)) == 1.0
    assert (found["num_videos"], found["top1"], found["chance"], found["chance_of_precision"]) == (2, 1.0, 0.5, 0.5)
    assert metrics.measure(scores[2:], labels[2:]) == {"num_videos": 0}


def test_confusion_is_scikit_learns(scores, labels):
    expected = sklearn.metrics.confusion_matrix(labels, scores.argmax(1), labels=range(CLASSES))
    np.testing.assert_array_equal(metrics.confusion_matrix(scores, labels), expected)
    rows = metrics.class_table(scores, labels, [str(number) for number in range(CLASSES)])
    np.testing.assert_allclose([row["top1"] for row in rows], np.diag(expected) / expected.sum(1))
    off = expected - np.diag(np.diag(expected))
    for row, wrong in zip(rows, off, strict=True):
        assert wrong[int(row["taken_for"])] == wrong.max() > 0


def test_what_cannot_be_measured_is_none():
    scores, labels = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0]]), np.array([0, 0])
    found = metrics.measure(scores, labels)
    assert (found["top1"], found["top5"], found["mean_average_precision"], found["chance"]) == (1.0, None, None, 1.0)
    assert metrics.class_table(scores, labels, "abc")[2] == {
        "name": "c",
        "num_videos": 0,
        "top1": None,
        "average_precision": None,
        "taken_for": None,
    }
    assert metrics.measure(scores[:0], labels[:0]) == {"num_videos": 0}


def test_equal_scores_do_not_count_as_right():
    assert metrics.top_k_accuracy(np.full((3, 4), 0.25), np.array([0, 1, 2]), 1) == 0


def test_a_video_without_labels_is_never_right():
    scores, labels = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[0, 0], [1, 0]])
    assert metrics.top_k_accuracy(scores, labels, 1) == 0.5
