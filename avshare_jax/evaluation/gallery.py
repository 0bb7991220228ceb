"""The gallery: the test videos that retrieval searches, their pair scores, and the pictures of some of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from avshare_jax.evaluation import plots, retrieval
from avshare_jax.evaluation.features import Batch, Features, Variables
from avshare_jax.training.pretraining import Pretraining

FRAMES_SHOWN = 4


@dataclass(frozen=True)
class Gallery:
    """The test videos that retrieval searches.

    Attributes:
      video_ids: of the G videos.
      captions: class name of each, or its id if it has no class.
      scores: "trained" and "random" → (G, G) pair scores, row = image track, column = sound track.
    """

    video_ids: list[str]
    captions: list[str]
    scores: dict[str, np.ndarray]


def choose_gallery(num_videos: int, size: int, seed: int) -> np.ndarray:
    """Indices of `size` random videos (all, if there are fewer), ascending."""
    return np.sort(np.random.default_rng(seed).choice(num_videos, min(size, num_videos), replace=False))


def score_gallery(
    task: Pretraining, networks: Mapping[str, Variables], features: Mapping[str, Features], gallery: np.ndarray
) -> dict[str, np.ndarray]:
    """Pair scores (G, G) of the gallery by each network: row = image track, column = sound track."""

    def pair_logits(variables: Variables, visual: jax.Array, audio: jax.Array) -> dict[str, jax.Array]:
        return task.network.apply(variables, visual, audio, method="pair_logits")

    return {
        name: retrieval.pair_scores(
            pair_logits, variables, features[name].visual_tokens[gallery], features[name].audio_tokens[gallery]
        )
        for name, variables in networks.items()
    }


def caption_videos(video_ids: list[str], labels: np.ndarray, class_names: tuple[str, ...]) -> list[str]:
    """Each video's class name, the first of its classes (N, C) where it has several, or its id if it has none."""
    if labels.ndim > 1:
        labels = np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
    return [class_names[label] if label >= 0 else video_id for video_id, label in zip(video_ids, labels, strict=True)]


def read_pictures(
    batches: Iterable[Batch], gallery: Gallery, sheet: Sequence[plots.SheetRow]
) -> dict[int, plots.Picture]:
    """Takes from the test videos those that the sheet shows; keys are places in the gallery, as in its rows."""
    places = {place for row in sheet for place in (row.query, *row.sounds, *row.images)}
    wanted = {gallery.video_ids[place]: place for place in places}
    pictures: dict[int, plots.Picture] = {}
    for batch in batches:
        for video_id, frames, log_mel in zip(batch["video_id"], batch["frames"], batch["log_mel"], strict=True):
            if video_id in wanted:
                clips = np.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().astype(int)
                shown = frames[clips, frames.shape[1] // 2]
                place = wanted[video_id]
                pictures[place] = plots.Picture(shown, np.concatenate(list(log_mel)), gallery.captions[place])
        if len(pictures) == len(wanted):
            break
    return pictures
