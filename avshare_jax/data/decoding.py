"""Decoding in child processes: a decoder that hangs, crashes or takes too much memory costs one file.

Needs neither TensorFlow nor JAX.
"""

import contextlib
import gc
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.extraction import MAX_BYTES, UNEXPECTED, Record, extract
from avshare_jax.data.frontend import FrontEnd, find_caches, log_mel
from avshare_jax.data.outcomes import REJECTED, Outcome
from avshare_jax.data.sources.listing import Video
from avshare_jax.data.workers import limit_memory, set_up_worker

COPIES = 8
"""How many times the bytes of a record the process that receives and writes it may need."""

LONGEST_WAIT = 2e6
"""Seconds: the system counts milliseconds with 31 bits."""

SAME_FAILURES = 20
"""Where none can be used and so many in a row fail in the same way that nobody has foreseen, it is not the files."""


class DecodingProcesses:
    """Processes that turn media files into records; one that hangs, dies or runs out of memory is replaced.

    Each has a pipe of its own, which a thread reads: where it dies in the middle of a record, the pipe ends, and what
    goes wrong on this side is raised by `finish`.
    """

    def __init__(
        self,
        workers: int,
        frontend: FrontEnd,
        *,
        jpeg_quality: int,
        min_seconds: float,
        max_seconds: float,
        time_limit: float,
        memory_limit: int,
    ):
        """Sets them up; they start with the first files.

        Args:
          workers: number of processes.
          frontend: of the records.
          jpeg_quality: as for `extraction.extract`.
          min_seconds: the same.
          max_seconds: the same.
          time_limit: seconds after which a file that is still being decoded is rejected.
          memory_limit: bytes that decoding a file may take; its record may take 1 / `COPIES` of that.
        """
        find_caches()  # Before they start, so that all find the same.
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._processes = [_Process(frontend, time_limit, memory_limit) for _ in range(workers)]
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(workers)
        self._frontend, self._time_limit, self._memory_limit = frontend, time_limit, memory_limit
        self._failure, self._failures, self._has_succeeded = "", 0, False
        self._options: dict[str, Any] = {
            "jpeg_quality": jpeg_quality,
            "min_seconds": min_seconds,
            "max_seconds": max_seconds,
            "max_bytes": min(memory_limit // COPIES, MAX_BYTES),
        }

    def stop(self) -> None:
        """Ends the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.stop()
        self._threads.shutdown()

    def start(self, video: Video, split: str) -> Future:
        """Has a file decoded; `finish` takes what this returns."""
        return self._threads.submit(self._decode, extract, (video, split, self._frontend), self._options)

    def _decode(self, *task: Any) -> tuple[Record | None, Outcome]:
        process = self._idle.get()
        was_new = process.is_new
        try:
            return process.run(*task)
        except MemoryError:
            if was_new:
                raise
            return process.run(*task)  # Alone: what earlier files have left behind in a process is not blamed on it.
        finally:
            self._idle.put(process)

    def finish(self, future: Future, video: Video, split: str) -> tuple[Record | None, Outcome]:
        """Waits for the record of a file and its outcome; the record is None where it was rejected.

        Raises:
          DatasetError: no process can be started, or files fail for a reason that does not lie in them.
        """
        try:
            record, outcome = future.result()
        except TimeoutError:
            return None, rejected(video, split, f"Decoding it takes longer than {self._time_limit:g} s.")
        except MemoryError:
            limit = f"{self._memory_limit / 1e9:.3g} GB"
            return None, rejected(video, split, f"Decoding it takes more memory than there is for a file ({limit}).")
        except EOFError as error:
            code = f"exit code {error}"
            return None, rejected(
                video, split, f"Decoding it ended the process ({code}): it crashes the decoder or memory ran out."
            )
        self._has_succeeded = self._has_succeeded or record is not None
        self._count_failures(outcome.reason)
        return record, outcome

    def _count_failures(self, reason: str) -> None:
        """Raises `DatasetError` where no file was ever usable, and the last all failed in the same unforeseen way."""
        unexpected = reason if reason.startswith(UNEXPECTED) else ""
        self._failures = self._failures + 1 if unexpected and unexpected == self._failure else int(bool(unexpected))
        self._failure = unexpected
        if self._failures >= SAME_FAILURES and not self._has_succeeded:
            raise SameFailureError(reason)


class SameFailureError(DatasetError):
    """Many files fail in the same way, which says that the machine or the installation is at fault.

    Attributes:
      reason: that the files were rejected for.
    """

    def __init__(self, reason: str):
        super().__init__(
            f"{SAME_FAILURES} files in a row fail in the same way, so it is hardly the files but this machine or the "
            f"installation: {reason} Repair that and give the same command again."
        )
        self.reason = reason


class _Process:
    """A child process that runs functions one after the other."""

    def __init__(self, frontend: FrontEnd, time_limit: float, memory_limit: int):
        self._frontend, self._time_limit, self._memory_limit = frontend, time_limit, memory_limit
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock, self._stopped = threading.Lock(), False  # `stop` comes from another thread.

    @property
    def is_new(self) -> bool:
        """Whether the next function will be the first that the child runs."""
        return self._process is None

    def stop(self) -> None:
        """Ends the child, and starts no other."""
        with self._lock:
            self._stopped = True
        self.kill()

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Returns what the function returns in the child.

        Raises:
          TimeoutError: it takes too long.
          MemoryError: it takes too much memory, or what it returns does.
          EOFError: the child has ended; the message is its exit code.
          DatasetError: the child does not start, or the function raised it.
        """
        if self._process is None:
            self._start()
        try:
            self._pipe.send((function, arguments, options))
            if not self._pipe.poll(min(self._time_limit, LONGEST_WAIT)):
                raise TimeoutError
            answer = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise EOFError(self.kill(wait=True)) from error
        except BaseException:
            self.kill()
            raise
        if isinstance(answer, Exception):
            self.kill()  # Without memory, libraries do not leave everything as it was.
            raise answer
        return answer

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        try:
            with self._lock:
                if self._stopped:
                    raise EOFError
                self._pipe, theirs = spawn.Pipe()
                process = spawn.Process(target=_serve, args=(theirs, self._frontend, self._memory_limit), daemon=True)
                with theirs:  # Once it is closed here, this side's ends with the child.
                    process.start()
                self._process = process
            failure = self._pipe.recv()
        except EOFError as error:
            code = self.kill(wait=True)
            raise DatasetError(
                f"Decoding processes end before they begin (exit code {code}), see their messages above: memory may "
                "have run out. Close other programs, or use fewer --workers."
            ) from error
        if failure:
            self.kill()
            raise DatasetError(f"Files cannot be decoded on this machine, or with this installation: {failure}.")

    def kill(self, wait: bool = False) -> int | None:
        """Ends the child, or waits for its end where it is about to come, and returns its exit code."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        process.join(5.0 if wait else 0.0)
        process.kill()
        process.join()
        self._pipe.close()
        return process.exitcode


def _serve(pipe: Connection, frontend: FrontEnd, memory_limit: int) -> None:
    """Runs functions in a child process: says what is wrong or "", then sends a result or an error for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what an interruption ends.
    set_up_worker()
    try:
        log_mel(np.zeros(frontend.n_fft, np.float32), frontend)  # Loads what is loaded late, outside of the limits.
        limit_memory(memory_limit)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".rstrip("."))
        return
    pipe.send("")
    gc.freeze()  # What stays need not be looked at again.
    with contextlib.suppress(EOFError, ConnectionError):  # The parent has ended, or wants no more.
        while True:
            gc.collect()  # What the file before has left behind counts, too.
            function, arguments, options = pipe.recv()
            try:
                pipe.send(function(*arguments, **options))
            except MemoryError:
                pipe.send(MemoryError())
            except DatasetError as error:
                pipe.send(error)


def rejected(video: Video, split: str, reason: str) -> Outcome:
    """The outcome of a video that cannot be used."""
    return Outcome(video.video_id, video.source_id, split, video.path, video.labels, REJECTED, reason)
