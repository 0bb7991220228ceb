"""Evaluates the run in a workdir, whatever its task is: one checkpoint, or each as it lands."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.outputs import check_folder
from avshare_jax.settings import UserError, reason
from avshare_jax.training.checkpoints import UnusableCheckpointError, load_config, replace_text, saved_steps
from avshare_jax.training.metrics import open_summaries

Evaluate = Callable[[ConfigDict, epath.PathLike, int | None], Mapping[str, Any]]

NOTHING, END, LEFT_OUT = -1, -2, -3
FOLDERS = ("eval", "report", "tensorboard/eval")
"""Where an evaluation writes, in the workdir."""
NO_MEASURES = ("step", "total_steps", "split", "num_splits", "dataset", "overlap", "views", "parameters")
"""What an evaluation says beside its measures."""


def evaluate_run(config: ConfigDict, workdir: epath.PathLike, step: int | None = None) -> Mapping[str, Any]:
    """Evaluates a checkpoint as its run's task asks.

    Args:
      config: `configs/eval.py`.
      workdir: of the run.
      step: of the checkpoint; None: the last.

    Returns:
      What WORKDIR/eval/STEP.json holds.

    Raises:
      UserError, DatasetError: there is no run or checkpoint, something does not fit, or the workdir cannot be written.
    """
    schema.check(config, (schema.EVALUATION,))
    run_config = load_config(workdir)
    if jax.process_index() == 0:  # The one that writes.
        for folder in FOLDERS:
            check_folder(epath.Path(workdir) / folder)
    if "task" in run_config:
        from avshare_jax.evaluation.classify import evaluate
    else:
        from avshare_jax.evaluation.evaluate import evaluate
    return evaluate(config, workdir, step)


def record(workdir: epath.PathLike, evaluation: Mapping[str, Any]) -> None:
    """Writes measures to TensorBoard files and then to WORKDIR/eval/STEP.json, whose presence says that all are there.

    To be called by process 0 alone, when the measures are printed, and before a report is drawn of them.

    Raises:
      UserError: they cannot be written.
    """
    path = evaluation_file(workdir, evaluation["step"])
    with writing_measures(path):
        write_scalars(workdir, evaluation["step"], dict(scalars(evaluation)))
        path.parent.mkdir(exist_ok=True)
        replace_text(path, json.dumps(evaluation, indent=2) + "\n")


@contextmanager
def writing_measures(path: epath.PathLike) -> Iterator[None]:
    """Raises `UserError` where what has been measured, and printed, cannot be written to a file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"What was measured is printed above, and cannot be written to {path} ({reason(error)})."
        ) from error


def draw(write: Callable[[], epath.Path]) -> None:
    """Writes a report and says where; what fails in that costs the report alone, because measures are written by then.

    Args:
      write: draws the report and returns its page.
    """
    try:
        page = write()
    except Exception as error:  # Anything: of Matplotlib, the names, the disk, or the videos that are read again.
        print(f"The report could not be drawn ({type(error).__name__}: {reason(error)}); no measure is lost.")
    else:
        print(f"Report: {page}")


def scalars(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields name and value of the measures of the trained network that are numbers, and of what they rest on."""
    measures = {name: found for name, found in evaluation.items() if name not in NO_MEASURES}
    for name, value in numbers(measures, ""):
        if "/random/" not in f"/{name}/" and "/ceiling/" not in f"/{name}/":
            yield name, value


def numbers(tree: Any, name: str) -> Iterator[tuple[str, float]]:
    """Yields path and value of all finite numbers in nested dictionaries."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from numbers(value, f"{name}/{key}" if name else str(key))
    elif isinstance(tree, (int, float)) and not isinstance(tree, bool) and np.isfinite(tree):
        yield name, float(tree)


def write_scalars(workdir: epath.PathLike, step: int, values: Mapping[str, float]) -> None:
    """Writes values to WORKDIR/tensorboard/eval/; `OSError` where that is not possible."""
    import tensorflow as tf  # Which the library of summaries brings in.

    try:
        summaries = open_summaries(epath.Path(workdir) / "tensorboard" / "eval")
        summaries.write_scalars(step, values)
        summaries.close()
    except tf.errors.OpError as error:
        raise OSError(reason(error)) from error


def watch(config: ConfigDict, workdir: epath.PathLike, evaluate: Evaluate = evaluate_run) -> None:
    """Evaluates each checkpoint that has no evaluation yet, as it lands, until that of the run's last step is done.

    Training may be killed and go on meanwhile, and so may this: what counts is which checkpoints and which files
    WORKDIR/eval/STEP.json there are. A checkpoint that is removed before its turn, or is damaged, is left out with a
    line.

    Args:
      config: `configs/eval.py`; `poll_seconds` between looks.
      workdir: of the run; it need not be there yet.
      evaluate: evaluates one checkpoint.

    Raises:
      UserError, DatasetError: the run cannot be evaluated, or its last checkpoint has been left out.
    """
    waiting, left_out = False, set()
    while (step := agreed(partial(next_step, workdir, left_out))) not in (END, LEFT_OUT):
        if step == NOTHING:
            if not waiting:
                print(f"Waiting for a checkpoint in {workdir} ...", flush=True)
            waiting = True
            time.sleep(config.poll_seconds)
            continue
        waiting, stamp = False, written_at(workdir, step)
        try:
            evaluate(config, workdir, step)
        except UnusableCheckpointError as error:  # Raised in all processes if in one.
            there = step in saved_steps(workdir)
            removed = f"The checkpoint of step {step} was removed before it was read."
            print(f"Left out: {error}" if there else removed, flush=True)
        left_out.add((step, stamp))
    if step == LEFT_OUT:
        raise UserError(
            f"The run in {workdir} has all of its steps, but the checkpoint of its last one has no evaluation, for the "
            "reason above: once that is mended, evaluate it with eval.py."
        )
    print("The run has all of its steps, and its last checkpoint is evaluated.", flush=True)


def next_step(workdir: epath.PathLike, left_out: set[tuple[int, float]]) -> int:
    """The first step whose checkpoint has its evaluation to come; `NOTHING` for now.

    `END` where all is done, and `LEFT_OUT` where all is done but the last.

    Args:
      workdir: of the run.
      left_out: steps, and when their checkpoints were written, that are not tried again.
    """
    if not (epath.Path(workdir) / "config.json").exists():
        return NOTHING
    # The total before the checkpoints: it may grow while we look.
    total, steps = load_config(workdir).total_steps, saved_steps(workdir)
    for step in steps:
        if not evaluation_file(workdir, step).exists() and (step, written_at(workdir, step)) not in left_out:
            return step
    if not steps or steps[-1] < total:
        return NOTHING
    return END if evaluation_file(workdir, steps[-1]).exists() else LEFT_OUT


def evaluation_file(workdir: epath.PathLike, step: int) -> epath.Path:
    """Where the evaluation of a step is written; only the report may come later."""
    return epath.Path(workdir) / "eval" / f"{step}.json"


def written_at(workdir: epath.PathLike, step: int) -> float:
    """When a checkpoint was written, in seconds; 0 where there is none."""
    try:
        path = epath.Path(workdir) / "checkpoints" / str(step)
        # `epath` looks up the name of the owner, whom containers may not know.
        return path.stat().mtime if "://" in os.fspath(path) else os.path.getmtime(path)
    except FileNotFoundError:  # Training may remove it at any moment.
        return 0.0


def agreed(look: Callable[[], int]) -> int:
    """What process 0 sees, in all processes: files appear at different times to different hosts."""
    step = look() if jax.process_index() == 0 else NOTHING
    return step if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(step)))
