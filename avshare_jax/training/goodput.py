"""Goodput: the share of a run's wall time that went into steps which survive, and what the rest went into.

WORKDIR/goodput.jsonl gets a line whenever steps are saved, and every half minute between. It is appended to by each
process that trains the run, one after the other, so that it tells of all restarts. Process 0 writes it.

    {"process": 1764033545.1, "start_step": 300, "step": 340, "seconds": {"steps": 14.2, "input": 0.3}}

`process` is when that process started (Unix time), `start_step` the step of the checkpoint that it goes on from, `step`
the last one that is done, and `seconds` what was spent on each cause since its line before.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import psutil
from etils import epath

from avshare_jax.settings import reason

START_UP, DATASET, RESTORE, COMPILATION = "start-up", "data set", "restore", "compilation"
STEPS, INPUT, CHECKPOINTS, PROFILES = "steps", "input", "checkpoints", "profiles"
SKIPPED, LOST, DOWNTIME = "skipped", "lost", "downtime"

CAUSES = {
    STEPS: "in steps that count",
    START_UP: "imports, devices, finding the other processes",
    DATASET: "opening the data set (the demo's is made first), up to the first batch",
    COMPILATION: "compiling the step and the initialization",
    RESTORE: "reading the checkpoint",
    INPUT: "devices waiting for the next batch",
    CHECKPOINTS: "training stopped for saving",
    PROFILES: "training stopped for writing profiles",
    SKIPPED: "in steps whose gradient was not finite",
    LOST: "in steps that a restart repeated",
    DOWNTIME: "no process, or one that was killed before it noted its last seconds",
}
"""All that wall time goes into, with a description; the first is goodput."""

SECONDS_BETWEEN_LINES = 30.0

Interval = tuple[int, int, dict[str, float]]
"""The steps after the first number, up to the second, and what they took in seconds by `STEPS` and `SKIPPED`."""


class Goodput:
    """What the time of this process goes into, and, once `open` was called, that of all processes of the run.

    The time from one call of `turn_to` to the next belongs to the cause that it named. Time in steps belongs to a step
    only when `finish_step` says that the step is done.
    """

    def __init__(
        self,
        process_started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ):
        """Begins with `START_UP`.

        Args:
          process_started: when the process was started (Unix time); by default, now.
          clock: seconds that never jump.
          wall_clock: Unix time.
        """
        self._clock, self._last, self._cause = clock, clock(), START_UP
        now = wall_clock()
        self._process = now if process_started is None else process_started
        self._seconds = {START_UP: max(now - self._process, 0.0)}
        self._written: dict[str, float] = {}
        self._of_step = 0.0  # In the step that is not done.
        self._path: epath.Path | None = None
        self._before: dict[str, float] = {}
        self._start_step = self._step = 0
        self._unreadable_end = False  # Of the file: a line was cut short by a kill or a full disk.
        self._failing = False  # The last attempt to write has failed.
        self._writer: threading.Thread | None = None
        self._closing = threading.Event()
        # Steps take the first one; only who writes takes the second, for as long as storage takes.
        self._lock, self._file_lock = threading.Lock(), threading.Lock()

    @classmethod
    def of_process(cls) -> "Goodput":
        """From when this process was started, so that imports count."""
        return cls(psutil.Process().create_time())

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the last line, and says how it was, where `open` was called."""
        self._closing.set()
        if self._writer:
            self._writer.join()  # No line of its comes after the last one.
        if self._path:
            self.write(done=kind is None)
            print(describe(self.of_run()), flush=True)

    def turn_to(self, cause: str) -> None:
        """What follows belongs to `cause`, one of `CAUSES`."""
        with self._lock:
            self._account()
            self._cause = cause

    @contextmanager
    def during(self, cause: str) -> Iterator[None]:
        """What is inside belongs to `cause`; what follows, to the same as before."""
        before = self._cause
        self.turn_to(cause)
        try:
            yield
        finally:
            self.turn_to(before)

    def move(self, cause: str, seconds: float) -> None:
        """Takes seconds off the step that is going on: they belong to `cause`."""
        with self._lock:
            self._of_step -= seconds
            self._seconds[cause] = self._seconds.get(cause, 0.0) + seconds

    def finish_step(self, step: int, skipped: bool) -> None:
        """Says that a step is done, and whether its update was skipped; what was spent in steps belongs to it."""
        with self._lock:
            self._account()
            cause = SKIPPED if skipped else STEPS
            self._seconds[cause] = self._seconds.get(cause, 0.0) + self._of_step
            self._of_step, self._step = 0.0, step

    def open(self, workdir: epath.PathLike, start_step: int) -> None:
        """Reads what the run's earlier processes wrote, and writes from now on, in a thread and with `write`.

        Args:
          workdir: of the run.
          start_step: of the checkpoint that this process goes on from. Where that turns out damaged, call it again.
        """
        path = epath.Path(workdir) / "goodput.jsonl"
        lines = [line for line in read_lines(path) if line["process"] != self._process]
        opening = {"process": self._process, "start_step": start_step, "step": start_step, "seconds": {}}
        self._before = summarize([*lines, opening])
        with self._lock:
            first, self._path = self._path is None, path
            self._start_step = self._step = start_step
        if first and jax.process_index() == 0:
            self._unreadable_end = path.exists() and not path.read_text().endswith("\n")
            self._writer = threading.Thread(target=self._write_regularly, daemon=True)
            self._writer.start()
        self.write()

    def write(self, done: bool = False) -> None:
        """Appends a line with what has come since the last; `done` says that the run has all its steps.

        Where that fails, it says so, and a later line tells what this one would have: a run does not end over it.
        """
        if not self._path or jax.process_index() > 0:
            return
        with self._file_lock:
            with self._lock:
                self._account()
                new = {cause: round(s - self._written.get(cause, 0.0), 3) for cause, s in self._seconds.items()}
                new = {cause: seconds for cause, seconds in new.items() if seconds}
                line = {"process": self._process, "start_step": self._start_step, "step": self._step, "seconds": new}
            text = json.dumps(line | ({"done": True} if done else {})) + "\n"
            try:
                self._append("\n" + text if self._unreadable_end else text)
            except Exception as error:  # Cloud storage raises errors of its own libraries.
                if not self._failing:
                    print(f"{self._path} cannot be written ({reason(error)}). Training goes on.", flush=True)
                self._failing = self._unreadable_end = True
                return
            self._failing = self._unreadable_end = False
            for cause, seconds in new.items():
                self._written[cause] = self._written.get(cause, 0.0) + seconds

    def of_this_process(self) -> dict[str, float]:
        """Seconds by cause since this process started."""
        with self._lock:
            self._account()
            return dict(self._seconds)

    def of_run(self) -> dict[str, float]:
        """Seconds by cause since the run's first process started, steps that an earlier one lost counted as lost."""
        own = self.of_this_process()
        return {cause: self._before.get(cause, 0.0) + own.get(cause, 0.0) for cause in CAUSES}

    def _account(self) -> None:
        now = self._clock()
        if self._cause == STEPS:
            self._of_step += now - self._last
        else:
            self._seconds[self._cause] = self._seconds.get(self._cause, 0.0) + now - self._last
        self._last = now

    def _append(self, text: str) -> None:
        with self._path.open("a") as file:  # In one piece, so that a kill leaves whole lines or a cut last one.
            file.write(text)

    def _write_regularly(self) -> None:
        while not self._closing.wait(SECONDS_BETWEEN_LINES):
            self.write()


