"""Linear probe: logistic regression on frozen features, its scaling and penalty chosen on training videos."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize
import scipy.special
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from avshare_jax.evaluation import bootstrap

KEPT_VARIANCE = 1 - 1e-12
"""Whitening leaves out the directions that hold the rest: in float32, the rounding of features has as much."""

Classifier = Callable[[np.ndarray], np.ndarray]
"""Takes features (M, D); returns predicted labels (M,), or scores (M, C) where videos may have several labels."""


def linear_predictions(
    train_features: Sequence[np.ndarray],
    train_labels: np.ndarray,
    test_features: Sequence[np.ndarray],
    *,
    standardized_c: Sequence[float],
    whitened_c: Sequence[float],
    max_iterations: int,
) -> np.ndarray:
    """Predictions for the test videos by a logistic regression fitted to the training videos.

    Features are standardized, or whitened by principal components, and penalized; the combination is the one that does
    best on every fifth training video after fitting to the other four. What a Transformer's tokens tell of the class
    often lies in directions of small variance, which a penalty on merely standardized features hides.

    Args:
      train_features: (N, D) float, one array or several side by side.
      train_labels: (N,) int, at least two different ones; or (N, C) of zeros and ones.
      test_features: (M, D) float, the same.
      standardized_c: values to choose from for scikit-learn's C, the inverse of the L2 penalty, standardized features.
      whitened_c: the same for whitened features.
      max_iterations: Of L-BFGS. Stopping there is a regularizer too, so it is no cause for a warning.

    Returns:
      The predicted labels (M,) int; or the classes' log-odds (M, C) float, each class against the rest.
    """
    # Float32 knows the variance of a direction that the features lack, as that of LayerNorm, to rounding only.
    train, test = (np.concatenate(x, axis=1, dtype=np.float64) for x in (train_features, test_features))
    fit, score = (fit_class, accuracy) if train_labels.ndim == 1 else (fit_classes, mean_average_precision)
    fifth = held_out(len(train))
    # Problems this small take many times longer when several threads share them. Of features that are all constant,
    # there is no variance to divide by.
    with warnings.catch_warnings(), threadpool_limits(1), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = {}
        for whiten, values in ((False, standardized_c), (True, whitened_c)):
            scaling = scaler(whiten)
            fitted_to, chosen_on = scaling.fit_transform(train[~fifth]), scaling.transform(train[fifth])
            for c in values:
                classifier = fit(fitted_to, train_labels[~fifth], c, max_iterations)
                scores[whiten, c] = score(classifier(chosen_on), train_labels[fifth])
        whiten, c = max(scores, key=scores.__getitem__)
        scaling = scaler(whiten)
        return fit(scaling.fit_transform(train), train_labels, c, max_iterations)(scaling.transform(test))


def scaler(whiten: bool) -> BaseEstimator:
    """Standardizes features (float64), or also makes them uncorrelated, without directions that hold no variance."""
    return make_pipeline(StandardScaler(), PCA(KEPT_VARIANCE, whiten=True)) if whiten else StandardScaler()


def held_out(num_videos: int) -> np.ndarray:
    """Marks every fifth training video (N,) bool: the choice of scaling and penalty rests on these."""
    return np.arange(num_videos) % 5 == 4


def labeled_videos(labels: np.ndarray) -> np.ndarray:
    """The videos (M,) bool that count in tests by labels: those with a number, or with any class of (M, C).

    A video without any class is something to learn from, but the official script of Charades gives it scores of minus
    infinity: no class's ranking has it before another video.
    """
    return labels >= 0 if labels.ndim == 1 else labels.any(axis=1)


def fit_class(features: np.ndarray, labels: np.ndarray, c: float, max_iterations: int) -> Classifier:
    """Multinomial logistic regression of one label (N,) for each video."""
    return LogisticRegression(C=c, max_iter=max_iterations).fit(features, labels).predict


def fit_classes(features: np.ndarray, labels: np.ndarray, c: float, max_iterations: int) -> Classifier:
    """Logistic regressions of each class (N, C) against the rest, with scikit-learn's penalty, all in one minimization.

    The sum of what C separate regressions minimize has the same minimum, and matrices of all classes at once take a
    fraction of the time.
    """
    signs = 2.0 * labels - 1
    shape = (features.shape[1] + 1, labels.shape[1])  # the last row is the intercept, which is not penalized

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        margins = signs * (features @ weights[:-1] + weights[-1])
        loss = -c * scipy.special.log_expit(margins).sum() + 0.5 * np.square(weights[:-1]).sum()
        pull = -c * signs * scipy.special.expit(-margins)
        gradient = np.concatenate([features.T @ pull + weights[:-1], pull.sum(axis=0, keepdims=True)])
        return loss, gradient.ravel()

    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations}
    found = scipy.optimize.minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = found.x.reshape(shape)
    return lambda x: x @ weights[:-1] + weights[-1]


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The share of labels (M,) that are predicted."""
    return float(np.mean(predicted == labels))


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Of scores (M, C) and labels (M, C) of zeros and ones, at least one of which is one; see `labeled_videos`."""
    counts = labeled_videos(labels)
    statistic = bootstrap.mean_average_precision_of(labels[counts] > 0, scores[counts])
    return bootstrap.figure(statistic, int(counts.sum()))
