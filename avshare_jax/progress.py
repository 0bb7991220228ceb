"""How far long work has come, for whoever watches the console."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class ProgressLine:
    """Shows how far a count of things has come, at which rate, and when it will be done; on stderr."""

    def __init__(self, noun: str, seconds_between_lines: float = 10.0):
        self._noun = noun
        self._terminal = sys.stderr.isatty()
        self._pause = 0.2 if self._terminal else seconds_between_lines
        self._start = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Shows the count, unless it was shown a moment ago; the rate is that since the first call."""
        now = time.monotonic()
        # What comes before the first thing is done, such as starting processes, says nothing about the rest.
        first_done, first_time = self._first = self._first or (done, now)
        if done < total and now - self._last < self._pause:
            return
        self._last = now
        line = f"{self._noun}: {done} of {total}"
        if done == total:
            line += f", took {clock(now - self._start)}"
        elif done > first_done:
            rate = (done - first_done) / max(now - first_time, 1e-9)
            line += f", {rate:.1f} a second, ETA {clock((total - done) / rate)}"
        ends = ("\r\x1b[K", "\n" if done == total else "") if self._terminal else ("", "\n")
        print(f"{ends[0]}{line}", end=ends[1], file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Returns a duration as [hours:]minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Prints the name of a part of the evaluation, and at its end how long it took."""
    print(f"{name} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"  took {time.monotonic() - start:.1f} s", flush=True)


def with_progress(
    batches: Iterable[Mapping[str, Any]], num_videos: int, what: str, every: float = 5.0
) -> Iterator[Mapping[str, Any]]:
    """Passes batches on and prints how many of `num_videos` are done and the time left, every few seconds."""
    start = last = time.monotonic()
    done = 0
    for batch in batches:
        yield batch
        done = min(done + len(batch["valid"]), num_videos)
        now = time.monotonic()
        if now - last >= every and done < num_videos:
            print(
                f"  {done} of {num_videos} {what}, {(now - start) / done * (num_videos - done):.0f} s left", flush=True
            )
            last = now
