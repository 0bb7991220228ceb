"""Builds a data set from a listing of videos with Apache Beam; killed at any moment, it can be gone on with.

Each element of the pipeline is one shard. Which videos it holds depends on their ids alone, it appears atomically, and
one that is there is not made again, so that the data set is the same bytes however often its preparation was
interrupted. Files are decoded in child processes with a time limit, because a decoder may hang or crash.

DATA_DIR/NAME/VERSION/    the data set: shards, TFDS's descriptions, `videos.jsonl`, the report
DATA_DIR/NAME/unfinished/ while it is built: what is being made and of what, the outcomes of each shard's videos, a lock
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TextIO

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from avshare_jax.data import records, report
from avshare_jax.data.dataset import Dataset, is_unfinished, read_dataset
from avshare_jax.data.decoding import DecodingProcesses, rejected
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.outcomes import MISSING, REJECTED, VIDEOS, Outcome, read_outcomes, write_outcomes
from avshare_jax.data.records import SETTINGS, Contents, Record
from avshare_jax.data.sources.listing import Listing, Video

LISTING, LOCK = "listing.json", "lock"

MANY_SHARDS = 64
"""A split has about so many shards where it has enough videos, so that there is work for all workers."""
EXAMPLES = 3

# Beam copies what a pipeline holds, so threads of this process tell of their progress here; where workers are in other
# processes, nobody listens.
_listeners: list[Callable[[int], None]] = []

# Why shards could not be written. Threads of this process note it here: of what they raise, Beam prints tracebacks.
_failures: list[DatasetError] = []


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
      videos_per_shard: at most so many; splits with few videos have less in each.
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
      DatasetError: the data set exists already, is being prepared by another process, was begun with other settings or
        videos, or cannot be written; Beam does not accept its options; or no video is readable.
    """
    pipeline = make_pipeline(workers, beam_options)
    shards = [shard for split in sorted(listing.splits) for shard in divide(split, listing.splits[split], settings)]
    with _sentences(settings):
        check_new(settings)
        with _locked(settings):
            begin(listing, settings)
            unfinished = [shard for shard in shards if not shard.is_finished(settings)]
            total, waiting = (sum(len(shard.videos) for shard in some) for some in (shards, unfinished))
            with _listening(progress, done=total - waiting, total=total), _beam_mistakes(expected=bool(beam_options)):
                run_pipeline(pipeline, unfinished, settings)
            return finish(listing, shards, settings)


def make_pipeline(workers: int, beam_options: Sequence[str]) -> beam.Pipeline:
    """Makes an empty pipeline; without options it runs on this machine, in threads, each with a decoding process.

    Raises:
      DatasetError: Beam does not know an option or the runner.
    """
    local = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"]
    printed = io.StringIO()
    try:
        with _beam_mistakes(), contextlib.redirect_stderr(printed):
            options = PipelineOptions(list(beam_options) or local)
            unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
            pipeline = beam.Pipeline(options=options)
    except SystemExit as error:  # Of argparse, which prints.
        if not error.code:  # The help was asked for.
            raise
        raise _refused(_last_line(printed.getvalue()).rpartition(": error: ")[2]) from error
    unknown = [f"--{name}" for name in sorted(unknown)] + _stray(beam_options)
    if unknown:
        raise _refused(f"unknown option {', '.join(unknown)}")
    return pipeline


def _stray(arguments: Sequence[str]) -> list[str]:
    """Arguments that are neither options nor an option's value."""
    before = ["--=", *arguments]
    return [
        argument
        for previous, argument in zip(before, arguments, strict=False)
        if not argument.startswith("-") and ("=" in previous or not previous.startswith("-"))
    ]


@contextlib.contextmanager
def _beam_mistakes(expected: bool = True) -> Iterator[None]:
    """Turns what Beam says about its options and runner into a `DatasetError`, where that is what is expected."""
    try:
        yield
    except DatasetError:
        raise
    # Runners raise anything: RuntimeError, errors of gRPC, OSError where Java is missing.
    except Exception as error:
        if not expected or _sentence_within(error):
            raise
        raise _refused(_last_line(str(error)) or type(error).__name__) from error


