"""Nearest neighbors: classes by a vote of the training videos whose frozen features are the most similar.

The vote is that of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (CVPR 2018),
which later work on features without labels took over: cosine similarity, the k nearest, weights
exp(similarity / temperature).
"""

from collections.abc import Sequence

import numpy as np

from avshare_jax.evaluation.linear_probe import accuracy, held_out, mean_average_precision

SMALLEST_NORM = 1e-12


def neighbor_predictions(
    train_features: Sequence[np.ndarray],
    train_labels: np.ndarray,
    test_features: Sequence[np.ndarray],
    *,
    k: Sequence[int],
    temperature: float,
) -> np.ndarray:
    """Predictions for the test videos by a vote of their nearest training videos.

    Args:
      train_features: (N, D) float, one array or several; of several, each has its own cosine, and their mean counts.
      train_labels: (N,) int, or (N, C) of zeros and ones.
      test_features: (M, D) float, the same.
      k: numbers of neighbors to choose from: the one that does best on every fifth training video by the vote of the
        other four. How many are best depends on the number of videos of each class.
      temperature: the lower, the more the very nearest count.

    Returns:
      The labels (M,) with the most votes; or the share of the votes (M, C) that each class has.
    """
    score = accuracy if train_labels.ndim == 1 else mean_average_precision
    fifth = held_out(len(train_labels))
    among_training = similarities([x[fifth] for x in train_features], [x[~fifth] for x in train_features])
    scores = {
        number: score(vote(among_training, train_labels[~fifth], number, temperature), train_labels[fifth])
        for number in k
    }
    return vote(similarities(test_features, train_features), train_labels, max(scores, key=scores.get), temperature)


def vote(similarity: np.ndarray, train_labels: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """What the k most similar training videos (all, if there are fewer) vote for.

    Args:
      similarity: (M, N) float, to the training videos.
      train_labels: (N,) int, or (N, C) of zeros and ones.
      k: how many vote.
      temperature: of their weights.

    Returns:
      As `neighbor_predictions`.
    """
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


def similarities(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the arrays of their rows' cosine similarity, (M, N)."""
    return np.mean([cosines(*pair) for pair in zip(left, right, strict=True)], axis=0)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity (M, N) of all rows of (M, D) and (N, D); of a row of zeros, 0."""
    return normalize(left) @ normalize(right).T


def normalize(rows: np.ndarray) -> np.ndarray:
    """Rows (N, D) divided by their length, float64: float32 cannot tell cosines of 1 - 1e-8 and 1 apart."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST_NORM)
