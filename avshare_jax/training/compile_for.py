"""Compiles a config's training step for devices that are not there, and says whether it fits and what limits it.

    python -m avshare_jax.training.compile_for --config=configs/pretrain.py --topology=v5e:4x4

needs `pip install -e '.[compile]'` and no accelerator. It prints memory against the chip's, operations and bytes of a
video, the least time of a step, and what the devices exchange. `--topology=cpu:8` takes simulated devices instead, and
needs nothing.
"""

import importlib.util
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import jax
from absl import flags
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax import schema, settings
from avshare_jax.data.workers import set_up_worker
from avshare_jax.settings import UserError
from avshare_jax.training.abstract_step import abstract_state_and_batch, lower_step
from avshare_jax.training.chips import CHIPS
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.metrics import duration
from avshare_jax.training.program import Collective, Program
from avshare_jax.training.sharding import check_layout

# What takes less memory, in the order in which to try it: field, value until now, and what to set.
REMEDIES = (
    ("memory.remat", "none", "--config.memory.remat=blocks"),
    ("memory.clip_chunks", 1, "--config.memory.clip_chunks=2 or more"),
    ("memory.accumulation_steps", 1, "--config.memory.accumulation_steps=2 or more"),
    ("mesh.clip", 1, "--config.mesh.clip=2 or more, which splits the clips of a video over devices"),
)


class Cost(NamedTuple):
    """What one device needs for a step.

    Attributes:
      seconds_to_compile: on this machine.
      state: bytes of parameters, statistics and the optimizer's state, which the step replaces.
      batch: bytes of its part of the batch.
      temporary: bytes beside these while the step runs.
      code: bytes of the program.
      flops: floating-point operations of convolutions and matrix products, recomputation included.
      traffic: bytes to and from main memory.
      collectives: what it exchanges with others.
    """

    seconds_to_compile: float
    state: int
    batch: int
    temporary: int
    code: int
    flops: int
    traffic: int
    collectives: tuple[Collective, ...]

    @property
    def memory(self) -> int:
        """Bytes of everything that is in memory together."""
        return self.state + self.batch + self.temporary + self.code


def devices_of(topology: str) -> Sequence[jax.Device]:
    """Devices to compile for, by a name such as "v5e:4x4" (a TPU's version and the shape of its slice) or "cpu:8".

    Raises:
      UserError: there is no such topology, or the compiler for TPUs is not installed.
    """
    # libtpu looks for a TPU VM around it, and wants to be the only one that uses the chips. There are none.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_MIN_LOG_LEVEL="3",
        TPU_STDERR_LOG_LEVEL="3",
    )
    jax.config.update("jax_platforms", "cpu")
    if simulated := re.fullmatch(r"cpu:(\d+)", topology):
        jax.config.update("jax_num_cpu_devices", int(simulated[1]))
        return jax.devices()
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("To compile for TPUs, install their compiler: pip install -e '.[compile]'.")
    options = {}
    if topology.startswith("v4:"):  # As JAX has them there: both cores of a chip are one device.
        options["chip_config_name"] = "megacore"
    if re.fullmatch(r"\w+:1(x1)*", topology):  # A host has four chips, unless it is told otherwise.
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(topology, "tpu", **options).devices
    except Exception as error:  # The library's own kinds of errors.
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology={topology} is none that the compiler knows ({reason}): it is the TPU's version and the shape "
            "of its slice, such as v4:4x4x4, v5e:8x8, v5p:4x4x2, v6e:8x8, or cpu:8."
        ) from error


def compile_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles a pretraining config's step for a mesh from shapes alone.

    Raises:
      UserError: the config does not fit the mesh, or the step the memory of its devices.
    """
    check_layout(config, mesh)
    lowered = lower_step(config, mesh, *abstract_state_and_batch(config, mesh))
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(does_not_fit(config, mesh, str(error))) from error


def does_not_fit(config: ConfigDict, mesh: Mesh, error: str) -> str:
    """Says in a sentence how much memory a step lacks, by the compiler's message, and what to change."""
    used = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])", error)
    needs = f"{used[1]} {used[2]}iB of the device's {used[3]} {used[4]}iB" if used else "more than the device has"
    unused = [what for field, value, what in REMEDIES if _field(config, field) == value]
    videos = _videos_per_device(config, mesh)
    return (
        f"The step does not fit: it needs {needs} for {videos:g} of the {config.batch_size} videos "
        f"(config.batch_size). Use more devices, fewer videos{''.join(f', or {what}' for what in unused)}."
    )


def measure(config: ConfigDict, mesh: Mesh) -> Cost:
    """Compiles a config's step for a mesh and reads off what it costs a device; raises as `compile_step`."""
    started = time.monotonic()
    compiled = compile_step(config, mesh)
    seconds = time.monotonic() - started
    memory, program = compiled.memory_analysis(), Program.parse(compiled.as_text())
    return Cost(
        seconds_to_compile=seconds,
        state=memory.alias_size_in_bytes,
        batch=memory.argument_size_in_bytes - memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=sum(flops for _, flops in program.flops()),
        traffic=sum(moved for _, moved in program.traffic()),
        collectives=tuple(program.collectives()),
    )


def describe_cost(config: ConfigDict, mesh: Mesh, cost: Cost) -> str:
    """Memory, work and least time of a step as lines of text."""
    return "\n".join(_cost_lines(config, mesh, cost))


