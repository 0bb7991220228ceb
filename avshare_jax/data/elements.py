"""Elements: what one row of a batch holds, as a function of its index."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grain
import numpy as np

from avshare_jax.data.clips import (
    Clips,
    cut_frames,
    cut_log_mel,
    cut_views,
    frame_size,
    spatial_places,
    temporal_starts,
)
from avshare_jax.data.dataset import Dataset
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.mixtures import Mixture
from avshare_jax.data.unreadable import Unreadable, UnreadableError, max_unreadable, read_id, to_text

Element = dict[str, Any]
Record = dict[str, Any]
T = TypeVar("T")

UNREADABLE = "unreadable"
"""Name of the elements' text that tells the main process which records could not be read."""

MODALITIES = ("visual", "audio")
FLAGS = {"visual": "has_video", "audio": "has_audio"}
CONTENTS = {"visual": "frames", "audio": "log_mel"}
NEEDS = {MODALITIES: "both image and sound", ("visual",): "an image", ("audio",): "sound"}


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a data set's split, some of which may be damaged.

    Attributes:
      dataset: name of the data set.
      split: of the records.
      source: the records by number.
    """

    dataset: str
    split: str
    source: Sequence[Record]

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> "Records":
        """Opens a split; `DatasetError` where there is none of that name."""
        return cls(dataset.name, split, dataset.source(split))

    def use(self, number: int, make: Callable[[Record], T]) -> T | Unreadable:
        """Reads a record and returns what `make` makes of it, or what is wrong with the record."""
        video_id = ""
        try:
            record = self.read(number)
            video_id = read_id(record)
            check_flags(record)
            return make(record)
        except UnreadableError as error:
            return Unreadable(self.dataset, self.split, number, video_id, str(error))

    def read(self, number: int) -> Record:
        """Reads a record; `UnreadableError` where that fails."""
        try:
            return self.source[number]
        # Damage comes as anything: RuntimeError from ArrayRecord, DecodeError from protobuf, ValueError from NumPy.
        except Exception as error:
            if sentence := shortage(error):
                raise DatasetError(sentence) from error
            raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error


def check_flags(record: Record) -> None:
    """Raises `UnreadableError` where a record lacks the image or sound that it says it has."""
    for modality, flag in FLAGS.items():
        if record[flag] and not len(record[CONTENTS[modality]]):
            raise UnreadableError(f"it says that it has {NEEDS[(modality,)]}, but there is none")


def replacements(number: int, count: int) -> Iterator[int]:
    """Yields `number` and then every other number below `count` once, in large steps.

    Neighbors of a bad record are often as bad, and not all records of a lost file should be replaced by the same one.
    """
    step = max(1, round(0.618 * count))
    while math.gcd(step, count) != 1:
        step += 1
    return ((number + tries * step) % count for tries in range(count))


def draw_order(sizes: Sequence[int], weights: Sequence[float], seed: int) -> grain.MapDataset:
    """The endless stream of (number of the data set, number of the record), each data set shuffled in every epoch.

    Data sets take turns by their weights. Each goes through all of its records before any comes again.
    """

    def numbered(dataset: int, size: int) -> grain.MapDataset:
        order = grain.MapDataset.range(size).seed(seed + dataset).shuffle().repeat()
        return order.map(lambda number: (dataset, number))

    return grain.MapDataset.mix([numbered(*pair) for pair in enumerate(sizes)], weights)


@dataclasses.dataclass(frozen=True)
class TrainElements:
    """The endless stream of training elements.

    Attributes:
      parts: records of each data set.
      order: number of the data set and of the record of every element, from `draw_order`.
      clips: sizes.
      seed: of place and time of the clips.
      keep_incomplete: whether records that lack one of the modalities are used, with flags that say so.
      max_unreadable_share: of each data set; beyond it, no replacement is looked for.
      modalities: what is read, "visual" or "audio" or both.
      num_labels: None: labels are not read; 0: one label each; n: any of n labels each.
    """

    parts: Sequence[Records]
    order: Sequence[tuple[int, int]]
    clips: Clips
    seed: int
    keep_incomplete: bool
    max_unreadable_share: float
    modalities: tuple[str, ...] = MODALITIES
    num_labels: int | None = None

    @classmethod
    def of(
        cls,
        mixture: Mixture,
        data_config: Any,
        seed: int,
        max_unreadable_share: float,
        modalities: tuple[str, ...] = MODALITIES,
        labeled: bool = False,
    ) -> "TrainElements":
        """Opens the training split of each data set; `DatasetError` where there is none or the crop is too large."""
        split = data_config.train_split
        parts = [Records.of(dataset, split) for dataset in mixture.datasets]
        order = draw_order([len(part.source) for part in parts], mixture.shares(split), seed)
        clips = Clips.from_config(data_config, mixture.datasets[0])
        num_labels = label_count(mixture.datasets[0]) if labeled else None
        keep_incomplete = data_config.keep_incomplete
        return cls(parts, order, clips, seed, keep_incomplete, max_unreadable_share, modalities, num_labels)

    def __call__(self, index: int) -> Element:
        """Returns element `index`: `frames` (S, T, crop, crop, 3) uint8, `log_mel` (S, mel_frames, mels) float32.

        Only those of the modalities that are read. With `keep_incomplete`, also `has_video` and `has_audio`; what is
        missing is black and silent. With labels, `label` or `labels` as from `read_labels`. `unreadable` is the text of
        the records that could not be read. If those are too many, nothing else of the element has a meaning: whoever
        counts them ends the run.
        """
        part, number = self.order[index]
        element, unreadable = self.find(
            self.parts[part], number, lambda record: self.cut(record, index) if self.usable(record) else None
        )
        return (element or self.cut(empty_record(self.clips), index)) | {UNREADABLE: to_text(unreadable)}

    def usable(self, record: Record) -> bool:
        """Whether a record is trained on."""
        if self.num_labels == 0 and record["label"] < 0:
            return False
        return (any if self.keep_incomplete else all)(record[FLAGS[modality]] for modality in self.modalities)

    def find(
        self, records: Records, number: int, make: Callable[[Record], T | None]
    ) -> tuple[T | None, list[Unreadable]]:
        """Makes something of record `number`, or else of the first of its `replacements` that can be used.

        Returns:
          What `make` returned that was not None, or None after too many unreadable records; and the unreadable ones.

        Raises:
          DatasetError: `make` returned None for all records that can be read.
        """
        unreadable: list[Unreadable] = []
        for candidate in replacements(number, len(records.source)):
            made = records.use(candidate, make)
            if isinstance(made, Unreadable):
                unreadable.append(made)
                if len(unreadable) > max_unreadable(self.max_unreadable_share, len(records.source)):
                    return None, unreadable
            elif made is not None:
                return made, unreadable
        labeled = "" if self.num_labels is None else " and a label"
        other = ", or train on what there is with config.data.keep_incomplete=True" if len(self.modalities) > 1 else ""
        raise DatasetError(
            f"No video in split {records.split} of the data set {records.dataset} can be trained on: each needs "
            f"{NEEDS[self.modalities]}{labeled}. Prepare others{other}."
        )

    def cut(self, record: Record, index: int) -> Element:
        """Cuts element `index` from a record."""
        labels = {} if self.num_labels is None else read_labels(record, self.num_labels)
        record = only(record, self.modalities)
        rng = np.random.default_rng((self.seed, index))
        start = int(rng.integers(self.clips.last_start(record), endpoint=True))
        short_side = int(rng.integers(self.clips.min_short_side, self.clips.max_short_side, endpoint=True))
        place = (rng.random(), rng.random())
        element = dict(labels)
        if "visual" in self.modalities:
            element["frames"] = cut_frames(record["frames"], self.clips, start, short_side, place)
        if "audio" in self.modalities:
            element["log_mel"] = cut_log_mel(record["log_mel"], self.clips, start)
        return element | presence_flags(record) if self.keep_incomplete else element


@dataclasses.dataclass(frozen=True)
class ViewElements:
    """Views of the records of a split in order, the last repeated as padding.

    Attributes:
      records: of the split.
      num_videos: how many of the records are used.
      num_labels: 0: at most one label each; n: any of n labels each.
      clips: sizes.
      short_side: of the frames before the crops, in pixels.
      temporal_views: of each video; element i is view i % temporal_views of video i // temporal_views.
      spatial_views: V, crops of each temporal view.
      modalities: what is read, "visual" or "audio" or both.
    """

    records: Records
    num_videos: int
    num_labels: int
    clips: Clips
    short_side: int
    temporal_views: int
    spatial_views: int
    modalities: tuple[str, ...] = MODALITIES

    def __call__(self, index: int) -> Element:
        """Returns the V rows of element `index`, under the names that `multi_view_batches` gives."""
        video, view = divmod(min(index, self.num_videos * self.temporal_views - 1), self.temporal_views)
        found = self.records.use(video, lambda record: self.cut(record, view))
        valid, text = index < self.num_videos * self.temporal_views, ""
        if isinstance(found, Unreadable):
            valid, text = False, to_text([found])
            found = self.cut(empty_record(self.clips) | {"video_id": found.video_id.encode()}, view)
        return found | self.rows({"valid": np.bool_(valid), UNREADABLE: text})

    def cut(self, record: Record, view: int) -> Element:
        """Cuts the V crops of a record's temporal view `view`."""
        row = {
            "video_id": read_id(record),
            **presence_flags(record),
            **read_labels(record, self.num_labels),
        }
        record = only(record, self.modalities)
        start = temporal_starts(self.clips.last_start(record), self.temporal_views)[view]
        views = {"view": np.arange(self.spatial_views, dtype=np.int32) + np.int32(view * self.spatial_views)}
        if "visual" in self.modalities:
            places = self.places(record["frames"])
            views["frames"] = cut_views(record["frames"], self.clips, start, self.short_side, places)
        if "audio" in self.modalities:
            row["log_mel"] = cut_log_mel(record["log_mel"], self.clips, start)
        return views | self.rows(row)

    def places(self, jpegs: Sequence[bytes]) -> list[tuple[float, float]]:
        """Where the V crops of a video lie; `UnreadableError` where its first frame is damaged."""
        height, width = frame_size(jpegs[0]) if jpegs else (1, 1)
        return spatial_places(self.spatial_views, height, width)

    def rows(self, row: Element) -> Element:
        """Repeats what is the same for all V crops."""
        return {name: np.repeat(np.asarray(value)[None], self.spatial_views, axis=0) for name, value in row.items()}


