"""Bootstrap: how far a figure would vary with other test videos, as many and of the same kind.

The test videos are drawn again with replacement, as many as there are and many times, and the figure is computed anew
each time; 95 % of its values lie in the interval (Efron's percentiles). What else varies between repetitions, such as
the training videos and the seed of the run, is not in it.
"""

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes how often each of N videos counts, (R, N) float64, and returns R values of a figure."""


class Bootstrap:
    """The resamples of N videos: each figure of one evaluation is measured on the same ones.

    Attributes:
      counts: (R, N) float64, how often each video is in each resample.
    """

    def __init__(self, num_videos: int, resamples: int, seed: int):
        """Draws the resamples."""
        random = np.random.default_rng(seed)
        drawn = random.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=resamples)
        self.counts = drawn.astype(np.float64)

    def interval(self, statistic: Statistic) -> list[float]:
        """The lower and the upper end of a figure's interval; resamples in which it is not a number do not count."""
        ends = np.nanquantile(statistic(self.counts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return [float(end) for end in ends]


def mean_of(values: np.ndarray) -> Statistic:
    """The mean of one value for each video, (N,): of hits, it is accuracy or recall."""
    return lambda counts: counts @ values / counts.sum(axis=1)


def median_of(values: np.ndarray) -> Statistic:
    """The median of one value for each video, (N,): as `numpy.median` of the resample."""
    order = np.argsort(values)

    def statistic(counts: np.ndarray) -> np.ndarray:
        reached = np.cumsum(counts[:, order], axis=1)
        total = reached[:, -1:]
        # The two values in the middle, which are one where their number is odd.
        middle = [np.argmax(reached > place, axis=1) for place in ((total - 1) // 2, total // 2)]
        return np.mean(values[order][np.stack(middle)], axis=0)

    return statistic


def average_precision_of(hits: np.ndarray, scores: np.ndarray) -> Statistic:
    """Average precision of a class: the mean, over its videos, of the precision among those with at least its score.

    Args:
      hits: (N,) bool, the videos of the class.
      scores: (N,) float, higher where the class is more likely; equal scores share a place.

    Returns:
      The statistic, as scikit-learn's `average_precision_score` with the counts as weights; not a number where no video
      of the class is in the resample.
    """
    order = np.argsort(-scores, kind="stable")
    hits, ends = hits[order], np.append(np.diff(scores[order]) != 0, True)

    def statistic(counts: np.ndarray) -> np.ndarray:
        weights = counts[:, order]
        found = np.cumsum(weights * hits, axis=1)[:, ends]
        seen = np.cumsum(weights, axis=1)[:, ends]
        gained = np.diff(found, axis=1, prepend=0)
        with np.errstate(invalid="ignore"):
            # Where nothing has been seen, nothing is gained.
            return np.sum(gained * found / np.maximum(seen, 1), axis=1) / found[:, -1]

    return statistic


def mean_average_precision_of(hits: np.ndarray, scores: np.ndarray) -> Statistic:
    """Mean over the classes of their average precision; classes without a video in the resample do not count.

    Args:
      hits: (N, C) bool.
      scores: (N, C) float.
    """
    present = [(hits[:, column], scores[:, column]) for column in range(hits.shape[1]) if hits[:, column].any()]

    def statistic(counts: np.ndarray) -> np.ndarray:
        found = np.stack([average_precision_of(*column)(counts) for column in present])
        valid = ~np.isnan(found)
        with np.errstate(invalid="ignore"):
            return np.where(valid, found, 0).sum(axis=0) / valid.sum(axis=0)

    return statistic


def figure(statistic: Statistic, num_videos: int) -> float:
    """The figure of the videos themselves, each counted once."""
    return float(statistic(np.ones((1, num_videos)))[0])


def format_interval(interval: Sequence[float] | None, unit: str) -> str:
    """Writes an interval as short as the value beside it: of shares in percent with one decimal; nothing for None."""
    if interval is None:
        return ""
    low, high = (f"{100 * end:.1f}" if unit == "%" else f"{end:.4g}" for end in interval)
    return f"{low}–{high}"
