"""Profiles of training steps, as chosen on the command line or asked for while a run is going on.

    main.py --profile_steps=100:105      the steps 100 to 105
    touch WORKDIR/profile                the next few steps of a run that is going on; again, for others

Each process writes its own, to WORKDIR/profiles/step_100/ (of several processes, process_I in it).
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from etils import epath

from avshare_jax.settings import UserError, reason
from avshare_jax.training.goodput import PROFILES, Goodput
from avshare_jax.training.step import Metrics

REQUESTED_STEPS = 5
"""How many steps a touched file asks for."""

STEPS_BETWEEN_LOOKS = 10
"""How often processes look at that file: at multiples of it, so that all of them profile the same steps."""


class Profiles:
    """Captures profiles of the steps that were asked for. Where that fails, it says so, and training goes on."""

    def __init__(
        self,
        workdir: epath.PathLike,
        goodput: Goodput,
        start_step: int,
        total_steps: int,
        steps: tuple[int, int] | None = None,
    ):
        """Asks for steps, and listens for more.

        Args:
          workdir: of the run.
          goodput: is told of the time that profiles take.
          start_step: the step that the run goes on from.
          total_steps: the last step of the run.
          steps: the first and the last that are asked for.
        """
        self._workdir, self._goodput = epath.Path(workdir), goodput
        self._ranges: list[tuple[int, int]] = []  # Still to come, or going on.
        if steps and start_step < steps[1] and steps[0] <= total_steps:
            self._ranges.append(steps)
        elif steps:
            print(
                f"There will be no profile of the steps {steps[0]} to {steps[1]}: the run takes the steps "
                f"{start_step + 1} to {total_steps}.",
                flush=True,
            )
        self._request: float | None = None
        self._request = self._requested_at()
        # Of the profile that is being captured: where it is, and its first and last step.
        self._local: tempfile.TemporaryDirectory | None = None
        self._first = self._last = 0

    def __enter__(self) -> "Profiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._local:  # The run has ended before its last step.
            self._stop()

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around the call that dispatches a step."""
        if step % STEPS_BETWEEN_LOOKS == 0:
            self._look(step)
        if not self._local and (lasts := [last for first, last in self._ranges if first <= step <= last]):
            self._start(step, max(lasts))
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def finish(self, step: int, metrics: Metrics) -> None:
        """After that call; `metrics` are what the step computes, which is waited for where it is the last one."""
        if self._local and step >= self._last:
            jax.block_until_ready(metrics)
            self._stop()

    def _look(self, step: int) -> None:
        """Notices that the file was touched. Nobody removes it: all processes are to see it."""
        if (request := self._requested_at()) != self._request:
            self._request = request
            if request is not None:
                self._ranges.append((step, step + REQUESTED_STEPS - 1))

    def _requested_at(self) -> float | None:
        path = self._workdir / "profile"
        try:
            if not path.exists():
                return None
            # `epath` looks up the name of the owner, whom containers may not know.
            return path.stat().mtime if "://" in os.fspath(path) else os.path.getmtime(path)
        except FileNotFoundError:  # Removed in between.
            return None
        except Exception:  # Storage that does not answer, with errors of its own libraries: the next look will tell.
            return self._request

    def _start(self, first: int, last: int) -> None:
        """Begins to capture, in a folder of this machine: JAX can make its file for Perfetto in no other."""
        with self._goodput.during(PROFILES):
            try:
                self._local = tempfile.TemporaryDirectory(prefix="profile_", ignore_cleanup_errors=True)
                jax.profiler.start_trace(self._local.name, create_perfetto_trace=True)
                self._first, self._last = first, last
            except Exception as error:  # Whatever profilers raise: a run does not end over it.
                print(f"No profile of step {first} can be captured ({reason(error)}). Training goes on.", flush=True)
                self._forget(last)

    def _stop(self) -> None:
        folder = self._workdir / "profiles" / f"step_{self._first}"
        if jax.process_count() > 1:
            folder = folder / f"process_{jax.process_index()}"
        with self._goodput.during(PROFILES):
            try:
                jax.profiler.stop_trace()
                _copy_files(Path(self._local.name), folder)
                print(
                    f"A profile is in {folder}: open its perfetto_trace.json.gz at https://ui.perfetto.dev, or run "
                    f"`pip install xprof` and `xprof {folder}`.",
                    flush=True,
                )
            except Exception as error:  # Whatever profilers and cloud storage raise: a run does not end over it.
                print(f"The profile in {folder} cannot be written ({reason(error)}). Training goes on.", flush=True)
            self._forget(self._last)

    def _forget(self, last: int) -> None:
        """Removes the local folder, and ranges up to the step `last`."""
        if self._local:
            self._local.cleanup()
        self._local = None
        self._ranges = [steps for steps in self._ranges if steps[1] > last]


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """Parses `FIRST:LAST`, two numbers of steps, both included; `UserError` where it is something else."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile_steps={text} must be FIRST:LAST, two steps in this order, such as 100:105.")
    return int(match[1]), int(match[2])


def _copy_files(source: Path, target: epath.Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / str(path.relative_to(source))
            copy.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(path).copy(copy, overwrite=True)