def _cost_lines(config: ConfigDict, mesh: Mesh, cost: Cost) -> Iterator[str]:
    kind, videos = mesh.devices.flat[0].device_kind, _videos_per_device(config, mesh)
    chip = CHIPS.get(kind)
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    yield f"{config.name} for {mesh.size} x {kind}, mesh {axes}: {config.batch_size} videos a step"
    yield f"  compiled in    {duration(cost.seconds_to_compile)}"
    parts = {"state": cost.state, "batch": cost.batch, "temporary": cost.temporary, "program": cost.code}
    known = f" of {_giga(chip.memory)}" if chip else ""
    yield (
        f"  memory         {_giga(cost.memory)}{known} GB on each device: "
        f"{', '.join(f'{name} {_giga(size)}' for name, size in parts.items())}"
    )
    tera = cost.flops / videos / 1e12
    yield f"  a video        {tera:.3f} TFLOP, {_giga(cost.traffic / videos)} GB to and from memory"
    exchanged = sum(one.bytes * one.times * _passes(one) for one in cost.collectives)
    yield f"  a step         {_giga(exchanged)} GB from each device to others"
    if chip:
        times = {
            "arithmetic": cost.flops / chip.flops,
            "memory": cost.traffic / chip.bandwidth,
            "exchange": exchanged / chip.exchange,
        }
        limit = max(times, key=times.get)
        yield f"  least time     {', '.join(f'{name} {1e3 * seconds:,.1f} ms' for name, seconds in times.items())}"
        rate = config.batch_size / times[limit]
        yield f"  at best        {rate:,.0f} videos/s, {rate / mesh.size:.3g} on each device, limited by {limit}"
        yield (
            f"  That takes {chip.flops / 1e12:,.0f} TFLOP/s (bfloat16), {chip.bandwidth / 1e9:,.0f} GB/s of memory and "
            f"{chip.exchange / 1e9:,.0f} GB/s between devices, all reached, and all three at the same time."
        )


def describe_collectives(collectives: Iterable[Collective]) -> str:
    """A table with one line for each kind, shape and source, the largest first, and the total.

    The smallest ones, which together are less than a hundredth of all bytes, share one line: two sums for each
    BatchNorm would be most of the table.
    """
    together: Counter[tuple[str, str, int, str]] = Counter()
    for one in collectives:
        shapes = " ".join(map(str, one.shapes[:3])) + " ..." * (len(one.shapes) > 3)
        together[one.kind, shapes, one.bytes, _place(one.source)] += one.times
    lines = [f"{'times':>6} {'bytes each':>13}  {'kind':20}{'shape on a device':34}for"]
    left = total = sum(size * times for (_, _, size, _), times in together.items())
    left_times = sum(together.values())
    for (kind, shapes, size, source), times in sorted(together.items(), key=lambda item: -item[0][2]):
        if left < total / 100:
            lines.append(f"{left_times:6,} {left:13,}  others, together")
            break
        lines.append(f"{times:6,} {size:13,}  {kind:20}{shapes:34}{source}")
        left, left_times = left - size * times, left_times - times
    return "\n".join([*lines, f"{sum(together.values()):6,} {total:13,}  in all"])


def main(config: ConfigDict) -> None:
    """Prints cost and collectives of a config on a topology."""
    # A compiler that crashes, or is killed for its memory, takes its process along.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=set_up_process) as process:
        try:
            print(process.submit(report, config, flags.FLAGS.topology).result())
        except BrokenProcessPool as error:
            raise UserError(
                "The compiler crashed, or was killed because this machine's memory ran out: for the paper's recipe it "
                "takes up to 14 GB. End other programs and try again, use a machine with more memory, or compile less: "
                "with --config.memory.remat=blocks, or fewer videos on each device. (Where it prints STACK OVERFLOW, "
                "it is the compiler's own mistake: try another version of libtpu, or another TPU.)"
            ) from error


def set_up_process() -> None:
    """What the process that compiles does first: it is as quiet as this one, and ends with it."""
    settings.quiet_libraries()
    set_up_worker()


def report(config: ConfigDict, topology: str) -> str:
    """Cost and collectives of a config's step as text; raises as `devices_of` and `compile_step`."""
    mesh = make_mesh(config.mesh, devices_of(topology))
    print(f"Compiling for {mesh.size} x {mesh.devices.flat[0].device_kind} ...", flush=True)
    cost = measure(config, mesh)
    return f"{describe_cost(config, mesh, cost)}\n{describe_collectives(cost.collectives)}"


def _passes(collective: Collective) -> int:
    """How often each device sends about as much as it gets: a sum over devices goes around twice."""
    return 2 if collective.kind == "all-reduce" else 1


def _videos_per_device(config: ConfigDict, mesh: Mesh) -> float:
    return config.batch_size / mesh.size


def _field(config: ConfigDict, name: str) -> object:
    group, leaf = name.split(".")
    return config[group][leaf]


def _giga(size: float) -> str:
    return f"{size / 1e9:.3g}"


def _place(source: str) -> str:
    """The end of an operation's name, without what names the wrappers around the program."""
    parts = [part for part in source.split("/") if not part.startswith(("jit(", "while", "body", "closed_call"))]
    return "/".join(parts[-4:])


if __name__ == "__main__":
    flags.DEFINE_string("topology", "cpu:8", "What to compile for: VERSION:SHAPE of a TPU slice, or cpu:DEVICES.")
    settings.run(main, "configs/pretrain.py", partial(schema.find_mistakes, kinds=(schema.PRETRAINING,)))
