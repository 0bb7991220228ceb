"""Builds a data set from a listing of videos with Apache Beam; killed at any moment, it can be gone on with.

Each element of the pipeline is one shard. Which videos it holds depends on their ids alone, it appears atomically, and
one that is there is not made again, so that the data set is the same bytes however often its preparation was
interrupted. Files are decoded in child processes with a time limit, because a decoder may hang or crash.

DATA_DIR/NAME/VERSION/    the data set: shards, TFDS's descriptions, `videos.jsonl`, the report
DATA_DIR/NAME/unfinished/ while it is built: what is being made, and the outcomes of each shard's videos
"""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool

import apache_beam as beam
import pebble
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from avshare_jax.data import records, report
from avshare_jax.data.dataset import Dataset, is_unfinished, read_dataset
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.extraction import extract
from avshare_jax.data.outcomes import MISSING, OUTCOMES, REJECTED, Outcome, read_outcomes, write_outcomes
from avshare_jax.data.records import SETTINGS, Contents, Record
from avshare_jax.data.sources.listing import Listing, Video
from avshare_jax.data.workers import set_up_worker

VIDEOS = "videos.jsonl"

# Beam copies what a pipeline holds, so threads of this process tell of their progress here; where workers are on other
# machines, nobody listens.
_listeners: list[Callable[[int], None]] = []


