"""Draws the training curves of several runs, a panel each, and prints a table of them.

    python -m avshare_jax.evaluation.curves runs/variants/* --output=docs/variants.png

A panel is called as the run's folder. Dotted: the loss of guessing, at which an untrained network starts. The table, in
Markdown, has the parameters of the Transformers and the loss at the start and the end of the curve, each the mean of a
tenth of the logged steps.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.evaluation.plots import DOTTED, FAINT, INK, TRAINED, smooth
from avshare_jax.evaluation.report import read_metrics
from avshare_jax.outputs import check_file
from avshare_jax.page_style import figure_style, short_name
from avshare_jax.settings import UserError, quiet_libraries
from avshare_jax.training.plan import abstract_batch
from avshare_jax.training.run_config import read_config

COLUMNS = 4


@dataclass(frozen=True)
class Curve:
    """The training curve of a run.

    Attributes:
      name: of the run's folder.
      steps: (N,) that were logged, with a finite loss.
      losses: (N,) of their batches, in nats.
      guessing: loss of a network whose every answer is equally likely.
      parameters: of the Transformers.
    """

    name: str
    steps: np.ndarray
    losses: np.ndarray
    guessing: float
    parameters: int

    @property
    def start(self) -> float:
        """Mean of the first tenth."""
        return float(self.losses[: math.ceil(len(self.losses) / 10)].mean())

    @property
    def end(self) -> float:
        """Mean of the last tenth."""
        return float(self.losses[-math.ceil(len(self.losses) / 10) :].mean())


def read_curve(workdir: epath.PathLike) -> Curve:
    """Reads the curve of a run.

    Args:
      workdir: of a pretraining run, with its config.json and metrics.jsonl.

    Returns:
      The curve.

    Raises:
      UserError: there is no run of pretraining, its config is damaged, or it has logged no step.
    """
    workdir = epath.Path(workdir)
    config = read_config(workdir)
    if "objectives" not in config:
        raise UserError(f"The run {workdir} is of a downstream task: only curves of pretraining are drawn.")
    lines = read_metrics(workdir / "metrics.jsonl")
    rows = [row for row in lines if row.get("loss") is not None and row.get("mep/chance") is not None]
    if not rows:
        raise UserError(f"The run {workdir} has logged no step yet.")
    return Curve(
        name=workdir.name,
        steps=np.array([row["step"] for row in rows]),
        losses=np.array([row["loss"] for row in rows]),
        guessing=loss_of_guessing(config, float(np.mean([row["mep/chance"] for row in rows]))),
        parameters=transformer_parameters(config),
    )


def loss_of_guessing(config: ConfigDict, chance: float) -> float:
    """Loss in nats where each head finds every candidate equally likely.

    Args:
      config: of a pretraining run; its `model.fusion` and the weights in `objectives` are read.
      chance: of finding the masked clip among its negatives.
    """
    options = config.objectives
    heads = models.MEP_HEADS[config.model.fusion]
    weights = sum(options.multimodal_weight if head.startswith("multimodal_") else 1.0 for head in heads)
    return options.masked_weight * weights * -math.log(chance) + options.pair_weight * 2 * math.log(2)


def transformer_parameters(config: ConfigDict) -> int:
    """Number of parameters of a run's Transformers; nothing is computed on a device."""
    network, batch = models.build(config.model), abstract_batch(config)
    shapes = jax.eval_shape(lambda key, batch: network.init(key, batch, train=False), jax.random.key(0), batch)
    return models.parameter_counts(shapes["params"])["transformer"].total


def plot_curves(curves: Sequence[Curve], path: epath.Path) -> None:
    """Draws curves, a panel each, with scales of their own because their losses have different parts.

    Args:
      curves: at least one.
      path: PNG to write.
    """
    columns, rows = min(COLUMNS, len(curves)), math.ceil(len(curves) / COLUMNS)
    with figure_style():
        figure = Figure(figsize=(3.4 * columns, 2.3 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, curve in zip(grid.flat, curves, strict=False):
            _draw_curve(axes, curve)
        for axes in grid.flat[len(curves) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("loss in nats")
        for axes in grid.flat[max(0, len(curves) - columns) : len(curves)]:
            axes.set_xlabel("training step")
        handles = [
            Line2D([], [], color=TRAINED, alpha=0.3, linewidth=0.8, label="as logged"),
            Line2D([], [], color=TRAINED, linewidth=1.8, label="moving average"),
            Line2D([], [], color=INK, linewidth=1, linestyle=DOTTED, label="guessing"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        with path.open("wb") as file:
            figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


def _draw_curve(axes: Axes, curve: Curve) -> None:
    axes.plot(curve.steps, curve.losses, color=TRAINED, alpha=0.3, linewidth=0.8)
    axes.plot(curve.steps, smooth(curve.losses, max(1, len(curve.losses) // 20)), color=TRAINED, linewidth=1.8)
    axes.axhline(curve.guessing, color=INK, linewidth=1, linestyle=DOTTED)
    axes.set_title(short_name(curve.name), fontsize=10)
    axes.set_xlim(0, None)
    axes.text(
        0.98, 0.96, f"{curve.start:.2f} → {curve.end:.2f}", transform=axes.transAxes, ha="right", va="top", color=FAINT
    )
    axes.margins(y=0.15)


def format_table(curves: Sequence[Curve]) -> str:
    """Formats the curves as a table in Markdown."""
    lines = ["| run | parameters of the Transformers | loss, start → end | guessing |", "|---|---|---|---|"]
    lines += [
        f"| {curve.name} | {curve.parameters:,} | {curve.start:.2f} → {curve.end:.2f} | {curve.guessing:.2f} |"
        for curve in curves
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m avshare_jax.evaluation.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", type=os.path.expanduser, help="of a run")
    parser.add_argument("--output", required=True, metavar="FILE.png", type=os.path.expanduser, help="file to write")
    options = parser.parse_args(arguments)
    quiet_libraries()
    try:
        check_file(options.output)
        curves = [read_curve(workdir) for workdir in options.workdirs]
        plot_curves(curves, epath.Path(options.output))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {options.output} cannot be written: {error.strerror or error}.")
    print(format_table(curves))


if __name__ == "__main__":
    main()
