"""Metrics of classification from scores (N, C): accuracies, average precision, a table of classes and a matrix.

Labels are (N,) numbers of classes, or (N, C) of zeros and ones where a video may have several. Videos without any class
do not count, in accuracy and precision alike: the official script of Charades gives them scores of minus infinity, so
that they come after all others in the ranking of every class.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from avshare_jax.settings import UserError

TOP = 5


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float | None:
    """Share of videos whose label is among the k highest scores; None where there are no more classes than k.

    Of several labels, one is enough. Equal scores count against the label.
    """
    if scores.shape[1] <= k:
        return None
    return float(np.mean(label_ranks(scores, labels) < k))


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes (N,) score at least as high as a video's best label, that one left out."""
    several = labels if labels.ndim == 2 else one_hot(labels, scores.shape[1])
    best = np.where(several > 0, scores, -np.inf).max(1, keepdims=True)
    return ((scores >= best) & (several == 0)).sum(1) + scores.shape[1] * np.isneginf(best[:, 0])


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Numbers of classes (N,) as zeros and ones (N, C)."""
    return (labels[:, None] == np.arange(num_classes)).astype(np.uint8)


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """Average precision of each class; None for classes of none of the labeled videos, or of all: they say nothing."""
    several = labels if labels.ndim == 2 else one_hot(labels, scores.shape[1])
    labeled = several.any(1)
    return [
        float(average_precision_score(truth, score)) if 0 < truth.sum() < len(truth) else None
        for truth, score in zip(several[labeled].T, scores[labeled].T, strict=True)
    ]


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that there are; None where there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def measure(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """`num_videos`, `top1`, `top5`, `mean_average_precision`, `classes_with_precision`, and `chance` of top-1.

    They are of the videos that have a class. Chance is the share of the largest class. None stands for what cannot be
    measured.

    Raises:
      UserError: scores are not finite numbers; in comparisons, they would count as right.
    """
    if labels.ndim == 2:
        labeled = labels.any(1)
        scores, labels = scores[labeled], labels[labeled]
    if not len(scores):
        return {"num_videos": 0}
    if broken := int((~np.isfinite(scores)).any(1).sum()):
        raise UserError(
            f"{broken:,} of {len(scores):,} videos have scores that are not numbers, and nothing can be measured: the "
            "training has diverged. Train again with a lower config.optimizer.learning_rate."
        )
    several = labels if labels.ndim == 2 else one_hot(labels, scores.shape[1])
    precisions = average_precisions(scores, labels)
    return {
        "num_videos": len(scores),
        "top1": top_k_accuracy(scores, labels, 1),
        "top5": top_k_accuracy(scores, labels, TOP),
        "mean_average_precision": mean(precisions),
        "classes_with_precision": sum(value is not None for value in precisions),
        "chance": float(several.mean(0).max()),
        "chance_of_precision": mean(
            [share for share, known in zip(several.mean(0), precisions, strict=True) if known is not None]
        ),
    }


def class_table(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class its `name`, `num_videos`, `top1` among them, `average_precision`, and `taken_for`.

    `taken_for` is the class that the network most often gives the highest score when it is wrong; None: it never is.
    """
    several = labels if labels.ndim == 2 else one_hot(labels, scores.shape[1])
    best, precisions = scores.argmax(1), average_precisions(scores, labels)
    rows = []
    for number, name in enumerate(class_names):
        own = several[:, number] > 0
        wrong = best[own][several[own, best[own]] == 0]
        taken_for = class_names[np.bincount(wrong).argmax()] if len(wrong) else None
        rows.append(
            {
                "name": name,
                "num_videos": int(own.sum()),
                "top1": float(np.mean(best[own] == number)) if own.any() else None,
                "average_precision": precisions[number],
                "taken_for": taken_for,
            }
        )
    return rows


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Number of videos (C, C) by label (row) and by the class of the highest score (column); float64.

    A video with several labels counts in the row of each.
    """
    num_classes = scores.shape[1]
    several = labels if labels.ndim == 2 else one_hot(labels, num_classes)
    return several.T.astype(np.float64) @ one_hot(scores.argmax(1), num_classes)
