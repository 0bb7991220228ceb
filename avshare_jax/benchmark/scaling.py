"""What a training step costs with more clips, more videos, and more devices, and the exponents of its growth.

Each size is compiled and trained with random batches, while the other two sizes are those of the config. Devices that
this machine lacks are simulated: in a process of their own, the cores appear as several. Where such sizes ask for it,
the table of positions is longer than the config's, and negatives are as many as there are other clips, if those are
fewer. Sizes that cannot be trained are left out, with a sentence that says why.

An exponent is the slope of a straight line through the logarithms, by least squares, over the upper half of the sizes.
"""

import argparse
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.benchmark.figures import Figures, note, positive, spread
from avshare_jax.benchmark.states import load_pretraining_config, random_batch, random_state
from avshare_jax.benchmark.step import compile_step, count_model
from avshare_jax.data.errors import shortage
from avshare_jax.outputs import check_file
from avshare_jax.page_style import figure_style
from avshare_jax.settings import UserError, reason
from avshare_jax.training.abstract_step import abstract_state_and_batch
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.program import Program
from avshare_jax.training.sharding import check_layout

LIBRARIES = ("matplotlib",)

Curve = list[tuple[int, Figures]]
"""Sizes in ascending order, and what was measured at each."""

THREADS_PER_DEVICE = 4
CNNS, LAYERS, ATTENTION, PAIRS = "CNNs", "other weights", "attention", "clips by clips of the batch"
AXES = {"clips": "clips a video", "videos": "videos a batch", "devices": "devices"}
ONE = {"clips": "1 clip a video", "videos": "1 video a batch", "devices": "1 device"}
COLORS = {CNNS: "#2463a6", LAYERS: "#98a3ae", ATTENTION: "#d9782d", PAIRS: "#6a51a3"}
DRAWN = {
    "seconds a step": "#d9782d",
    "core-seconds a step": "#c0392b",
    "TFLOP of the model": "#2463a6",
    "GB temporary, by the compiler": "#2a8c6f",
    "GB to and from memory": "#6a51a3",
}
"""The figures that get an exponent, and a curve of this color."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    parser.add_argument("--config", default="configs/pretrain.py:demo", help="config file: FILE.py or FILE.py:VARIANT")
    parser.add_argument("--clips", type=sizes, default="2,4,8,16,32,64,128,300", help="of a video; empty: not measured")
    parser.add_argument("--videos", type=sizes, default="2,4,8,16,32", help="of a batch; empty: not measured")
    parser.add_argument("--devices", type=sizes, default="1,2,4", help="that share a batch; empty: not measured")
    parser.add_argument("--steps", type=positive, default=3, help="steps in each turn")
    parser.add_argument("--count_only", action="store_true", help="count the model's operations, and take no steps")
    parser.add_argument("--picture", type=Path, help="file that gets the curves, such as scaling.png")


def sizes(text: str) -> list[int]:
    """Parses numbers that are at least 1, such as 2,4,8; returns each once, in ascending order."""
    return sorted({positive(number) for number in text.split(",") if number})


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Measures each size in `options.repeats` turns of `options.steps` steps, after a first turn."""
    if options.picture and not options.picture.parent.is_dir():
        raise UserError(f"--picture={options.picture} is in a folder that does not exist: make it first.")
    if options.picture:
        check_file(options.picture)
    config = load_pretraining_config(options.config)

    @functools.cache  # The curves meet at the config's own size.
    def measure_size(clips: int, videos: int, devices: int) -> Figures:
        note(f"measuring {describe(clips, videos, devices)} ...")
        sized = resize(config, clips, videos)
        taken = {} if options.count_only else measure_on(devices, sized, options.steps, options.repeats)
        return taken | operations(sized)

    curves = {axis: list(measure_curve(config, axis, getattr(options, axis), measure_size)) for axis in AXES}
    if options.picture:
        try:
            draw(curves, options.picture)
        except Exception as error:  # What was measured may have taken hours.
            note(f"{options.picture} could not be drawn ({type(error).__name__}: {reason(error)}).")
    return tabulate(curves)


