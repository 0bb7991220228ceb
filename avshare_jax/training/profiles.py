"""Profiles of training steps, as chosen on the command line or asked for while a run is going on.

    main.py --profile_steps=100:105      the steps 100 to 105
    touch WORKDIR/profile                the next few steps of a run that is going on; again, for others

Each process writes its own, to WORKDIR/profiles/step_100/ (of several processes, process_I in it).
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from etils import epath

from avshare_jax.settings import UserError
from avshare_jax.training.step import Metrics

REQUESTED_STEPS = 5
"""How many steps a touched file asks for."""

SECONDS_BETWEEN_LOOKS = 5.0
"""How often a process looks at that file; on cloud storage this takes some milliseconds."""


class Profiles:
    """Captures profiles of the steps that were asked for."""

    def __init__(self, workdir: epath.PathLike, steps: tuple[int, int] | None = None):
        """Asks for the steps from the first to the last of `steps`, both included, and listens for more."""
        self._workdir, self._steps = epath.Path(workdir), steps
        self._request = self._requested_at()
        self._looked = time.monotonic()
        self._folder: epath.Path | None = None  # Of the profile that is being captured.

    def __enter__(self) -> "Profiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:  # The run has ended before its last step.
            self._stop()

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around the call that dispatches a step."""
        if not self._folder:
            self._look(step)
            if self._steps and self._steps[0] <= step <= self._steps[1]:
                self._start(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def finish(self, step: int, metrics: Metrics) -> None:
        """After that call; `metrics` are what the step computes, which is waited for where it is the last one."""
        if self._folder and step >= self._steps[1]:
            jax.block_until_ready(metrics)
            self._stop()

    def _look(self, step: int) -> None:
        """Notices that the file was touched. Nobody removes it: all processes are to see it."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        if (request := self._requested_at()) != self._request:
            self._request = request
            if request is not None:
                self._steps = (step, step + REQUESTED_STEPS - 1)

    def _requested_at(self) -> float | None:
        path = self._workdir / "profile"
        try:
            return path.stat().mtime if path.exists() else None
        except FileNotFoundError:  # Removed in between.
            return None

    def _start(self, step: int) -> None:
        self._folder = self._workdir / "profiles" / f"step_{step}"
        if jax.process_count() > 1:
            self._folder = self._folder / f"process_{jax.process_index()}"
        self._folder.mkdir(parents=True, exist_ok=True)
        jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)

    def _stop(self) -> None:
        folder, self._folder, self._steps = self._folder, None, None
        jax.profiler.stop_trace()
        print(
            f"A profile is in {folder}: open its perfetto_trace.json.gz at https://ui.perfetto.dev, or run "
            f"`pip install xprof` and `xprof {folder}`.",
            flush=True,
        )


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """Parses `FIRST:LAST`, two numbers of steps, both included; `UserError` where it is something else."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile_steps={text} must be FIRST:LAST, two steps in this order, such as 100:105.")
    return int(match[1]), int(match[2])
