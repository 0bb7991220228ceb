"""Figures of a benchmark: medians with their spread, the machine that they were measured on, and their table."""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

Figures = dict[str, float]
"""Name → value. "NAME, least" and "NAME, greatest" belong to the median NAME."""

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def spread(name: str, values: Sequence[float]) -> Figures:
    """The median of some measurements, the least and the greatest."""
    return {name: statistics.median(values), f"{name}, least": min(values), f"{name}, greatest": max(values)}


def timed(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds by `clock` that something takes."""
    started = clock()
    work()
    return clock() - started


def note(text: str) -> None:
    """Tells whoever waits what is being done, on stderr: the table comes at the end."""
    print(text, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """Parses a number that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def not_negative(text: str) -> int:
    """Parses a number that is at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0")
    return number


def describe_machine(libraries: Sequence[str] = ()) -> dict[str, str]:
    """Processor, cores, devices, versions (of further `libraries`, too) and the commit, as text by name."""
    described = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in described if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in dict.fromkeys((*LIBRARIES, *libraries))}
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f} processes",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": commit(),
    }


def commit() -> str:
    """The commit of this code, with "and changes" where files differ from it; "unknown" outside of a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(("git", *arguments), cwd=folder, capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "--short=12", "HEAD").strip() + (" and changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def format_table(machine: Mapping[str, str], results: Mapping[str, Figures]) -> str:
    """The header and one line for each figure; least and greatest stand behind their median."""
    lines = [f"{name:13}{text}" for name, text in machine.items()]
    for section, figures in results.items():
        lines += ["", section]
        for name, value in figures.items():
            if name.endswith((", least", ", greatest")):
                continue
            ends = [figures.get(f"{name}, {end}") for end in ("least", "greatest")]
            between = "" if None in ends else f"   ({ends[0]:,.3g} to {ends[1]:,.3g})"
            lines.append(f"  {name:50}{f'{value:,.0f}' if value >= 1000 else f'{value:.3g}':>10}{between}")
    return "\n".join(lines)
