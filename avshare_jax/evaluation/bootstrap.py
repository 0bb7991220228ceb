"""Bootstrap: how far a figure would vary with other test videos, as many and of the same kind.

The test videos are drawn again with replacement, as many as there are and many times, and the figure is computed anew
each time; 95 % of its values lie in the interval (Efron's percentiles). What else varies between repetitions, such as
the training videos and the seed of the run, is not in it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array

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


def mean_average_precision_of(hits: np.ndarray, scores: np.ndarray) -> Statistic:
    """Mean over the classes of their average precision; classes without a video in the resample do not count.

    Average precision is the mean, over the videos of a class, of the precision among those with at least its score.

    Args:
      hits: (N, C) bool, the videos of the classes.
      scores: (N, C) float, higher where the class is more likely; equal scores share a place.

    Returns:
      The statistic, as scikit-learn's `average_precision_score` with the counts as weights; not a number where no video
      of any class is in the resample.
    """
    sums = [steps(hits[:, column], scores[:, column]) for column in range(hits.shape[1]) if hits[:, column].any()]

    def statistic(counts: np.ndarray) -> np.ndarray:
        # Whole numbers: float32 holds them all.
        weights = np.ascontiguousarray(counts.T, np.float32)
        total, classes = np.zeros(len(counts)), np.zeros(len(counts), int)
        for of_class, of_all in sums:
            gained = of_class @ weights
            found, seen = np.cumsum(gained, axis=0), np.cumsum(of_all @ weights, axis=0)
            # Where nothing has been seen, nothing is gained.
            precision = np.divide(found, np.maximum(seen, 1), dtype=np.float64)
            total += np.einsum("kr,kr->r", gained, precision) / np.maximum(found[-1], 1)
            classes += found[-1] > 0
        with np.errstate(invalid="ignore"):
            return total / classes

    return statistic


def steps(hits: np.ndarray, scores: np.ndarray) -> tuple[csr_array, csr_array]:
    """The K steps, from high to low scores, at which a class gains videos; all else changes its precision only there.

    Args:
      hits: (N,) bool, at least one of them True.
      scores: (N,) float.

    Returns:
      Two (K, N) float32 matrices of zeros and ones: the videos of the class at each step's score, and all videos that
      come after those of the step before it, down to that score.
    """
    order = np.argsort(-scores, kind="stable")
    in_class = np.cumsum(hits[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    ends = ends[np.diff(in_class[ends], prepend=0) > 0]

    def rows(videos: np.ndarray, stops: np.ndarray) -> csr_array:
        ones = np.ones(len(videos), np.float32)
        return csr_array((ones, videos, np.append(0, stops)), shape=(len(stops), len(hits)))

    return rows(order[hits[order]], in_class[ends]), rows(order[: ends[-1] + 1], ends + 1)


def figure(statistic: Statistic, num_videos: int) -> float:
    """The figure of the videos themselves, each counted once."""
    return float(statistic(np.ones((1, num_videos)))[0])


def format_interval(interval: Sequence[float] | None, unit: str) -> str:
    """Writes an interval as short as the value beside it: of shares in percent with one decimal; nothing for None."""
    if interval is None:
        return ""
    low, high = (f"{100 * end:.1f}" if unit == "%" else f"{round(end, 1):.4g}" for end in interval)
    return f"{low}–{high}"
