"""Audio-video retrieval: finding a video's sound among others by the pair logits, and the reverse."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avshare_jax.evaluation import bootstrap
from avshare_jax.evaluation.bootstrap import Bootstrap, Statistic

RECALL_AT = (1, 5, 10)

PairLogits = Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]


def pair_scores(
    pair_logits: PairLogits,
    variables: Any,
    visual_tokens: np.ndarray,
    audio_tokens: np.ndarray,
) -> np.ndarray:
    """Scores every image track against every sound track of a gallery.

    The score is the logit of the BOS head plus the mean over time of the logits of the step head: two estimates of
    the log-odds that the two belong together.

    Args:
      pair_logits: (variables, visual (B, S+1, D), audio (B, S+1, D)) → {"bos": (B,), "step": (B, S)} logits.
      variables: Of the pretraining network.
      visual_tokens: (G, S+1, D) outputs of the visual Transformer.
      audio_tokens: (G, S+1, D) outputs of the audio Transformer.

    Returns:
      (G, G) float32; row = image track, column = sound track, the diagonal holds the true pairs.
    """

    audio = jnp.asarray(audio_tokens)
    return np.stack([np.asarray(score_row(pair_logits, variables, row, audio)) for row in visual_tokens])


@partial(jax.jit, static_argnums=0)
def score_row(pair_logits: PairLogits, variables: Any, visual: jax.Array, audio: jax.Array) -> jax.Array:
    """Scores (G,) of one image track (S+1, D) against all sound tracks (G, S+1, D), see `pair_scores`."""
    logits = pair_logits(variables, jnp.broadcast_to(visual, audio.shape), audio)
    return logits["bos"].astype(jnp.float32) + jnp.mean(logits["step"].astype(jnp.float32), axis=1)


def true_pair_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks (1 = best) of the diagonal entries among their rows, (Q,) int.

    A tie counts against the true pair, and so does a score that is not a number: a network that scores all pairs
    the same retrieves nothing.
    """
    own = np.diagonal(scores)[:, None]
    return np.sum(~(scores < own), axis=1)


def retrieval_metrics(scores: np.ndarray) -> dict[str, float]:
    """Recall and median rank of the diagonal among the rows of (G, G) scores.

    Returns:
      "recall@k" for k in `RECALL_AT` (0..1) and "median_rank" (1..G).
    """
    return {name: bootstrap.figure(statistic, len(scores)) for name, statistic in statistics(scores).items()}


def statistics(scores: np.ndarray) -> dict[str, Statistic]:
    """The same figures as functions of how often each query counts; the gallery that is searched stays as it is."""
    ranks = true_pair_ranks(scores)
    recalls = {f"recall@{k}": bootstrap.mean_of((ranks <= k).astype(float)) for k in RECALL_AT}
    return recalls | {"median_rank": bootstrap.median_of(ranks.astype(float))}


def chance_metrics(gallery: int) -> dict[str, float]:
    """What `retrieval_metrics` gives on average for random scores of a gallery of this size."""
    recalls = {f"recall@{k}": min(k / gallery, 1.0) for k in RECALL_AT}
    return recalls | {"median_rank": (gallery + 1) / 2}


def finds_same_class(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the best-scored *other* column of each row is of the row's class, (G,) bool.

    Args:
      scores: (G, G) float.
      labels: (G,) int.
    """
    others = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores)
    return labels[np.argmax(others, axis=1)] == labels


def same_class_chance(labels: np.ndarray) -> float:
    """The share of rows of which `finds_same_class` is true on average for random scores, 0..1."""
    same = np.sum(labels[:, None] == labels[None, :], axis=1) - 1
    return float(np.mean(same / (len(labels) - 1)))


def compare_networks(
    scores: Mapping[str, np.ndarray], labels: np.ndarray, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Retrieval metrics of each network in both directions, and the chance level.

    Args:
      scores: name → (G, G), as from `pair_scores`.
      labels: (G,) int; the class of the best match is measured if all videos have one, and there are others.
      resamples: of the bootstrap, over queries.
      seed: of the bootstrap.

    Returns:
      The metrics by network and direction, `chance`, and beside them `intervals`: by network, direction and metric, its
      [lower, upper end].
    """
    gallery, labelled = len(labels), len(labels) > 1 and bool(np.all(labels >= 0))
    intervals = Bootstrap(gallery, resamples, seed)
    found: dict[str, Any] = {name: {} for name in scores}
    ends: dict[str, Any] = {name: {} for name in scores}
    for name, of_network in scores.items():
        for direction, directed in (("video_to_audio", of_network), ("audio_to_video", of_network.T)):
            measured = statistics(directed)
            if labelled:
                measured["same_class_at_1"] = bootstrap.mean_of(finds_same_class(directed, labels).astype(float))
            found[name][direction] = {metric: bootstrap.figure(x, gallery) for metric, x in measured.items()}
            ends[name][direction] = {metric: intervals.interval(x) for metric, x in measured.items()}
    chance = {"same_class_at_1": same_class_chance(labels)} if labelled else {}
    return {"num_videos": gallery, "chance": chance_metrics(gallery) | chance, **found, "intervals": ends}
