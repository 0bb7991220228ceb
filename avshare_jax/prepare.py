"""Turns videos into a data set that training can read.

    python -m avshare_jax.prepare folder --videos=DIR --name=NAME [--labels=CSV] [--data_dir=data] [--frontend=16khz]

DIR holds videos in class folders, or unlabeled videos; its first-level folders may also be splits (train, val,
validation, test), each with the same inside. Without such folders, a share of the videos becomes the split `test`.
"""

import argparse
import collections
import csv
import dataclasses
import functools
import hashlib
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
from etils import epath

from avshare_jax.data.frontend import PRESETS, FrontEnd
from avshare_jax.data.media import MediaError
from avshare_jax.data.records import (
    DatasetError,
    Record,
    Video,
    check_new_dataset,
    dataset_directory,
    make_record,
    write_dataset,
)

SPLITS = ("train", "val", "validation", "test")
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")
FRONTEND_HELP = {
    "fps": "frames per second",
    "short_side": "shorter side of the frames in pixels",
    "sample_rate": "samples of sound per second",
    "n_fft": "samples of which a spectrum is taken",
    "hop_length": "samples from one spectrum to the next",
    "mels": "bands of the spectrogram",
    "win_length": "samples in a window, zeros around; 0: as n_fft",
}

Sources = dict[str, list[Video]]
Skipped = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the videos of a folder.

    Attributes:
      directory: where the data set is.
      counts: number of videos by split.
      class_names: the classes in the order of their numbers.
      skipped: (path, reason) of every video that was left out.
      seconds: how long it took.
    """

    directory: epath.Path
    counts: dict[str, int]
    class_names: tuple[str, ...]
    skipped: Skipped
    seconds: float

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count}" for split, count in self.counts.items())
        classes = f"{len(self.class_names)} classes" if self.class_names else "no labels"
        lines = [f"{self.directory}: {counts} videos, {classes}, in {clock(self.seconds)}."]
        if self.skipped:
            lines += [f"Skipped {len(self.skipped)}:"] + [f"  {path}: {reason}" for path, reason in self.skipped]
        return "\n".join(lines)


class ProgressLine:
    """Shows how far a count of things has come, at which rate, and when it will be done; on stderr."""

    def __init__(self, noun: str, seconds_between_lines: float = 10.0):
        self._noun = noun
        self._terminal = sys.stderr.isatty()
        self._pause = 0.2 if self._terminal else seconds_between_lines
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Shows the count, unless it was shown a moment ago."""
        now = time.monotonic()
        if done < total and now - self._last < self._pause:
            return
        self._last = now
        elapsed = max(now - self._start, 1e-9)
        rate = done / elapsed
        left = f"ETA {clock((total - done) / rate)}" if 0 < done < total else f"took {clock(elapsed)}"
        line = f"{self._noun}: {done} of {total}, {rate:.1f} a second, {left}"
        ends = ("\r\x1b[K", "\n" if done == total else "") if self._terminal else ("", "\n")
        print(f"{ends[0]}{line}", end=ends[1], file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Returns a duration as [hours:]minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def prepare_folder(
    videos: Path,
    name: str,
    data_dir: epath.PathLike,
    frontend: FrontEnd,
    *,
    labels: Path | None = None,
    jpeg_quality: int = 90,
    workers: int | None = None,
    holdout: float = 0.1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Turns a folder of videos into the data set DATA_DIR/NAME; videos that cannot be decoded are skipped.

    Args:
      videos: the folder; see the top of this module.
      name: of the data set.
      data_dir: directory of data sets.
      frontend: rates and sizes to convert to.
      labels: csv file with the header `video,label[,split]`, paths relative to the folder; replaces what folders say.
      jpeg_quality: of the frames, 1 to 100.
      workers: processes that decode; one per CPU core by default.
      holdout: share of the videos, chosen by their names, that becomes the split `test` where nothing gives splits.
      progress: called with the number of videos that are done and of all; a line on stderr by default.

    Returns:
      What was written and what was skipped.

    Raises:
      DatasetError: the data set exists already or cannot be written, or there is no readable video.
    """
    start = time.monotonic()
    check_new_dataset(name, data_dir)
    sources, skipped = find_videos(Path(videos), labels, holdout)
    class_names = tuple(sorted({video.label for split in sources.values() for video in split if video.label}))
    total = sum(map(len, sources.values()))
    counts = dict.fromkeys(sources, 0)
    progress = progress or ProgressLine("videos prepared")
    done = itertools.count(1)

    def readable(split: str, results: Iterable[tuple[Video, Record | str]]) -> Iterator[Record]:
        for video, result in results:
            if isinstance(result, str):
                skipped.append((video.path, result))
            else:
                counts[split] += 1
                yield result
            progress(next(done), total)

    workers = workers or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        try_record = functools.partial(_try_record, frontend=frontend, jpeg_quality=jpeg_quality)
        records = {
            split: _nonempty(readable(split, _map_in_order(pool, try_record, sources[split], 2 * workers)))
            for split in sources
        }
        records = {split: iterator for split, iterator in records.items() if iterator is not None}
        if not records:
            raise DatasetError(f"There is no readable video in {videos}: {_tried(skipped)}.")
        write_dataset(name, data_dir, records, frontend=frontend, class_names=class_names, jpeg_quality=jpeg_quality)
    counts = {split: count for split, count in counts.items() if count}
    return Report(dataset_directory(data_dir, name), counts, class_names, skipped, time.monotonic() - start)


def find_videos(folder: Path, labels: Path | None, holdout: float) -> tuple[Sources, Skipped]:
    """Finds the videos of a folder.

    Args:
      folder: the folder; see the top of this module.
      labels: csv file as in `prepare_folder`.
      holdout: share of the videos that becomes the split `test` where nothing gives splits.

    Returns:
      The videos by split, in the order of their names, and (path, reason) of those that cannot be used.

    Raises:
      DatasetError: the folder or the csv file is not there or cannot be understood.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    if labels is not None:
        return _videos_of_csv(folder, labels, holdout)
    paths = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    given_splits = bool(paths) and all(len(path.parts) > 1 and path.parts[0] in SPLITS for path in paths)
    sources: Sources = {}
    for path in paths:
        video_id = _video_id(path)
        split = path.parts[0] if given_splits else _held_out(video_id, holdout)
        folders = path.parts[given_splits:-1]
        sources.setdefault(split, []).append(Video(video_id, str(folder / path), folders[0] if folders else None))
    return sources, []


def _videos_of_csv(folder: Path, labels: Path, holdout: float) -> tuple[Sources, Skipped]:
    """The videos that a csv file names; those that are not there are skipped."""
    try:
        with open(labels, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = set(reader.fieldnames or ())
            rows = sorted(reader, key=lambda row: row.get("video") or "")
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"The labels file {labels} cannot be read: {error}.") from error
    if not {"video", "label"} <= columns:
        raise DatasetError(f"The labels file {labels} needs a header with the columns video,label and maybe split.")
    sources: Sources = {}
    skipped: Skipped = []
    seen: set[str] = set()
    for row in rows:
        path = folder / (row["video"] or "")
        video_id = _video_id(Path(row["video"] or ""))
        split = row.get("split") or _held_out(video_id, holdout)
        if split not in SPLITS:
            raise DatasetError(f"The labels file {labels} has the split {split!r}; splits are {', '.join(SPLITS)}.")
        if not path.is_file():
            skipped.append((str(path), f"{labels} names it, but it is not there."))
        elif video_id in seen:
            skipped.append((str(path), f"{labels} names it more than once."))
        else:
            seen.add(video_id)
            sources.setdefault(split, []).append(Video(video_id, str(path), row["label"] or None))
    return sources, skipped


def _video_id(path: Path) -> str:
    """The path relative to the folder; bytes that are not UTF-8 become question marks."""
    return path.as_posix().encode(errors="replace").decode()


def _held_out(video_id: str, share: float) -> str:
    """Returns "test" for about this share of all ids, always the same ones, else "train"."""
    digest = hashlib.sha256(video_id.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < share * 2**64 else "train"


def _try_record(video: Video, frontend: FrontEnd, jpeg_quality: int) -> Record | str:
    """Returns the record of a video, or the reason why there is none. Runs in a worker process."""
    try:
        return make_record(video, frontend, jpeg_quality)
    except MediaError as error:
        return str(error)
    except Exception as error:  # Whatever is wrong with a video must not end the preparation of all others.
        return f"{type(error).__name__}: {error}"


def _map_in_order(
    pool: Executor, function: Callable[[Video], Record | str], videos: Iterable[Video], ahead: int
) -> Iterator[tuple[Video, Record | str]]:
    """Yields (video, function(video)) in order, at most `ahead` of them computed or waiting at any time."""
    futures: collections.deque = collections.deque()
    left, last = iter(videos), "the first videos"
    try:
        while True:
            futures.extend(
                (video, pool.submit(function, video)) for video in itertools.islice(left, ahead - len(futures))
            )
            if not futures:
                return
            video, future = futures.popleft()
            last = video.path
            yield video, future.result()
    except BrokenProcessPool as error:
        raise DatasetError(
            f"A decoding process died at or soon after {last}: if memory ran out, use fewer --workers; if a file "
            "crashes the decoder, take it out of the folder."
        ) from error


def _nonempty(records: Iterator[Record]) -> Iterator[Record] | None:
    """Returns an iterator over the same records, or None if there are none: TFDS cannot write an empty split."""
    first = next(records, None)
    return None if first is None else itertools.chain([first], records)


def _tried(skipped: Skipped) -> str:
    if not skipped:
        return f"no file ends in {', '.join(VIDEO_SUFFIXES)}"
    path, reason = skipped[0]
    return f"{len(skipped)} failed, for example {path} ({reason.rstrip('.')})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m avshare_jax.prepare", description="Turns videos into a data set.")
    sources = parser.add_subparsers(dest="source", required=True)
    folder = sources.add_parser(
        "folder",
        help="a folder of videos",
        description=(__doc__ or "").rpartition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    folder.add_argument("--videos", type=Path, required=True, metavar="DIR", help="the folder")
    folder.add_argument("--name", required=True, help="name of the data set")
    folder.add_argument("--data_dir", default="data", metavar="DIR", help="where data sets are")
    folder.add_argument("--labels", type=Path, metavar="CSV", help="file with the header video,label[,split]")
    folder.add_argument("--holdout", type=float, default=0.1, help="share that becomes the split test")
    folder.add_argument("--jpeg_quality", type=int, default=90, help="of the frames, 1 to 100")
    folder.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that decode")
    folder.add_argument(
        "--frontend",
        choices=PRESETS,
        default="avbert",
        help="name of rates and sizes; the options below change single ones",
    )
    for field in dataclasses.fields(FrontEnd):
        explanation = f"{FRONTEND_HELP[field.name]} (avbert: {field.default})"
        folder.add_argument(f"--{field.name}", type=field.type, default=argparse.SUPPRESS, help=explanation)
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if name in FRONTEND_HELP}
    try:
        frontend = dataclasses.replace(PRESETS[options.frontend], **given)
    except ValueError as error:
        sys.exit(f"error: {error}")
    try:
        report = prepare_folder(
            options.videos,
            options.name,
            options.data_dir,
            frontend,
            labels=options.labels,
            jpeg_quality=options.jpeg_quality,
            workers=options.workers,
            holdout=options.holdout,
        )
    except DatasetError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; nothing was written.")
    print(report)
    print(f"Train on it with --config.data.name={options.name} --config.data.data_dir={options.data_dir}", end="")
    different = dataclasses.asdict(frontend).items() - dataclasses.asdict(FrontEnd()).items()
    print("".join(f" --config.data.frontend.{name}={value}" for name, value in sorted(different)))


if __name__ == "__main__":
    main()