def only(record: Record, modalities: Sequence[str]) -> Record:
    """A record as if it had no other modality than these, so that a short sound does not shorten an image unheard."""
    missing = {"visual": [], "audio": record["log_mel"][:0]}
    return record | {CONTENTS[name]: nothing for name, nothing in missing.items() if name not in modalities}


def label_count(dataset: Dataset) -> int:
    """`num_labels` of a data set's records."""
    return len(dataset.class_names) if dataset.multi_label else 0


def read_labels(record: Record, num_labels: int) -> Element:
    """A record's `label`, () int32, -1: none; or, of several, its `labels` as zeros and ones, (num_labels,) uint8."""
    if not num_labels:
        return {"label": np.int32(record.get("label", -1))}
    labels = np.zeros(num_labels, np.uint8)
    labels[list(record["labels"])] = 1
    return {"labels": labels}


def empty_record(clips: Clips) -> Record:
    """A record without image, sound or label, in place of one that cannot be read."""
    silence = np.zeros((0, clips.mels), np.float32)
    return {"video_id": b"", "frames": [], "log_mel": silence, "has_video": False, "has_audio": False, "labels": []}


def presence_flags(record: Record) -> dict[str, np.bool_]:
    """Which modalities a record has, as scalars of a batch's rows."""
    return {flag: np.bool_(record[flag]) for flag in FLAGS.values()}