@dataclasses.dataclass(frozen=True)
class Settings:
    """How videos become records.

    Attributes:
      name: of the data set.
      data_dir: directory of data sets, maybe remote (`gs://…`).
      contents: what the records have in common.
      min_seconds: shorter videos are rejected.
      max_seconds: longer videos are cut.
      time_limit: seconds after which a file that is still being decoded is rejected.
      videos_per_shard: at most so many.
    """

    name: str
    data_dir: str
    contents: Contents
    min_seconds: float = 1.0
    max_seconds: float = 600.0
    time_limit: float = 300.0
    videos_per_shard: int = 128

    @property
    def directory(self) -> epath.Path:
        """Of the data set."""
        return records.dataset_directory(self.data_dir, self.name)

    @property
    def notes(self) -> epath.Path:
        """Directory of the preparation's own files."""
        return records.preparation_directory(self.data_dir, self.name)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard of a split.

    Attributes:
      split: name of the split.
      number: of the shard, from 0.
      count: of the split's shards.
      videos: that may become its records, in this order.
    """

    split: str
    number: int
    count: int
    videos: tuple[Video, ...]

    def path(self, settings: Settings) -> epath.Path:
        """Its ArrayRecord file."""
        return records.shard_path(settings.directory, settings.name, self.split, self.number, self.count)

    def outcomes(self, settings: Settings) -> epath.Path:
        """The file that says what became of its videos."""
        return settings.notes / f"{self.split}-{self.number:05d}-of-{self.count:05d}.jsonl"

    def is_finished(self, settings: Settings) -> bool:
        """Whether both files are there; the outcomes are written first."""
        return self.path(settings).exists() and self.outcomes(settings).exists()


def build(
    listing: Listing,
    settings: Settings,
    *,
    workers: int,
    beam_options: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Dataset, list[Outcome]]:
    """Builds the data set of a listing, or goes on with building it.

    Args:
      listing: of a source.
      settings: how videos become records.
      workers: decoding processes, where Beam runs on this machine.
      beam_options: Beam's own options, such as `--runner=FlinkRunner`; none: on this machine.
      progress: called with the number of videos that are done and of all.

    Returns:
      The data set, and what became of every video.

    Raises:
      DatasetError: the data set exists already, was begun with other settings or cannot be written, or no video is
        readable.
    """
    shards = [shard for split in sorted(listing.splits) for shard in divide(split, listing.splits[split], settings)]
    with _sentences(settings):
        begin(listing, settings)
        unfinished = [shard for shard in shards if not shard.is_finished(settings)]
        total, waiting = (sum(len(shard.videos) for shard in some) for some in (shards, unfinished))
        with _listening(progress, done=total - waiting, total=total):
            run_pipeline(unfinished, settings, workers, beam_options)
        return finish(listing, shards, settings)


def divide(split: str, videos: Sequence[Video], settings: Settings) -> list[Shard]:
    """Divides the videos of a split into shards, in an order that is random but depends on the ids alone."""
    order = sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())
    count = -(-len(order) // settings.videos_per_shard)
    bounds = [number * len(order) // count for number in range(count + 1)] if count else []
    return [
        Shard(split, number, count, tuple(order[start:stop]))
        for number, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]


def begin(listing: Listing, settings: Settings) -> None:
    """Notes what is being made; `DatasetError` where that is done, or something else was begun under the name."""
    records.check_name(settings.name)
    path, wanted = settings.notes / SETTINGS, _identity(listing, settings)
    if not is_unfinished(settings.data_dir, settings.name):
        if settings.directory.exists():
            raise DatasetError(f"The data set {settings.directory} exists already: delete it, or use another name.")
        settings.notes.mkdir(parents=True, exist_ok=True)
        with records.new_file(path) as partial, open(partial, "w") as file:
            json.dump(wanted, file, indent=2)
    elif different := list(_different(json.loads(path.read_text()), wanted)):
        raise DatasetError(
            f"The preparation of {settings.directory} was begun with other settings: {'; '.join(different)}. Repeat "
            f"those to go on with it, or delete {settings.directory.parent} to begin anew."
        )
    settings.directory.mkdir(parents=True, exist_ok=True)
    for directory in (settings.directory, settings.notes):
        for partial in directory.glob(".*.partial"):  # Of a killed process.
            partial.unlink()


def run_pipeline(shards: Sequence[Shard], settings: Settings, workers: int, beam_options: Sequence[str]) -> None:
    """Makes shards; on this machine by threads, each with a decoding process of its own."""
    if not shards:
        return
    local = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"]
    WriteShard.stopped = False
    with beam.Pipeline(options=PipelineOptions(list(beam_options) or local)) as pipeline:
        created = pipeline | "Shards" >> beam.Create(list(shards), reshuffle=False)
        created | "Spread" >> beam.Reshuffle() | "Write" >> beam.ParDo(WriteShard(settings))


class WriteShard(beam.DoFn):
    """Decodes the videos of a shard and writes their records and outcomes."""

    stopped = False
    """Whether a shard could not be written; then this process need not try the others."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def setup(self) -> None:
        """Prepares the decoding process; Beam calls this once in each of its threads."""
        self._pool = pebble.ProcessPool(1, context=multiprocessing.get_context("spawn"), initializer=set_up_worker)

    def teardown(self) -> None:
        """Ends the decoding process."""
        self._pool.stop()
        self._pool.join()

    def process(self, shard: Shard) -> Iterator[str]:
        """Writes the shard; `DatasetError` where the disk or the permissions do not allow it."""
        settings = self._settings
        if WriteShard.stopped or shard.is_finished(settings):
            return
        outcomes: list[Outcome] = []
        info = records.dataset_info(settings.name, settings.data_dir, settings.contents)
        try:
            with records.new_file(shard.path(settings)) as path:
                records.write_records(path, info, settings.contents.class_names, self._records(shard, outcomes))
                # Before the shard appears, because then it is finished.
                with records.new_file(shard.outcomes(settings)) as outcomes_path:
                    write_outcomes(epath.Path(outcomes_path), outcomes)
        except OSError as error:
            WriteShard.stopped = True
            raise _unwritable(shard.path(settings), error) from error
        yield f"{shard.split}-{shard.number}"

    def _records(self, shard: Shard, outcomes: list[Outcome]) -> Iterator[Record]:
        """Yields the records of the videos that can be used, and adds to the outcomes of all."""
        for video in shard.videos:
            record, outcome = self._extract(video, shard.split)
            outcomes.append(outcome)
            for listener in _listeners:
                listener(1)
            if record is not None:
                yield record

    def _extract(self, video: Video, split: str) -> tuple[Record | None, Outcome]:
        """Extracts a video in the decoding process, which is replaced where it hangs or dies."""
        settings = self._settings
        options = {
            "jpeg_quality": settings.contents.jpeg_quality,
            "min_seconds": settings.min_seconds,
            "max_seconds": settings.max_seconds,
        }
        future = self._pool.schedule(
            extract, (video, split, settings.contents.frontend), options, timeout=settings.time_limit
        )
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise DatasetError(
                "Decoding processes end before they begin, see their messages above: memory may have run out."
            ) from error
        except FutureTimeoutError:
            reason = f"Decoding it takes longer than {settings.time_limit:g} s."
        except pebble.ProcessExpired as error:
            reason = (
                f"Decoding it ended the process (exit code {error.exitcode}): it crashes the decoder or memory ran out."
            )
        return None, _rejected(video, split, reason)