def measure_curve(
    config: ConfigDict, axis: str, values: Sequence[int], measure_size: Callable[..., Figures]
) -> Iterator[tuple[int, Figures]]:
    """Yields each size along one of `AXES` with its figures; leaves out those that cannot be trained, and says so."""
    for value in values:
        size = {"clips": config.data.num_clips, "videos": config.batch_size, "devices": 1} | {axis: value}
        try:
            yield value, measure_size(**size)
        except UserError as error:
            note(f"left out: {error}")
        except Exception as error:
            if not (sentence := shortage(error)):
                raise
            note(f"left out: {sentence}")


def describe(clips: int, videos: int, devices: int) -> str:
    """A size in words."""
    return f"{videos} videos of {clips} clips on {devices} device{'s' * (devices != 1)}"


def resize(config: ConfigDict, clips: int, videos: int) -> ConfigDict:
    """A config with other numbers of clips and videos.

    Raises:
      UserError: such a batch cannot be trained.
    """
    config = config.copy_and_resolve_references()
    config.batch_size, config.data.num_clips = videos, clips
    config.model.positions = max(config.model.positions, clips + 1)
    options = config.objectives
    others = videos // config.memory.accumulation_steps // options.negative_groups * clips - 1
    options.num_negatives = max(1, min(options.num_negatives, others))
    schema.check(config, (schema.PRETRAINING,))
    return config


def measure_on(devices: int, config: ConfigDict, steps: int, repeats: int) -> Figures:
    """Takes steps on the first devices of this machine, or in a process where its cores appear as several.

    Raises:
      UserError: there are not as many accelerators, or the batch does not divide over the devices.
    """
    there = jax.devices()
    if devices <= len(there):
        return measure_steps(config, make_mesh(config.mesh, there[:devices]), steps, repeats)
    if jax.default_backend() != "cpu":
        raise UserError(f"{devices} devices are more than the {len(there)} that there are.")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure_on_simulated, devices, config, steps, repeats).result()


