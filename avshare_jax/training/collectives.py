"""Lists what the devices of a mesh exchange in one training step; needs no data and no accelerator.

    python -m avshare_jax.training.collectives --config=configs/pretrain.py:demo --config.mesh.fsdp=2 --devices=8

compiles the step of the config for simulated devices and prints each kind of collective operation with its shapes (of
one device's result), how often it runs, and what in the program it is for.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax import settings
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.plan import abstract_batch
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.sharding import batch_shardings, check_layout, state_shardings
from avshare_jax.training.step import create_state, make_train_step

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BITS = re.compile(r"[a-z]+(\d+)")


class Collective(NamedTuple):
    """One operation of a compiled program by which devices exchange data.

    Attributes:
      kind: one of `KINDS`.
      shapes: of what one device gets, such as "f32[64,128]"; several where the compiler has joined operations.
      elements: numbers in the largest of these.
      bytes: of all of these together.
      times: how often it runs in a step.
      source: the operation of the program that it is for.
    """

    kind: str
    shapes: tuple[str, ...]
    elements: int
    bytes: int
    times: int
    source: str


def list_collectives(program: str) -> list[Collective]:
    """Finds the collective operations in the text of a compiled program, `compiled.as_text()`, in its order.

    What is in the body of a loop counts as often as the compiler says that the loop runs, or once where it does not.
    """
    computations = dict(_computations(program))
    runs = _runs(computations)
    found = []
    for name, lines in computations.items():
        for line in lines:
            match = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
            if match:
                shapes = tuple(re.findall(r"\w+\[[\d,]*\]", match[1]))
                # What starts an asynchronous operation returns operands and results.
                shapes = shapes[len(shapes) // 2 :] if match[3] and len(shapes) > 1 else shapes
                source = re.search(r'op_name="([^"]*)"', line)
                found.append(
                    Collective(
                        match[2],
                        shapes,
                        max(map(_elements, shapes)),
                        sum(_elements(shape) * _bytes_of_element(shape) for shape in shapes),
                        runs.get(name, 1),
                        source[1] if source else "",
                    )
                )
    return found


def compile_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Compiled:
    """Compiles a pretraining config's step for a mesh from shapes alone.

    Raises:
      UserError: the config does not fit the mesh.
    """
    check_layout(config, mesh)
    task, optimizer = Pretraining(config), make_optimizer(config.optimizer, config.total_steps)
    batch, key = abstract_batch(config), jax.random.key(config.seed)
    state = jax.eval_shape(partial(create_state, task, optimizer), key, batch)
    lies = state_shardings(state, mesh, config.sharding)

    def place(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    step = make_train_step(
        task,
        optimizer,
        mesh,
        seed=config.seed,
        rules=config.sharding,
        state_sharding=lies,
        accumulation_steps=config.memory.accumulation_steps,
    )
    placed_batch = jax.tree.map(place, batch, batch_shardings(batch, mesh, config.sharding))
    return step.lower(jax.tree.map(place, state, lies), placed_batch).compile()


def describe(collectives: Iterable[Collective]) -> str:
    """A table with one line for each kind, shape and source, the largest first, and the total."""
    together: Counter[tuple[str, str, int, str]] = Counter()
    for one in collectives:
        together[
            one.kind, " ".join(one.shapes[:3]) + " ..." * (len(one.shapes) > 3), one.bytes, _place(one.source)
        ] += one.times
    lines = [f"{'times':>6} {'bytes each':>12}  {'kind':20}{'shape on a device':34}for"]
    for (kind, shapes, size, source), times in sorted(together.items(), key=lambda item: -item[0][2]):
        lines.append(f"{times:6,} {size:12,}  {kind:20}{shapes:34}{source}")
    total = sum(size * times for (_, _, size, _), times in together.items())
    return "\n".join([*lines, f"{sum(together.values()):6,} {total:12,}  in all"])


def main(config: ConfigDict) -> None:
    """Prints the table for a config and the bytes that a device needs beside its arguments."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", flags.FLAGS.devices)
    compiled = compile_step(config, make_mesh(config.mesh))
    print(describe(list_collectives(compiled.as_text())))
    print(f"Temporary memory of a device: {compiled.memory_analysis().temp_size_in_bytes:,} bytes.")


def _computations(program: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the name of each computation with its lines."""
    name, lines = "", []
    for line in program.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            name, lines = header[1], []
        elif line.startswith("}"):
            yield name, lines
        else:
            lines.append(line)


def _runs(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often the computations that are in loops run."""
    runs = dict.fromkeys(computations, 1)
    # The callees of a computation come before it: from the last to the first, every count is known when it is needed.
    for name, lines in reversed(computations.items()):
        for line in lines:
            for callee in re.findall(r"(?:body|to_apply|calls)=%?([\w.\-]+)", line):
                count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                runs[callee] = runs[name] * (int(count[1]) if count and "body=" in line else 1)
    return runs


def _elements(shape: str) -> int:
    return math.prod(int(size) for size in shape.split("[")[1].rstrip("]").split(",") if size)


def _bytes_of_element(shape: str) -> int:
    """Of f32 four, of u8 one, of pred one."""
    bits = BITS.match(shape.split("[")[0])
    return max(int(bits[1]) // 8, 1) if bits else 1


def _place(source: str) -> str:
    """The end of an operation's name, without what names the wrappers around the program."""
    parts = [part for part in source.split("/") if not part.startswith(("jit(", "while", "body", "closed_call"))]
    return "/".join(parts[-4:])


if __name__ == "__main__":
    flags.DEFINE_integer("devices", 8, "Number of simulated devices.")
    settings.run(main, default_config="configs/pretrain.py")
