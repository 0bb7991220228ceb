"""Where metrics go: WORKDIR/metrics.jsonl (one object per logged step), TensorBoard, and a line on the console."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import replace_text
from avshare_jax.training.goodput import CHECKPOINTS, INPUT, Goodput, goodput_share
from avshare_jax.training.optimizer import learning_rate_schedule

MOST_WAITING = 0.02
"""Share of the time that devices may wait for data before a run says so."""


class Reporter:
    """Reports finished steps to the console and, from process 0, to files; ends a run whose loss stays not finite."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: epath.PathLike,
        start_step: int,
        shown_metrics: Sequence[str],
        measure_input: Callable[[], Mapping[str, float]],
        goodput: Goodput,
    ):
        """Opens the files and starts the clock; see `MetricsFiles` for what a resumed run drops."""
        self._config, self._workdir, self._shown, self._measure_input = config, workdir, shown_metrics, measure_input
        self._schedule = learning_rate_schedule(config.optimizer, config.total_steps)
        self._goodput = goodput
        self._files = MetricsFiles(workdir, start_step) if jax.process_index() == 0 else None
        self._progress = Progress(start_step, config.total_steps, config.batch_size * config.data.num_clips, goodput)
        self._waiting_in_a_row, self._said_waiting = 0, False

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._files:
            self._files.close()

    def report(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Reports a step; waits until it is computed.

        Raises:
          UserError: `config.max_nonfinite_steps` updates in a row, up to this one, were skipped.
        """
        skipped_in_a_row = int(metrics["skipped_in_a_row"])
        self._goodput.finish_step(step, skipped=skipped_in_a_row > 0)
        self._check_finite(step, skipped_in_a_row)
        config = self._config
        if not self._files or not (step == 1 or step % config.log_every == 0 or step == config.total_steps):
            return
        values = {name: float(value) for name, value in sorted(jax.device_get(dict(metrics)).items())}
        # The schedule counts updates, not steps.
        values["learning_rate"] = float(self._schedule(max(step - 1 - values["skipped"], 0)))
        values.update(self._measure_input())
        values.update(self._progress.measure(step))
        self._files.write(step, values)
        print(console_line(step, config.total_steps, values, self._shown), flush=True)
        self._check_input(values["data_wait_share"])

    def _check_input(self, share: float) -> None:
        """Says once that reading does not keep up: when it did not between two logged steps in a row."""
        self._waiting_in_a_row = self._waiting_in_a_row + 1 if share > MOST_WAITING else 0
        if self._waiting_in_a_row == 2 and not self._said_waiting:
            self._said_waiting = True
            workers, cores = self._config.data.num_workers, os.cpu_count() or 1
            print(slow_input(share, workers, cores, jax.default_backend()), flush=True)

    def _check_finite(self, step: int, skipped_in_a_row: int) -> None:
        limit = self._config.max_nonfinite_steps
        if skipped_in_a_row >= limit:
            raise UserError(
                f"The loss or its gradient was not finite for {skipped_in_a_row} steps in a row, up to step {step}, "
                "and nothing was learned from them: lower config.optimizer.learning_rate, or see the steps before in "
                f"{epath.Path(self._workdir) / 'metrics.jsonl'}."
            )
        if skipped_in_a_row:
            print(
                f"step {step}: the loss or its gradient is not finite; update skipped "
                f"({skipped_in_a_row} in a row, the run ends at {limit})",
                flush=True,
            )


class MetricsFiles:
    """Writes the metrics of logged steps to `metrics.jsonl` and to TensorBoard files under `tensorboard/`."""

    def __init__(self, workdir: epath.PathLike, start_step: int):
        """Opens the files; lines after `start_step`, where a resumed run goes on, are dropped from `metrics.jsonl`."""
        path = epath.Path(workdir) / "metrics.jsonl"
        replace_text(path, "".join(kept_lines(path, start_step)))
        self._lines = path.open("a")
        self._folder, self._summaries = epath.Path(workdir) / "tensorboard", None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one step's values; those that are not finite become null in `metrics.jsonl`."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        # The library brings in TensorFlow, which takes seconds: not before the first step is on its way.
        self._summaries = self._summaries or open_summaries(self._folder)
        self._summaries.write_scalars(step, values)
        self._summaries.flush()

    def close(self) -> None:
        """Writes what is buffered."""
        self._lines.close()
        if self._summaries:
            self._summaries.close()


def open_summaries(folder: epath.PathLike) -> Any:
    """Returns a writer of TensorBoard files in `folder`, clu's `SummaryWriter`; it imports TensorFlow."""
    from clu import metric_writers

    return metric_writers.SummaryWriter(str(folder))


def kept_lines(path: epath.Path, last_step: float = math.inf) -> list[str]:
    """Returns the lines of a `metrics.jsonl` up to `last_step`; lines that were cut short or damaged are left out."""
    lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n") and _step_of(line) <= last_step]


def _step_of(line: str) -> float:
    """The step of a line; NaN, which is never up to another one, where it has none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.nan
    return step if type(step) is int else math.nan


class Progress:
    """Measures how fast a run goes, how long it will take, and what its time goes into."""

    def __init__(self, start_step: int, total_steps: int, clips_per_step: int, goodput: Goodput):
        """Starts the clock at `start_step`."""
        self._total_steps, self._clips_per_step, self._goodput = total_steps, clips_per_step, goodput
        self._first = self._last = (start_step, time.monotonic())
        self._first_seconds = self._last_seconds = goodput.of_this_process()

    def measure(self, step: int) -> dict[str, float]:
        """Measures up to `step`.

        Returns:
          `clips_per_second` since the last call; `eta_seconds`; shares (0 to 1): `data_wait_share`, of the time since
          the last call in which devices waited for data, `checkpoint_share`, of the time since training began in which
          it stood still to save, and `goodput_share`, of the run's time over all restarts in steps that count.
        """
        now, seconds, run = time.monotonic(), self._goodput.of_this_process(), self._goodput.of_run()
        last_step, last_time = self._last
        elapsed = max(now - last_time, 1e-9)
        first_step, first_time = self._first
        seconds_per_step = (now - first_time) / max(step - first_step, 1)
        measured = {
            "clips_per_second": (step - last_step) * self._clips_per_step / elapsed,
            "data_wait_share": (seconds.get(INPUT, 0.0) - self._last_seconds.get(INPUT, 0.0)) / elapsed,
            "checkpoint_share": (seconds.get(CHECKPOINTS, 0.0) - self._first_seconds.get(CHECKPOINTS, 0.0))
            / max(now - first_time, 1e-9),
            "goodput_share": goodput_share(run),
            "eta_seconds": (self._total_steps - step) * seconds_per_step,
        }
        self._last, self._last_seconds = (step, now), seconds
        return measured


def console_line(step: int, total_steps: int, values: Mapping[str, float], shown: Sequence[str]) -> str:
    """Formats one logged step: progress, loss, the metrics in `shown` that there are, speed, share of waiting, ETA."""
    learned = "  ".join(f"{name} {values[name]:.3f}" for name in ("loss", *shown) if name in values)
    return (
        f"step {step:{len(str(total_steps))}d}/{total_steps}  {learned}  | {values['clips_per_second']:.3g} clips/s, "
        f"{values['data_wait_share']:.0%} waiting for data, ETA {duration(values['eta_seconds'])}"
    )


def slow_input(share: float, num_workers: int, cores: int, backend: str) -> str:
    """Says that reading does not keep up, and what can be done.

    Args:
      share: of the time that devices waited for data, 0 to 1.
      num_workers: `config.data.num_workers`.
      cores: of this machine.
      backend: "cpu" where the same cores also train.
    """
    readers = f"{num_workers} worker process{'es' * (num_workers != 1)}" if num_workers else "threads of this process"
    if backend != "cpu" and num_workers < cores:
        advice = f"Of its {cores} cores, more can read: raise config.data.num_workers"
    elif backend != "cpu":
        advice = f"It has no more cores than that ({cores}): use one that has, or fewer or smaller frames"
    else:
        advice = f"Its {cores} core{'s' * (cores != 1)} also train, so that more readers may slow that down"
    return (
        f"Reading does not keep up: since the last logged step, devices waited for data {share:.0%} of the time, more "
        f"than the {MOST_WAITING:.0%} to be expected where the cores suffice. This machine reads with {readers} "
        f"(config.data.num_workers={num_workers}). {advice}."
    )


def duration(seconds: float) -> str:
    """Formats seconds as `45s`, `3m05s` or `2h07m`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds // 60 % 60:02d}m"