def measure_on_simulated(devices: int, config: ConfigDict, steps: int, repeats: int) -> Figures:
    """As `measure_on`, in a process that has not asked JAX for its devices yet."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    # XLA's threads. What waits for another device holds one, and with too few of them all wait for each other.
    os.environ["NPROC"] = str(max(os.cpu_count() or 1, THREADS_PER_DEVICE * devices))
    return measure_steps(config, make_mesh(config.mesh, jax.devices()[:devices]), steps, repeats)


def measure_steps(config: ConfigDict, mesh: Mesh, steps: int, repeats: int) -> Figures:
    """Compiles the step of a config and takes turns of some steps; figures of memory are those of one device."""
    check_layout(config, mesh)
    state, batch = abstract_state_and_batch(config, mesh)
    step = compile_step(config, mesh, state, batch)
    planned, traffic = step.memory_analysis(), Program.parse(step.as_text()).traffic()
    batch = jax.device_put(random_batch(batch), {name: x.sharding for name, x in batch.items()})
    state = random_state(state)
    seconds, core_seconds = [], []
    for _ in range(1 + repeats):
        started, busy = time.monotonic(), time.process_time()
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append((time.monotonic() - started) / steps)
        core_seconds.append((time.process_time() - busy) / steps)
    on_cores = mesh.devices.flat[0].platform == "cpu"
    return {
        **spread("seconds a step", seconds[1:]),
        **(spread("core-seconds a step", core_seconds[1:]) if on_cores else {}),
        "GB to and from memory": sum(moved for _, moved in traffic) / 1e9,
        "GB of arguments, by the compiler": planned.argument_size_in_bytes / 1e9,
        "GB temporary, by the compiler": planned.temp_size_in_bytes / 1e9,
    }


def operations(config: ConfigDict) -> Figures:
    """Operations of the model in a step, of all videos, and of its parts."""
    counts = dict.fromkeys(COLORS, 0)
    for source, number in count_model(config).items():
        counts[part_of(source)] += number
    figures = {"TFLOP of the model": sum(counts.values()) / 1e12}
    return figures | {f"TFLOP, {part}": number / 1e12 for part, number in counts.items()}


def part_of(source: str) -> str:
    """Which of the parts in `COLORS` an operation belongs to, by where in the program it is."""
    if "visual_cnn" in source or "audio_cnn" in source:
        return CNNS
    if "hqk" in source:  # The products of queries with keys, and of their weights with values.
        return ATTENTION
    # What is outside of the network compares masked clips with all clips: distances for negatives, and scores.
    return LAYERS if "PretrainingNetwork" in source else PAIRS


def tabulate(curves: Mapping[str, Curve]) -> dict[str, Figures]:
    """Sections of the table: every size, the exponents of each curve, and where the CNNs are overtaken."""
    results = {}
    for axis, curve in curves.items():
        results |= {ONE[axis] if value == 1 else f"{value} {AXES[axis]}": figures for value, figures in curve}
        if len(curve) > 1:
            fitted = ", ".join(str(value) for value, _ in upper_half(curve))
            results[f"exponents by {AXES[axis]}, over {fitted}"] = exponents(curve)
    if curves["clips"]:
        results["clips a video from which there are more operations than in the CNNs"] = crossings(curves["clips"])
    return results


def upper_half(curve: Curve) -> Curve:
    """The larger sizes, half of all or one more, and at least two."""
    return curve[-max(2, math.ceil(len(curve) / 2)) :]


def exponents(curve: Curve) -> Figures:
    """The exponent of every figure in `DRAWN` that the sizes have."""
    points = upper_half(curve)
    return {
        name: exponent([value for value, _ in points], [figures[name] for _, figures in points])
        for name in DRAWN
        if all(figures.get(name) for _, figures in points)
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The k of the y = c x^k that is nearest to the points by their logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def crossings(curve: Curve) -> Figures:
    """Where what grows with the square of the clips overtakes the CNNs, whose operations grow with their number.

    Reckoned from the largest size, at which the square is purest.
    """
    clips, figures = curve[-1]
    squares = {ATTENTION: (ATTENTION,), PAIRS: (PAIRS,), "both together": (ATTENTION, PAIRS)}
    return {
        name: clips * figures[f"TFLOP, {CNNS}"] / sum(figures[f"TFLOP, {part}"] for part in parts)
        for name, parts in squares.items()
    }


def draw(curves: Mapping[str, Curve], path: Path) -> None:
    """Draws the curves of each axis relative to their smallest size, and operations by clips for each part."""
    with figure_style():
        figure = Figure(figsize=(13.5, 8.4), layout="constrained")
        panels = figure.subplots(2, 2)
        for axes, (axis, curve) in zip(panels.flat, curves.items(), strict=False):
            draw_growth(axes, axis, curve)
        draw_parts(panels[1, 1], curves["clips"])
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        figure.savefig(path, dpi=120)


def draw_growth(axes: Axes, axis: str, curve: Curve) -> None:
    """Draws every figure of `DRAWN` as a multiple of that of the smallest size."""
    growth = exponents(curve) if len(curve) > 1 else {}
    for name, color in DRAWN.items():
        if not curve or not all(figures.get(name) for _, figures in curve):
            continue
        values = [figures[name] / curve[0][1][name] for _, figures in curve]
        label = f"{name}: exponent {growth[name]:z.2f}" if name in growth else name
        axes.plot([value for value, _ in curve], values, "o-", color=color, markersize=4, label=label)
    axes.set(title=f"By {AXES[axis]}", xlabel=AXES[axis], ylabel="times as much as at the left")
    scale(axes, [value for value, _ in curve])


def draw_parts(axes: Axes, curve: Curve) -> None:
    """Draws the operations of every part by clips."""
    for part, color in COLORS.items():
        values = [figures[f"TFLOP, {part}"] for _, figures in curve]
        axes.plot([clips for clips, _ in curve], values, "o-", color=color, markersize=4, label=part)
    axes.set(title="Operations by part", xlabel=AXES["clips"], ylabel="TFLOP a step")
    scale(axes, [clips for clips, _ in curve])


def scale(axes: Axes, values: Sequence[Any]) -> None:
    """Makes both axes logarithmic, with a tick at each size, and names the curves."""
    if not values:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(values, labels=[str(value) for value in values])
    axes.yaxis.set_major_formatter("{x:g}")  # Matplotlib's own would write formulas.
    axes.minorticks_off()
    axes.legend()
