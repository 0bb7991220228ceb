"""Counts what became of videos, one outcome at a time, so that any number of them can be counted."""

import collections
import dataclasses
import math
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from avshare_jax.data.outcomes import MISSING, NO_AUDIO, NO_VIDEO, OUTCOMES, REJECTED, Outcome

EXAMPLES = 5
COMMON_VALUES = 20
QUANTILES = (0, 5, 25, 50, 75, 95, 100)

SILENCE = -100.0
"""Loudness in dB below which sound counts as silent: 16 bits end at -96."""


def examples_of(texts: Sequence[str]) -> dict[str, Any]:
    """Number of texts and the first few."""
    return {"count": len(texts), "examples": list(texts[:EXAMPLES])}


@dataclasses.dataclass
class Group:
    """Sentences that differ in file names and numbers only.

    Attributes:
      sentence: the first.
      same: whether all are the same.
      count: how many there are.
      examples: the first few, each with its video.
    """

    sentence: str
    same: bool = True
    count: int = 0
    examples: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def add(self, sentence: str, outcome: Outcome) -> None:
        """Counts one more."""
        self.count += 1
        self.same = self.same and sentence == self.sentence
        if len(self.examples) < EXAMPLES:
            self.examples.append({"video_id": outcome.video_id, "path": outcome.path, "sentence": sentence})


class Tally:
    """Counts outcomes one by one; all that it holds of each of them is five numbers.

    Attributes:
      seconds: durations of the videos used.
      loudness: of the sounds used that are not silent, in dB relative to full scale.
      resolutions: number of videos used by `WIDTH×HEIGHT`.
      frame_rates: the same by frames per second, to two decimals.
    """

    def __init__(self):
        self.seconds, self.loudness, self._fps = array("d"), array("d"), array("d")
        self._widths, self._heights = array("l"), array("l")
        self.resolutions, self.frame_rates = collections.Counter(), collections.Counter()
        self._sample_rates, self._channels = collections.Counter(), collections.Counter()
        self._silent = 0
        self._outcomes = {outcome: collections.Counter() for outcome in OUTCOMES}
        self._classes: dict[str, collections.Counter] = {}
        self._unlabeled = collections.Counter()
        self._reasons: dict[tuple[str, str], Group] = {}
        self._notes: dict[tuple[str, str], Group] = {}

    def add(self, outcome: Outcome) -> None:
        """Counts what became of one video."""
        self._outcomes[outcome.outcome][outcome.split] += 1
        if outcome.reason:
            _group(self._reasons, outcome.outcome, outcome.reason, outcome)
        for note in outcome.notes:
            _group(self._notes, "", note, outcome)
        if outcome.outcome not in (REJECTED, MISSING):
            self._add_used(outcome)

    def _add_used(self, outcome: Outcome) -> None:
        if outcome.seconds:
            self.seconds.append(outcome.seconds)
        if outcome.width:
            self._widths.append(outcome.width)
            self._heights.append(outcome.height)
            self.resolutions[f"{outcome.width}×{outcome.height}"] += 1
        if outcome.fps:
            self._fps.append(outcome.fps)
            self.frame_rates[f"{outcome.fps:.2f}".rstrip("0").rstrip(".")] += 1
        if outcome.sample_rate:
            self._sample_rates[str(outcome.sample_rate)] += 1
            self._channels[str(outcome.channels)] += 1
        if outcome.loudness is not None and outcome.loudness >= SILENCE:
            self.loudness.append(outcome.loudness)
        elif outcome.loudness is not None:
            self._silent += 1
        for label in outcome.labels:
            self._classes.setdefault(label, collections.Counter())[outcome.split] += 1
        if not outcome.labels:
            self._unlabeled[outcome.split] += 1

    def facts(self, class_names: Iterable[str]) -> dict[str, Any]:
        """What was counted, ready for JSON; `class_names` are the data set's, in the order of their numbers."""
        counts = {outcome: sum(splits.values()) for outcome, splits in self._outcomes.items()}
        balance = {name: by_name(self._classes.get(name, {})) for name in class_names}
        return {
            "videos": {
                "all": sum(counts.values()),
                "used": sum(counts.values()) - counts[REJECTED] - counts[MISSING],
                **{outcome: counts[outcome] for outcome in (NO_AUDIO, NO_VIDEO, REJECTED, MISSING)},
            },
            "seconds": round(math.fsum(self.seconds), 3),
            "outcomes": {outcome: by_name(splits) for outcome, splits in self._outcomes.items()},
            "reasons": _as_json(self._reasons),
            "notes": _as_json(self._notes),
            "quantiles": {
                "seconds": quantiles(self.seconds),
                "width": quantiles(self._widths),
                "height": quantiles(self._heights),
                "fps": quantiles(self._fps),
                "loudness": quantiles(self.loudness),
            },
            "silent": self._silent,
            "resolutions": most_common(self.resolutions),
            "frame_rates": most_common(self.frame_rates),
            "sample_rates": most_common(self._sample_rates),
            "channels": most_common(self._channels),
            "class_balance": balance,
            "unlabeled": by_name(self._unlabeled) if balance else {},
        }


def _group(groups: dict[tuple[str, str], Group], heading: str, sentence: str, outcome: Outcome) -> None:
    """Adds a sentence to the group of its heading and kind."""
    key = heading, normalize(sentence, outcome)
    groups.setdefault(key, Group(sentence)).add(sentence, outcome)


def _as_json(groups: Mapping[tuple[str, str], Group]) -> list[dict[str, Any]]:
    """Groups by (outcome or nothing, kind of sentence) as JSON, the largest first."""
    return [
        {
            **({"outcome": outcome} if outcome else {}),
            "sentence": group.sentence if group.same else kind,
            "count": group.count,
            "examples": group.examples,
        }
        for (outcome, kind), group in sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
    ]


def normalize(sentence: str, outcome: Outcome) -> str:
    """Replaces what differs from video to video, so that sentences about the same thing become the same.

    The video's file, its name and id become FILE, as does everything that looks like a path; numbers become N.
    """
    names = {outcome.path, outcome.path.rpartition("/")[2], outcome.video_id, outcome.source_id}
    # An id that is a word may be a word of the sentence.
    found = [name for name in names if name and name in sentence and not name.isalpha()]
    for name in sorted(found, key=lambda name: (-len(name), name)):
        sentence = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "FILE", sentence)
    sentence = re.sub(r"[^\s'\"(]*/[^\s'\",;:)]+", "FILE", sentence)
    return re.sub(r"(?<![\w.])(0x[0-9a-fA-F]+|[0-9][0-9,]*(\.[0-9]+)?)(?!\w)", "N", sentence)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Quantiles by their percentage, to three decimals; empty without values."""
    if not len(values):
        return {}
    found = np.percentile(np.asarray(values, np.float64), QUANTILES)
    return {f"{percent}%": round(float(value), 3) for percent, value in zip(QUANTILES, found, strict=True)}


def most_common(counter: Mapping[str, int]) -> dict[str, int]:
    """The most common values with their counts, in an order that does not depend on which came first."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:COMMON_VALUES])


def by_name(counter: Mapping[str, int]) -> dict[str, int]:
    """The counts in the order of their names."""
    return dict(sorted(counter.items()))
