"""The Apache Beam pipeline that makes shards, and sentences for what Beam raises."""

import contextlib
import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
from etils import epath

from avshare_jax.data import records
from avshare_jax.data.decoding import DecodingProcesses, SameFailureError
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.outcomes import Outcome, read_outcomes, write_outcomes
from avshare_jax.data.records import Record
from avshare_jax.data.shards import Settings, Shard
from avshare_jax.data.workers import memory_per_worker

# Beam copies what a pipeline holds, so threads of this process tell of their progress here; where workers are in other
# processes, nobody listens.
_listeners: list[Callable[[int], None]] = []

# Why shards could not be written. Threads of this process note it here: of what they raise, Beam prints tracebacks.
_failures: list[DatasetError] = []


@contextlib.contextmanager
def make_pipeline(workers: int, beam_options: Sequence[str]) -> Iterator[beam.Pipeline]:
    """Makes an empty pipeline; without options it runs on this machine, in threads, each with a decoding process.

    Raises:
      DatasetError: Beam does not know an option or the runner.
    """
    local = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"]
    options = _parse(list(beam_options) or local)
    # With this option, the DirectRunner works in Python. Else it first tries to download a server, Prism, whose folders
    # stay behind and which has no --direct_num_workers. There is no trigger here that could be unsafe.
    options.view_as(TypeOptions).allow_unsafe_triggers = True
    with beam_mistakes():
        pipeline = beam.Pipeline(options=options)
    try:
        yield pipeline
    finally:  # Beam itself removes this only where the pipeline runs.
        shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)


def _parse(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options of a command line; raises `DatasetError` where Beam does not know one."""
    printed = io.StringIO()
    try:
        with beam_mistakes(), contextlib.redirect_stderr(printed):
            options = PipelineOptions(list(arguments))
            unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    except SystemExit as error:  # Of argparse, which prints.
        if not error.code:  # The help was asked for.
            raise
        raise _refused(_last_line(printed.getvalue()).rpartition(": error: ")[2]) from error
    if named := [f"--{name}" for name in sorted(unknown)] + _stray(arguments):
        raise _refused(f"unknown option {', '.join(named)}")
    return options


def _stray(arguments: Sequence[str]) -> list[str]:
    """Arguments that are neither options nor an option's value."""
    before = ["--=", *arguments]
    return [
        argument
        for previous, argument in zip(before, arguments, strict=False)
        if not argument.startswith("-") and ("=" in previous or not previous.startswith("-"))
    ]


def run_pipeline(pipeline: beam.Pipeline, shards: Sequence[Shard], settings: Settings) -> None:
    """Makes shards; `DatasetError` where one could not be written."""
    if not shards:
        return
    _failures.clear()
    with pipeline:
        created = pipeline | "Shards" >> beam.Create(list(shards), reshuffle=False)
        created | "Spread" >> beam.Reshuffle() | "Write" >> beam.ParDo(WriteShard(settings))
    if _failures:
        if isinstance(_failures[0], SameFailureError):
            _discard(shards, _failures[0].reason, settings)
        raise _failures[0]


def _discard(shards: Sequence[Shard], reason: str, settings: Settings) -> None:
    """Removes the shards with files that were rejected for a reason that does not lie in them."""
    for shard in shards:
        finished = read_outcomes(shard.outcomes(settings)) if shard.is_finished(settings) else ()
        if any(outcome.reason == reason for outcome in finished):
            shard.path(settings).unlink()


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
            memory_limit=settings.memory_limit or memory_per_worker(1),
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
            raise unwritable(shard.path(settings), error) from error
        except MemoryError as error:
            raise DatasetError(
                f"Memory has run out while records were written to {shard.path(settings)}. Finished shards are kept: "
                "give the same command again with a smaller --memory_limit, which rejects the largest videos, or with "
                "fewer --workers."
            ) from error

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


@contextlib.contextmanager
def listening(progress: Callable[[int, int], None], done: int, total: int) -> Iterator[None]:
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


@contextlib.contextmanager
def beam_mistakes(expected: bool = True) -> Iterator[None]:
    """Turns what Beam says about its options and runner into a `DatasetError`, where that is what is expected."""
    try:
        yield
    except DatasetError:
        raise
    # Runners raise anything: RuntimeError, errors of gRPC, OSError where Java is missing.
    except Exception as error:
        if not expected or sentence_within(error):
            raise
        raise _refused(_last_line(str(error)) or type(error).__name__) from error


def sentence_within(error: Exception) -> str:
    """The message of the `DatasetError` whose traceback another error's message holds; empty if there is none."""
    found = re.search(r"DatasetError: (.*?)( \[while running|$)", str(error), re.MULTILINE)
    return found[1] if found else ""


def unwritable(path: epath.Path, error: OSError) -> DatasetError:
    """The error that says why a file of the data set could not be written, and what to do."""
    if sentence := shortage(error):
        return DatasetError(f"{sentence} Finished shards are kept; give the same command again then.")
    return DatasetError(
        f"{path} cannot be written: {error.strerror or error}. Finished shards are kept: make room or repair the "
        "permissions, give the same command again, and it goes on from there."
    )


def _refused(message: str) -> DatasetError:
    return DatasetError(f"Apache Beam does not run with the options after `--`: {message.rstrip('.')}.")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()
