"""Retrieval across modalities by frozen features alone: canonical correlations, for networks without pretraining heads.

Nothing makes the axes of visual and audio features alike. Canonical correlation analysis (Hotelling, 1936) finds, on
training videos, the directions of both that vary together; test videos are compared along these.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from avshare_jax.evaluation.linear_probe import held_out
from avshare_jax.evaluation.neighbors import cosines
from avshare_jax.evaluation.retrieval import true_pair_ranks

SMALLEST_VARIANCE = 1e-8
"""Of a direction, so that those that features lack are not blown up where there is no penalty."""

Pair = tuple[np.ndarray, np.ndarray]


def canonical_scores(train: Pair, test: Pair, penalties: Sequence[float]) -> np.ndarray:
    """Scores every image track of the test videos against every sound track.

    Args:
      train: visual features (N, Dv) and audio features (N, Da) of the training videos.
      test: the same of the test videos, (G, Dv) and (G, Da).
      penalties: to choose from, of `canonical_directions`: the one by which every fifth training video finds its own
        sound best (mean of 1 / rank) after fitting to the other four.

    Returns:
      (G, G) float; row = image track, column = sound track.
    """
    # Sums of float32 over many videos would leave standardized features off their mean.
    train, test = (tuple(x.astype(np.float64) for x in pair) for pair in (train, test))
    fifth = held_out(len(train[0]))
    fitted_to, chosen_on = tuple(x[~fifth] for x in train), tuple(x[fifth] for x in train)

    def scores(fitted: Pair, compared: Pair, penalty: float) -> np.ndarray:
        scalers = [StandardScaler().fit(x) for x in fitted]
        standardized = [
            [scaler.transform(x) for scaler, x in zip(scalers, pair, strict=True)] for pair in (fitted, compared)
        ]
        directions = canonical_directions(*standardized[0], penalty)[:2]
        return cosines(*(x @ y for x, y in zip(standardized[1], directions, strict=True)))

    with threadpool_limits(1):
        found = {c: np.mean(1 / true_pair_ranks(scores(fitted_to, chosen_on, c))) for c in penalties}
        return scores(train, test, max(found, key=found.get))


def canonical_directions(visual: np.ndarray, audio: np.ndarray, penalty: float) -> tuple[np.ndarray, ...]:
    """Directions of two sets of features that vary together.

    Args:
      visual: (N, Dv) float64, centered.
      audio: (N, Da) float64, centered.
      penalty: added to the diagonals of both covariances, as a multiple of their mean.

    Returns:
      (Dv, K) and (Da, K), K = min(Dv, Da), each direction times its correlation, so that those along which the two say
      little of each other count little; and the correlations (K,), the largest first.
    """
    whiteners = [whitener(x, penalty) for x in (visual, audio)]
    cross = whiteners[0] @ (visual.T @ audio / len(visual)) @ whiteners[1]
    left, correlations, right = np.linalg.svd(cross, full_matrices=False)
    return whiteners[0] @ left * correlations, whiteners[1] @ right.T * correlations, correlations


def whitener(features: np.ndarray, penalty: float) -> np.ndarray:
    """The inverse square root of the covariance (D, D) of centered features (N, D), with a penalty on its diagonal."""
    covariance = features.T @ features / len(features)
    values, vectors = np.linalg.eigh(
        covariance + penalty * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    return vectors / np.sqrt(np.maximum(values, SMALLEST_VARIANCE)) @ vectors.T