def _refused(message: str) -> DatasetError:
    return DatasetError(f"Apache Beam does not run with the options after `--`: {message.rstrip('.')}.")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def divide(split: str, videos: Sequence[Video], settings: Settings) -> list[Shard]:
    """Divides the videos of a split into shards, in an order that is random but depends on the ids alone.

    How many shards there are does not depend on the workers, so that the data set does not either.
    """
    order = sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())
    videos_per_shard = min(settings.videos_per_shard, max(1, -(-len(order) // MANY_SHARDS)))
    count = -(-len(order) // videos_per_shard)
    bounds = [number * len(order) // count for number in range(count + 1)] if count else []
    return [
        Shard(split, number, count, tuple(order[start:stop]))
        for number, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]


def check_new(settings: Settings) -> None:
    """Raises `DatasetError` where the name cannot be one, or is that of a finished data set."""
    records.check_name(settings.name)
    if settings.directory.exists() and not is_unfinished(settings.data_dir, settings.name):
        raise DatasetError(f"The data set {settings.directory} exists already: delete it, or use another name.")


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Keeps other processes from preparing the same data set; `DatasetError` where one does. Object stores cannot.

    Afterwards, the notes of a preparation that has ended are removed; open files of network file systems could not be.
    """
    with contextlib.ExitStack() as stack:
        if "://" not in os.fspath(settings.notes):
            settings.notes.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(settings.notes / LOCK, "w"))
            _lock(file, settings)
        try:
            yield
        finally:
            stack.close()
            if settings.notes.exists() and not is_unfinished(settings.data_dir, settings.name):
                settings.notes.rmtree()
                if not any(settings.notes.parent.iterdir()):
                    settings.notes.parent.rmdir()


def _lock(file: TextIO, settings: Settings) -> None:
    """Locks a file until it is closed, or the process ends in any way; `DatasetError` where another has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise _running(settings) from error
    except OSError:  # Some network file systems have no locks.
        pass
    # The other may have finished, and removed the file, after it was opened here.
    if not os.path.exists(file.name) or not os.path.samestat(os.stat(file.name), os.fstat(file.fileno())):
        raise _running(settings)


def _running(settings: Settings) -> DatasetError:
    return DatasetError(f"Another preparation of the data set {settings.directory} is running: wait until it ends.")


def begin(listing: Listing, settings: Settings) -> None:
    """Notes what is being made; `DatasetError` where that is done, or something else was begun under the name."""
    check_new(settings)
    path, wanted, videos = settings.notes / SETTINGS, _identity(settings), _listed(listing)
    if is_unfinished(settings.data_dir, settings.name):
        _check_same_videos(_read_note(settings.notes / LISTING, settings), videos, settings)
        if different := list(_different(_read_note(path, settings), wanted)):
            raise DatasetError(
                f"The preparation of {settings.directory} was begun with other settings: {'; '.join(different)}. "
                f"Repeat those to go on with it, or delete {settings.directory.parent} to begin anew."
            )
    else:
        _write_note(settings.notes / LISTING, videos)
        _write_note(path, wanted)  # From here on, it has begun.
    settings.directory.mkdir(parents=True, exist_ok=True)
    for directory in (settings.directory, settings.notes):
        for partial in directory.glob(".*.partial"):  # Of a killed process.
            partial.unlink()


def _write_note(path: epath.Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.new_file(path) as partial, open(partial, "w") as file:
        json.dump(content, file)


def _read_note(path: epath.Path, settings: Settings) -> dict[str, Any]:
    """Reads what `_write_note` has written."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, FileNotFoundError):
        content = None
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is damaged or missing: delete {settings.directory.parent} to begin anew.")
    return content


def _listed(listing: Listing) -> dict[str, dict[str, object]]:
    """The videos of a listing by their ids, as JSON gives them back."""
    return {
        video.video_id: {"split": split, "labels": list(video.labels), "path": video.path}
        for split, videos in sorted(listing.splits.items())
        for video in videos
    }


def _check_same_videos(begun: Mapping[str, Any], wanted: Mapping[str, Any], settings: Settings) -> None:
    """Raises `DatasetError` where there are other ids, or some in other splits or classes; paths do not count."""
    changed = [name for name in begun if name in wanted and {**begun[name], "path": ""} != {**wanted[name], "path": ""}]
    groups = {
        "appeared": [name for name in wanted if name not in begun],
        "vanished": [name for name in begun if name not in wanted],
        "changed split or classes": changed,
    }
    differences = [_with_examples(sorted(names), verb) for verb, names in groups.items() if names]
    if differences:
        only_new = groups["appeared"] and len(differences) == 1
        undo = "Move the new files away" if only_new else "Undo that"
        raise DatasetError(
            f"The videos are not those that the preparation of {settings.directory} was begun with: "
            f"{'; '.join(differences)}. {undo} to go on with it, or delete {settings.directory.parent} to begin anew."
        )


def _with_examples(names: Sequence[str], verb: str) -> str:
    noun = "video" if len(names) == 1 else "videos"
    examples = ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
    return f"{len(names):,} {noun} {verb} ({examples})"


def run_pipeline(pipeline: beam.Pipeline, shards: Sequence[Shard], settings: Settings) -> None:
    """Makes shards; `DatasetError` where one could not be written."""
    if not shards:
        return
    _failures.clear()
    with pipeline:
        created = pipeline | "Shards" >> beam.Create(list(shards), reshuffle=False)
        created | "Spread" >> beam.Reshuffle() | "Write" >> beam.ParDo(WriteShard(settings))
    if _failures:
        raise _failures[0]


class WriteShard(beam.DoFn):
    """Decodes the videos of a shard and writes their records and outcomes."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def setup(self) -> None:
        """Prepares the decoding process; Beam calls this once in each of its threads."""
        settings = self._settings
        self._processes = DecodingProcesses(
            1,
            settings.contents.frontend,
            jpeg_quality=settings.contents.jpeg_quality,
            min_seconds=settings.min_seconds,
            max_seconds=settings.max_seconds,
            time_limit=settings.time_limit,
        )

    def teardown(self) -> None:
        """Ends the decoding process."""
        self._processes.stop()

    def process(self, shard: Shard) -> Iterator[str]:
        """Writes the shard. Where that is impossible, it notes or, in another process than the build's, raises why."""
        settings = self._settings
        if _failures or shard.is_finished(settings):
            return
        try:
            self._write(shard)
        except DatasetError as error:
            if not _listeners:
                raise
            _failures.append(error)
            return
        yield f"{shard.split}-{shard.number}"

    def _write(self, shard: Shard) -> None:
        """Writes the records and outcomes; `DatasetError` where the disk or the permissions do not allow it."""
        settings, outcomes = self._settings, []
        info = records.dataset_info(settings.name, settings.data_dir, settings.contents)
        try:
            with records.new_file(shard.path(settings)) as path:
                records.write_records(path, info, settings.contents.class_names, self._records(shard, outcomes))
                # Before the shard appears, because then it is finished.
                with records.new_file(shard.outcomes(settings)) as outcomes_path:
                    write_outcomes(epath.Path(outcomes_path), outcomes)
        except OSError as error:
            raise _unwritable(shard.path(settings), error) from error

    def _records(self, shard: Shard, outcomes: list[Outcome]) -> Iterator[Record]:
        """Yields the records of the videos that can be used, and adds to the outcomes of all."""
        for video in shard.videos:
            future = self._processes.start(video, shard.split)
            record, outcome = self._processes.finish(future, video, shard.split)
            outcomes.append(outcome)
            for listener in _listeners:
                listener(1)
            if record is not None:
                yield record


def finish(listing: Listing, shards: Sequence[Shard], settings: Settings) -> tuple[Dataset, list[Outcome]]:
    """Describes the data set whose shards are all there, writes its report, and calls it finished."""
    found = {shard: list(read_outcomes(shard.outcomes(settings))) for shard in shards}
    lengths: dict[str, list[int]] = {}
    for shard, outcomes in found.items():
        used = sum(outcome.outcome != REJECTED for outcome in outcomes)
        lengths.setdefault(shard.split, []).append(used)
    outcomes = [outcome for shard in shards for outcome in found[shard]]
    outcomes += [Outcome(video_id, video_id, "", "", (), MISSING, reason) for video_id, reason in listing.missing]
    outcomes += [rejected(video, split, reason) for split, video, reason in listing.left_out]
    usable = {split: counts for split, counts in lengths.items() if sum(counts)}
    if not usable:
        settings.directory.rmtree()
        (settings.notes / SETTINGS).unlink()
        raise DatasetError(f"There is no readable video: {_example(outcomes)}.")
    write_outcomes(settings.directory / VIDEOS, outcomes)
    info = records.dataset_info(settings.name, settings.data_dir, _with_splits(settings.contents, usable))
    records.write_info(settings.directory, info, usable)
    dataset = read_dataset(settings.data_dir, settings.name)
    report.write_report(dataset, outcomes, listing.unlisted, settings.directory)
    (settings.notes / SETTINGS).unlink()  # From here on, the data set is finished.
    return dataset, outcomes


def _with_splits(contents: Contents, splits: Collection[str]) -> Contents:
    """The contents with split names that stand for those of the splits that there are, without names for nothing."""
    named = {
        name: "+".join(part for part in union.split("+") if part in splits)
        for name, union in contents.split_names.items()
    }
    return dataclasses.replace(contents, split_names={name: union for name, union in named.items() if union})


def _example(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "no media file was found"
    failed = outcomes[0]
    return f"{len(outcomes)} failed, for example {failed.path or failed.video_id} ({failed.reason.rstrip('.')})"


def _identity(settings: Settings) -> dict[str, object]:
    """What the data set depends on besides the videos, as JSON gives it back."""
    # The directory may be called by another name.
    identity = {**dataclasses.asdict(settings), "data_dir": None}
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
    except Exception as error:  # Beam gives the message of an error in a worker, within its traceback.
        if sentence := _sentence_within(error):
            raise DatasetError(sentence) from error
        raise


def _sentence_within(error: Exception) -> str:
    """The message of the `DatasetError` whose traceback another error's message holds; empty if there is none."""
    found = re.search(r"DatasetError: (.*?)( \[while running|$)", str(error), re.MULTILINE)
    return found[1] if found else ""
