"""Decoding in child processes: a decoder that hangs or crashes costs one file. Needs neither TensorFlow nor JAX."""

import multiprocessing
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pebble

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.extraction import Record, extract
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.outcomes import REJECTED, Outcome
from avshare_jax.data.sources.listing import Video
from avshare_jax.data.workers import set_up_worker


class DecodingProcesses:
    """Processes that turn media files into records; one that hangs or dies is replaced."""

    def __init__(
        self,
        workers: int,
        frontend: FrontEnd,
        *,
        jpeg_quality: int,
        min_seconds: float,
        max_seconds: float,
        time_limit: float,
    ):
        """Starts them.

        Args:
          workers: number of processes.
          frontend: of the records.
          jpeg_quality: as for `extraction.extract`.
          min_seconds: the same.
          max_seconds: the same.
          time_limit: seconds after which a file that is still being decoded is rejected.
        """
        spawn = multiprocessing.get_context("spawn")
        self._pool = pebble.ProcessPool(workers, context=spawn, initializer=set_up_worker)
        self._frontend, self._time_limit = frontend, time_limit
        self._options: dict[str, Any] = {
            "jpeg_quality": jpeg_quality,
            "min_seconds": min_seconds,
            "max_seconds": max_seconds,
        }

    def stop(self) -> None:
        """Ends the processes."""
        self._pool.stop()
        self._pool.join()

    def start(self, video: Video, split: str) -> Future:
        """Has a file decoded; `finish` takes what this returns."""
        return self._pool.schedule(extract, (video, split, self._frontend), self._options, timeout=self._time_limit)

    def finish(self, future: Future, video: Video, split: str) -> tuple[Record | None, Outcome]:
        """Waits for the record of a file and its outcome; the record is None where it was rejected.

        Raises:
          DatasetError: no process can be started.
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise DatasetError(
                "Decoding processes end before they begin, see their messages above: memory may have run out."
            ) from error
        except FutureTimeoutError:
            reason = f"Decoding it takes longer than {self._time_limit:g} s."
        except pebble.ProcessExpired as error:
            reason = (
                f"Decoding it ended the process (exit code {error.exitcode}): it crashes the decoder or memory ran out."
            )
        return None, rejected(video, split, reason)


def rejected(video: Video, split: str, reason: str) -> Outcome:
    """The outcome of a video that cannot be used."""
    return Outcome(video.video_id, video.source_id, split, video.path, video.labels, REJECTED, reason)
