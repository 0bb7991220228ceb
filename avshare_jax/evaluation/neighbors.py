"""Nearest neighbors: classes by a vote of the training videos whose frozen features are the most similar.

The vote is that of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (CVPR 2018),
which later work on features without labels took over: cosine similarity, the k nearest, weights
exp(similarity / temperature).
"""

from collections.abc import Sequence

import numpy as np

SMALLEST_NORM = 1e-12


def neighbor_predictions(
    train_features: Sequence[np.ndarray],
    train_labels: np.ndarray,
    test_features: Sequence[np.ndarray],
    *,
    k: int,
    temperature: float,
) -> np.ndarray:
    """Predictions for the test videos by a vote of their nearest training videos.

    Args:
      train_features: (N, D) float, one array or several; of several, each has its own cosine, and their mean counts.
      train_labels: (N,) int, or (N, C) of zeros and ones.
      test_features: (M, D) float, the same.
      k: how many neighbors vote; all, if there are fewer.
      temperature: the lower, the more the very nearest count.

    Returns:
      The labels (M,) with the most votes; or the share of the votes (M, C) that each class has.
    """
    similarity = np.mean([cosines(*pair) for pair in zip(test_features, train_features, strict=True)], axis=0)
    k = min(k, len(train_labels))
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    similar = np.take_along_axis(similarity, nearest, axis=1)
    # What all votes of a video have in common changes nothing, and exp(1 / temperature) may be too large a number.
    votes = np.exp((similar - similar.max(axis=1, keepdims=True)) / temperature)
    if train_labels.ndim > 1:
        return np.einsum("mk,mkc->mc", votes, train_labels[nearest]) / votes.sum(axis=1, keepdims=True)
    classes, codes = np.unique(train_labels, return_inverse=True)
    counted = np.zeros((len(similarity), len(classes)))
    np.add.at(counted, (np.arange(len(similarity))[:, None], codes[nearest]), votes)
    return classes[np.argmax(counted, axis=1)]


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity (M, N) of all rows of (M, D) and (N, D); of a row of zeros, 0."""
    return normalize(left) @ normalize(right).T


def normalize(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) divided by their length."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST_NORM)