def _rejected(video: Video, split: str, reason: str) -> Outcome:
    return Outcome(video.video_id, video.source_id, split, video.path, video.labels, REJECTED, reason)


def finish(listing: Listing, shards: Sequence[Shard], settings: Settings) -> tuple[Dataset, list[Outcome]]:
    """Describes the data set whose shards are all there, writes its report, and calls it finished."""
    found = {shard: list(read_outcomes(shard.outcomes(settings))) for shard in shards}
    lengths: dict[str, list[int]] = {}
    for shard, outcomes in found.items():
        used = sum(outcome.outcome != REJECTED for outcome in outcomes)
        lengths.setdefault(shard.split, []).append(used)
    outcomes = [outcome for shard in shards for outcome in found[shard]]
    outcomes += [Outcome(video_id, video_id, "", "", (), MISSING, reason) for video_id, reason in listing.missing]
    outcomes += [_rejected(video, split, reason) for split, video, reason in listing.left_out]
    usable = {split: counts for split, counts in lengths.items() if sum(counts)}
    if not usable:
        settings.directory.rmtree()
        settings.notes.rmtree()
        raise DatasetError(f"There is no readable video: {_example(outcomes)}.")
    write_outcomes(settings.directory / VIDEOS, outcomes)
    info = records.dataset_info(settings.name, settings.data_dir, _without(settings.contents, lengths.keys() - usable))
    records.write_info(settings.directory, info, usable)
    dataset = read_dataset(settings.data_dir, settings.name)
    report.write_report(dataset, outcomes, listing.unlisted, settings.directory)
    (settings.notes / SETTINGS).unlink()  # From here on, the data set is finished.
    settings.notes.rmtree()
    return dataset, outcomes


def _without(contents: Contents, empty: set[str]) -> Contents:
    """The contents with split names that do not stand for the splits in which no video was readable."""
    named = {
        name: "+".join(part for part in union.split("+") if part not in empty)
        for name, union in contents.split_names.items()
    }
    return dataclasses.replace(contents, split_names={name: union for name, union in named.items() if union})


def _example(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "no media file was found"
    failed = outcomes[0]
    return f"{len(outcomes)} failed, for example {failed.path or failed.video_id} ({failed.reason.rstrip('.')})"


def _identity(listing: Listing, settings: Settings) -> dict[str, object]:
    """What the data set depends on, as JSON gives it back."""
    videos = json.dumps([dataclasses.asdict(listing), OUTCOMES], sort_keys=True)
    identity = {
        **dataclasses.asdict(settings),
        "data_dir": None,  # May be called by another name.
        "videos": f"{sum(map(len, listing.splits.values()))} ({hashlib.sha256(videos.encode()).hexdigest()[:12]})",
    }
    return json.loads(json.dumps(identity))


def _different(begun: dict[str, object], wanted: dict[str, object], prefix: str = "") -> Iterator[str]:
    """Yields a phrase for each setting that differs."""
    for name in sorted({*begun, *wanted}):
        old, new = begun.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _different(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} was {old} and is now {new}"


@contextlib.contextmanager
def _listening(progress: Callable[[int, int], None], done: int, total: int) -> Iterator[None]:
    """Calls `progress` while shards are made by threads of this process."""
    lock = threading.Lock()

    def listen(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done, total)

    _listeners.append(listen)
    try:
        yield
    finally:
        _listeners.remove(listen)


def _unwritable(path: epath.Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"{path} cannot be written: {error.strerror or error}. Finished shards are kept: make room or repair the "
        "permissions, give the same command again, and it goes on from there."
    )


@contextlib.contextmanager
def _sentences(settings: Settings) -> Iterator[None]:
    """Turns what the disk and Beam raise into a `DatasetError`."""
    try:
        yield
    except OSError as error:
        raise _unwritable(settings.directory, error) from error
    except RuntimeError as error:  # Beam gives the message of an error in a worker, within its traceback.
        if sentence := re.search(r"DatasetError: (.*?)( \[while running|$)", str(error), re.MULTILINE):
            raise DatasetError(sentence[1]) from error
        raise