def read_lines(path: epath.Path) -> list[dict[str, Any]]:
    """Reads a goodput.jsonl; none where there is no such file. Lines that were cut short or damaged are left out."""
    lines = []
    for text in path.read_bytes().decode(errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            numbers = [line["process"], line["start_step"], line["step"], *line["seconds"].values()]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        if all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            lines.append(line)
    return lines


def summarize(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Adds up the lines of a goodput.jsonl, in the order in which they were written.

    Time in steps, skipped ones too, is lost when a later process goes on from a step before them. Where that is in the
    middle of a line, its steps count as equally long. Between two processes is downtime, unless the first one was done.

    Returns:
      Seconds by cause, for all of `CAUSES`; their sum is the wall time from the first process to the last line.
    """
    totals = dict.fromkeys(CAUSES, 0.0)
    intervals: list[Interval] = []
    process, end, start_step, step, done = None, 0.0, 0, 0, False
    for line in lines:
        if process is None or line["process"] != process or line["start_step"] != start_step:
            if process is not None and line["process"] != process and not done:
                totals[DOWNTIME] += max(line["process"] - end, 0.0)
            end = line["process"] if line["process"] != process else end
            process, start_step = line["process"], line["start_step"]
            step, intervals = start_step, _forget(intervals, start_step, totals)
        for cause, seconds in line["seconds"].items():
            totals[cause] = totals.get(cause, 0.0) + seconds
            end += seconds
        if line["step"] > step:
            in_steps = {cause: line["seconds"].get(cause, 0.0) for cause in (STEPS, SKIPPED)}
            intervals.append((step, line["step"], in_steps))
        step, done = line["step"], line.get("done", False)
    return totals


def goodput_share(seconds: Mapping[str, float]) -> float:
    """Share (0 to 1) of steps that count in all seconds by cause."""
    return seconds.get(STEPS, 0.0) / max(sum(seconds.values()), 1e-9)


def describe(seconds: Mapping[str, float]) -> str:
    """One line: goodput, and what the rest went into, the greatest first."""
    total = max(sum(seconds.values()), 1e-9)
    rest = sorted(((s, cause) for cause, s in seconds.items() if cause != STEPS and s >= 0.0005 * total), reverse=True)
    causes = ", ".join(f"{cause} {s / total:.1%}" for s, cause in rest)
    share = f"Goodput: {goodput_share(seconds):.1%} of {total:,.0f} s were steps that count"
    return f"{share}; {causes}." if causes else f"{share}."


def _forget(intervals: list[Interval], start_step: int, totals: dict[str, float]) -> list[Interval]:
    """Moves the time of steps after `start_step` to `LOST`; returns the intervals that are left."""
    left = []
    for first, last, seconds in intervals:
        share = min(max(last - start_step, 0) / (last - first), 1.0)
        for cause, of_cause in seconds.items():
            totals[cause] -= of_cause * share
            totals[LOST] += of_cause * share
        if first < start_step:
            kept = {cause: of_cause * (1 - share) for cause, of_cause in seconds.items()}
            left.append((first, min(last, start_step), kept))
    return left
