"""Clean evaluation: which test videos pretraining has seen, by their ids; and how many videos a result rests on.

Kinetics-Sounds, for example, is drawn from Kinetics-400, whose validation videos are largely among the training videos
of Kinetics-700. What cannot be compared is said and never counted as clean.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from avshare_jax.data.dataset import Dataset, DatasetError, open_dataset
from avshare_jax.data.exclusion import identity_of, is_path, names_of
from avshare_jax.data.names import composed
from avshare_jax.data.outcomes import MISSING, NO_AUDIO, NO_VIDEO, REJECTED, USED, VIDEOS, Outcome, read_outcomes
from avshare_jax.data.sources.listing import Video
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import load_identity
from avshare_jax.training.run_config import read_config

IN_DATASET = (USED, NO_AUDIO, NO_VIDEO)
EXAMPLES = 5

Batch = dict[str, Any]


@dataclass(frozen=True)
class Overlap:
    """What a split and the videos of a pretraining have in common.

    Attributes:
      pretrained_on: names of the data sets, joined by +; None where nobody knows.
      num_pretraining_videos: that were compared.
      num_videos: of the evaluated split that were compared; 0 where nothing could be.
      video_ids: of those among them that pretraining has seen, or that were cut from the same source.
      num_clean: how many of them have image and sound and pretraining has not seen.
      not_compared: sentences, each about videos that could not be compared, and why.
    """

    pretrained_on: str | None
    num_pretraining_videos: int = 0
    num_videos: int = 0
    video_ids: frozenset[str] = frozenset()
    num_clean: int = 0
    not_compared: tuple[str, ...] = ()

    def to_exclude(self, least: int = 0) -> frozenset[str]:
        """The videos to leave out.

        Args:
          least: number of videos with image and sound that have to remain; one of any kind has to in any case.

        Raises:
          UserError: it is not known of all videos whether pretraining has seen them, or too few remain.
        """
        problem = " ".join(self.not_compared)
        if not problem and (self.num_clean < least or self.num_videos == len(self.video_ids)):
            problem = (
                f"of the {self.num_videos:,} videos of the split, pretraining has seen {len(self.video_ids):,}, the "
                f"number of others with image and sound is {self.num_clean:,}, and {max(least, 1):,} are needed."
            )
        if problem:
            raise UserError(f"config.exclude_pretraining_videos=True is not possible: {problem}")
        return self.video_ids

    def to_json(self, excluded: bool) -> dict[str, Any]:
        """What a result says of it; `overlapping_videos` is None where nothing could be compared."""
        return {
            "pretrained_on": self.pretrained_on,
            "pretraining_videos_compared": self.num_pretraining_videos,
            "test_videos_compared": self.num_videos,
            "overlapping_videos": len(self.video_ids) if self.num_videos else None,
            "examples": sorted(self.video_ids)[:EXAMPLES],
            "excluded": excluded,
            "not_compared": list(self.not_compared),
        }


def describe(overlap: Mapping[str, Any]) -> str:
    """Sentences about an overlap, from `Overlap.to_json`."""
    lines = list(overlap["not_compared"])
    if (count := overlap["overlapping_videos"]) is not None:
        then = " They are left out." if overlap["excluded"] else ""
        if count and not overlap["excluded"]:
            then = " They are evaluated too: --config.exclude_pretraining_videos=True leaves them out."
        lines.insert(
            0,
            f"{count:,} of the split's {overlap['test_videos_compared']:,} videos are, by their ids, among the "
            f"{overlap['pretraining_videos_compared']:,} of pretraining ({overlap['pretrained_on']}).{then}",
        )
    return " ".join(lines)


@dataclass(frozen=True)
class TrainedOn:
    """Videos that a run was trained on.

    Attributes:
      name: of the data set.
      fingerprint: of the data set.
      split: of it.
      data_dir: where the data set was.
    """

    name: str
    fingerprint: str
    split: str
    data_dir: str


def find_overlap(workdir: epath.PathLike, dataset: Dataset, split: str) -> Overlap:
    """Compares the videos of a split with those that a run, and the runs that it started from, were trained on.

    Two videos are the same if their ids, or those of what they were cut from, are; of YouTube clips, the original's id
    counts. Within one data set, ids of any kind do; across data sets, paths in a folder say nothing.

    Args:
      workdir: of the run; it names the data sets, which are looked for where they were, and beside `dataset`.
      dataset: that is evaluated.
      split: that is evaluated.

    Raises:
      UserError: there is no run in `workdir`.
    """
    sources, problems = trained_on(workdir)
    pretrained_on = "+".join(dict.fromkeys(source.name for source in sources)) or None
    if not sources:
        return Overlap(None, not_compared=tuple(problems))
    tested, problem = listed_videos(dataset, split)
    if problem:
        return Overlap(pretrained_on, not_compared=(*problems, problem))
    seen: set[str] = set()
    common: set[str] = set()
    compared: set[tuple[str, str]] = set()  # Runs of one chain may share videos.
    for source in sources:
        pretrained, problem = open_pretrained(
            source.name, source.fingerprint, dataset, (source.data_dir, dataset.directory.parent.parent)
        )
        videos, problem = listed_videos(pretrained, source.split) if pretrained else ([], problem)
        if problem:
            problems.append(problem)
            continue
        if pretrained is dataset:
            compared |= {(source.fingerprint, video.video_id) for video in videos}
            own = {one for video in videos for one in (video.video_id, video.source_id)}
            common |= {video.video_id for video in tested if own & {video.video_id, video.source_id}}
            continue
        found = {video.video_id: names for video in videos if (names := lasting_names(video))}
        compared |= {(source.fingerprint, video_id) for video_id in found}
        seen.update(*found.values())
        if without := len(videos) - len(found):
            problems.append(
                f"{without:,} of the {len(videos):,} pretraining videos of {source.name} are known by their paths in a "
                "folder only, and cannot be compared with those of another data set."
            )
    common |= {video.video_id for video in tested if seen & all_names(video)}
    clean = sum(video.outcome == USED and video.video_id not in common for video in tested)
    counts = (len(tested), frozenset(common), clean) if compared else (0, frozenset(), 0)
    return Overlap(pretrained_on, len(compared), *counts, tuple(dict.fromkeys(problems)))


def trained_on(workdir: epath.PathLike) -> tuple[list[TrainedOn], list[str]]:
    """What a run, the run that it started from, and so on were trained on; and sentences about what nobody knows.

    Raises:
      UserError: there is no run in `workdir`.
    """
    found: dict[TrainedOn, None] = {}
    visited: set[str] = set()
    while True:
        visited.add(str(epath.Path(workdir).resolve()))
        config = read_config(workdir)
        identity = load_identity(workdir)
        if identity["name"] is None:
            return list(found), ["The weights were imported, and nothing says which videos they have seen."]
        for name, fingerprint in zip(identity["name"].split("+"), identity["fingerprint"].split("+"), strict=True):
            found[TrainedOn(name, fingerprint, config.data.train_split, config.data.data_dir)] = None
        if (start := config.get("init_from")) is None:
            return list(found), []
        source = epath.Path(start).expanduser()
        if not (source / "config.json").exists():
            gone = (
                f"The run in {workdir} started from {start}, which is no longer there: nothing says what it has seen."
            )
            return list(found), [gone]
        if str(source.resolve()) in visited:
            again = (
                f"The run in {workdir} started from {start}, where there is now a run that started from it: "
                "nothing says what the first of them has seen."
            )
            return list(found), [again]
        workdir = source


def open_pretrained(
    name: str, fingerprint: str, dataset: Dataset, places: Sequence[epath.PathLike]
) -> tuple[Dataset | None, str]:
    """Opens the data set that a run was trained on, or says in a sentence why that is impossible.

    Args:
      name: of the data set.
      fingerprint: of the data set.
      dataset: that is evaluated; returned if it is the same.
      places: directories of data sets to look in.
    """
    if (name, fingerprint) == (dataset.name, dataset.fingerprint):
        return dataset, ""
    others = []
    for place in dict.fromkeys(str(place) for place in places):
        try:
            found = open_dataset(place, name)
        except DatasetError:
            continue
        if found.fingerprint == fingerprint:
            return found, ""
        others.append(place)
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    why = f"that of its name in {', '.join(others)} is another" if others else f"it is not, or not whole, in {looked}"
    return None, f"The data set {name}, which pretraining used, cannot be compared: {why}."


def listed_videos(dataset: Dataset, split: str) -> tuple[list[Outcome], str]:
    """The videos of a split as preparation listed them, or a sentence that says why there is no list."""
    path = dataset.directory / VIDEOS
    if not path.exists():
        return [], f"The ids of the videos of {dataset.name} are not known: {path} is not there."
    parts = dataset.parts(split)
    return [video for video in read_outcomes(path) if video.outcome in IN_DATASET and video.split in parts], ""


def lasting_names(video: Outcome) -> set[str]:
    """What a video may be called also in another data set; empty where only its place in a folder is known."""
    known = identity_of(video)
    if known is None:
        return set()
    return {known} if is_path(video.video_id) else {known, composed(video.video_id)}


def all_names(video: Outcome) -> set[str]:
    """Everything that a video may be called."""
    return names_of(Video(video.video_id, video.path, video.labels, video.source_id))


def leave_out(batches: Iterable[Batch], video_ids: frozenset[str], batch_size: int) -> Iterator[Batch]:
    """Takes videos out of batches and fills the batches up again.

    Args:
      batches: arrays and lists of rows, with `video_id` (B strings) and `valid` (B,) bool.
      video_ids: to leave out; rows that are not valid are left out as well.
      batch_size: of what is yielded; the last batch is padded with its last row, which is not valid there.
    """
    waiting: Batch = {}
    for batch in batches:
        kept = [row for row, name in enumerate(batch["video_id"]) if batch["valid"][row] and name not in video_ids]
        if not waiting and len(kept) == len(batch["valid"]) == batch_size:
            yield batch
            continue
        added = take_rows(batch, kept)
        waiting = {name: join_rows(waiting[name], added[name]) for name in added} if waiting else added
        while len(waiting["valid"]) >= batch_size:
            yield take_rows(waiting, range(batch_size))
            waiting = take_rows(waiting, range(batch_size, len(waiting["valid"])))
        waiting = waiting if len(waiting["valid"]) else {}
    if waiting:
        count = len(waiting["valid"])
        padded = take_rows(waiting, np.minimum(np.arange(batch_size), count - 1))
        yield padded | {"valid": padded["valid"] & (np.arange(batch_size) < count)}


def take_rows(batch: Batch, rows: Sequence[int] | np.ndarray) -> Batch:
    """Some rows of a batch."""
    rows = [int(row) for row in rows]
    return {
        name: value[np.array(rows, int)] if isinstance(value, np.ndarray) else [value[row] for row in rows]
        for name, value in batch.items()
    }


def join_rows(first: Any, second: Any) -> Any:
    """The rows of two arrays or lists one after the other."""
    return np.concatenate([first, second]) if isinstance(first, np.ndarray) else first + second


def count_videos(dataset: Dataset, splits: Mapping[str, str]) -> dict[str, Any]:
    """How many videos a result rests on and how many it lacks.

    Args:
      dataset: that is evaluated.
      splits: name of each split by what it is used for, such as "test".

    Returns:
      `num_classes`; `missing`, videos that annotations name and whose files were not there (of all splits: nobody knows
      which); and by use, `split`, its number of `records`, and of its videos how many are `without_audio`,
      `without_video` or were `rejected` in preparation. None where preparation left no list.
    """
    path = dataset.directory / VIDEOS
    counts: collections.Counter[tuple[str, str]] | None = None
    if path.exists():
        counts = collections.Counter((video.split, video.outcome) for video in read_outcomes(path))

    def number(parts: Iterable[str], outcome: str) -> int | None:
        return None if counts is None else sum(counts[part, outcome] for part in parts)

    kinds = {"without_audio": NO_AUDIO, "without_video": NO_VIDEO, "rejected": REJECTED}
    return {
        "num_classes": len(dataset.class_names),
        "missing": None if counts is None else sum(n for (_, outcome), n in counts.items() if outcome == MISSING),
        **{
            use: {"split": split, "records": dataset.num_videos(split)}
            | {kind: number(dataset.parts(split), outcome) for kind, outcome in kinds.items()}
            for use, split in splits.items()
        },
    }
