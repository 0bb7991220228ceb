"""Reads the text of a compiled program: what each device computes, moves to and from memory, and exchanges.

XLA's own cost analysis counts the body of a loop once, and does not say which of its bytes stay on the chip. Here,
loops count as often as they run, and bytes are those of the device's main memory, with the padding of its tiles.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

from avshare_jax.training.flops import places_met

T = TypeVar("T")

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

# What moves nothing by itself: names for values, and what others have started.
_FREE = re.compile(
    r"(parameter|constant|tuple|get-tuple-element|bitcast|while|conditional|call|after-all|opt-barrier|.*-done)$"
)
# What reads as much of its first operand as its result holds.
_READS_A_PART = ("slice", "dynamic-slice", "gather")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)")


class Shape(NamedTuple):
    """An array of a program, on one device.

    Attributes:
      dtype: such as "f32".
      sizes: of its axes.
      bytes: with the padding to whole tiles of its layout.
      on_chip: whether it is kept on the chip, and not in the device's main memory.
    """

    dtype: str
    sizes: tuple[int, ...]
    bytes: int
    on_chip: bool

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.sizes))}]"

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.sizes)

    @property
    def traffic(self) -> int:
        """Bytes that reading or writing it moves to or from main memory."""
        return 0 if self.on_chip else self.bytes


@dataclass(frozen=True)
class Instruction:
    """One operation of a program.

    Attributes:
      name: in its computation.
      opcode: such as "fusion".
      shapes: of its results.
      operands: names of the instructions whose results it takes.
      called: names of the computations that it runs.
      text: its line, from the operands on.
      is_root: whether its results are those of its computation.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    text: str
    is_root: bool

    @property
    def source(self) -> str:
        """The operation of the traced program that it comes from, such as "jit(step)/jvp(Network)/stem/dot_general"."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


Computation = Mapping[str, Instruction]


@dataclass(frozen=True)
class Program:
    """A compiled program of one device.

    Attributes:
      computations: by name, each with its instructions by name.
      entry: name of the computation that is the program.
    """

    computations: Mapping[str, Computation]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "Program":
        """Reads the text of `compiled.as_text()`."""
        computations: dict[str, dict[str, Instruction]] = {}
        name = entry = ""
        for line in text.splitlines():
            if header := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
                name = header[2]
                entry = name if header[1] else entry
                computations[name] = {}
            elif name and (instruction := _parse_instruction(line)):
                computations[name][instruction.name] = instruction
        return cls(computations, entry)

    @cached_property
    def runs(self) -> dict[str, int]:
        """How often each computation runs; a loop whose length the program does not say counts as one turn."""
        runs = dict.fromkeys(self.computations, 0)

        def visit(name: str, times: int) -> None:
            runs[name] += times
            for instruction in self.computations[name].values():
                turns = self._turns(instruction) if instruction.opcode == "while" else 1
                for called in instruction.called:
                    visit(called, times * turns)

        visit(self.entry, 1)
        return runs

    @cached_property
    def fused(self) -> frozenset[str]:
        """Names of the computations whose values never reach memory: those of fusions, and of reductions."""
        inside = {"while", "conditional", "call"}
        return frozenset(
            called
            for computation in self.computations.values()
            for instruction in computation.values()
            if instruction.opcode not in inside
            for called in instruction.called
        )

    def instructions(self) -> Iterator[tuple[Instruction, Computation, int]]:
        """Yields every instruction outside of fusions with its computation and how often it runs."""
        for name, computation in self.computations.items():
            if name not in self.fused and self.runs[name]:
                for instruction in computation.values():
                    yield instruction, computation, self.runs[name]

    def flops(self) -> Iterator[tuple[str, int]]:
        """Yields (source, floating-point operations) of every convolution and matrix product; a multiply-add is two."""
        for name, computation in self.computations.items():
            for instruction in computation.values():
                if instruction.opcode in ("convolution", "dot") and self.runs[name]:
                    yield instruction.source, self.runs[name] * _flops(instruction, computation)

    def traffic(self) -> Iterator[tuple[str, int]]:
        """Yields (source, bytes read from and written to main memory) of every instruction."""
        for instruction, computation, times in self.instructions():
            if not _FREE.match(instruction.opcode):
                yield instruction.source, times * self._traffic(instruction, computation)

    def collectives(self) -> list["Collective"]:
        """Finds the operations by which devices exchange data, in the order of the program."""
        found = []
        for name, computation in self.computations.items():
            for instruction in computation.values():
                kind = instruction.opcode.removesuffix("-start")
                if kind in COLLECTIVES and self.runs[name]:
                    shapes = _exchanged(instruction, kind, computation)
                    found.append(Collective(kind, shapes, self.runs[name], instruction.source))
        return found

    def _turns(self, loop: Instruction) -> int:
        """How often a loop turns that counts up from 0, as those of `scan` and `map` do."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text):
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.text)
        compared = [line for line in self.computations[condition[1]].values() if line.opcode == "compare"]
        limits = [
            int(value[1])
            for line in self.computations[condition[1]].values()
            if line.opcode == "constant" and (value := re.match(r"(\d+)\)", line.text))
        ]
        if len(compared) == 1 and len(limits) == 1 and "direction=LT" in compared[0].text:
            return limits[0]
        return 1

    def _traffic(self, instruction: Instruction, computation: Computation) -> int:
        operands = [computation[name].shapes for name in instruction.operands if name in computation]
        shapes = instruction.shapes
        if instruction.opcode == "fusion":
            return self._fusion_traffic(instruction, computation)
        if instruction.opcode in ("copy-start", "slice-start"):  # Their results are those and the operand.
            moved = min(shape.bytes for shape in shapes[:2])
            return sum(moved for shape in shapes[:2] if not shape.on_chip)
        if instruction.opcode in _READS_A_PART:
            part, whole = shapes[0], operands[0][0]
            indices = sum(shape.traffic for shape in operands[1]) if instruction.opcode == "gather" else 0
            return part.traffic + min(part.bytes, whole.traffic) + indices
        if instruction.opcode == "dynamic-update-slice":
            return operands[1][0].traffic + min(operands[1][0].bytes, shapes[0].traffic)
        if instruction.opcode == "scatter":
            return self._scatter_traffic(operands)
        return sum(shape.traffic for shape in shapes) + sum(shape.traffic for group in operands for shape in group)

    def _scatter_traffic(self, operands: Sequence[tuple[Shape, ...]]) -> int:
        """What a scatter moves: it reads indices and updates, and reads and writes as much of its arrays, in place."""
        arrays, indices, updates = _scatter_operands(operands)
        moved = sum(shape.traffic for (shape,) in (indices, *updates))
        for (array,), (update,) in zip(arrays, updates, strict=True):
            moved += 2 * min(update.bytes, array.traffic)
        return moved

    def _fusion_traffic(self, fusion: Instruction, computation: Computation) -> int:
        """What a fusion reads and writes; of an array of which it reads or replaces a part, only that part."""
        body = self.computations[fusion.called[0]]
        numbers = {
            int(re.match(r"(\d+)", line.text)[1]): line.name for line in body.values() if line.opcode == "parameter"
        }
        total = 0
        for number, name in enumerate(fusion.operands):
            shape = computation[name].shapes[0]
            if not shape.on_chip:
                total += min(shape.bytes, _bytes_read(body, numbers[number], shape.bytes))
        (root,) = (line for line in body.values() if line.is_root)
        results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
        for shape, result in zip(fusion.shapes, results, strict=False):
            result = _through_bitcasts(body, result)
            replaced = _replaced(result)
            total += min(body[replaced].shapes[0].bytes, shape.traffic) if replaced else shape.traffic
        return total


class Collective(NamedTuple):
    """One operation of a compiled program by which devices exchange data.

    Attributes:
      kind: one of `COLLECTIVES`.
      shapes: of what one device gets, or gives to a reduce-scatter; several where the compiler has joined operations.
      times: how often it runs.
      source: the operation of the traced program that it is for.
    """

    kind: str
    shapes: tuple[Shape, ...]
    times: int
    source: str

    @property
    def elements(self) -> int:
        """Numbers in the largest of its arrays."""
        return max(shape.elements for shape in self.shapes)

    @property
    def bytes(self) -> int:
        """Of all of its arrays together, each time."""
        return sum(shape.elements * _bits(shape.dtype) // 8 for shape in self.shapes)


def _parse_instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    opcode = _OPCODE.search(f" {found[3]}") if found else None
    if not opcode:
        return None
    types, rest = found[3][: max(opcode.start() - 1, 0)], found[3][opcode.end() - 1 :]
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[: _closing(rest)]))
    shapes = tuple(_parse_shape(match) for match in _SHAPE.finditer(types))
    called = tuple(name.strip("% ") for names in _CALLED.findall(rest) for name in names.split(","))
    return Instruction(found[2], opcode[1], shapes, operands, called, rest, bool(found[1]))


def _exchanged(instruction: Instruction, kind: str, computation: Computation) -> tuple[Shape, ...]:
    """The arrays of a collective: what a device gets, or what it gives where it gets back a part of that."""
    shapes = instruction.shapes
    if kind == "reduce-scatter":
        return tuple(shape for name in instruction.operands for shape in computation[name].shapes)
    if instruction.opcode == "all-gather-start" and len(shapes) > 1:  # Returns operands and results.
        return shapes[len(shapes) // 2 :]
    if instruction.opcode == "collective-permute-start":  # Returns operand, result, and what it counts with.
        return shapes[1:2]
    return shapes


def _closing(text: str) -> int:
    """Where the parenthesis closes that was opened before `text`."""
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return index
    return len(text)


def _parse_shape(match: re.Match[str]) -> Shape:
    dtype, sizes, order, layout = match[1], _numbers(match[2]), _numbers(match[3]), match[4] or ""
    minor_first = [sizes[axis] for axis in order] if len(order) == len(sizes) else list(reversed(sizes))
    if tile := re.search(r"T\(([\d,]+)\)", layout):
        for axis, step in enumerate(reversed(_numbers(tile[1]))):
            if axis < len(minor_first):
                minor_first[axis] = -(-minor_first[axis] // step) * step
    on_chip = re.search(r"S\(([1-9])\)", layout) is not None
    return Shape(dtype, sizes, math.prod(minor_first) * _bits(dtype) // 8, on_chip)


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in (text or "").split(",") if number)


def _bits(dtype: str) -> int:
    """Of "f32" 32, of "pred" 8, of what is no array 0."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return int(bits[1]) if bits else 8 if dtype == "pred" else 0


def _scatter_operands(operands: Sequence[T]) -> tuple[Sequence[T], T, Sequence[T]]:
    """Splits the operands of a scatter: the arrays, the indices, and the updates of each array."""
    count = len(operands) // 2
    return operands[:count], operands[count], operands[count + 1 :]


def _replaced(line: Instruction) -> str | None:
    """The name of what an operation puts into its first operand in place; None where it makes its whole result."""
    if line.opcode == "dynamic-update-slice":
        return line.operands[1]
    if line.opcode == "scatter" and len(line.operands) == 3:
        return line.operands[2]
    return None


def _through_bitcasts(body: Computation, line: Instruction) -> Instruction:
    while line.opcode == "bitcast" and line.operands[0] in body:
        line = body[line.operands[0]]
    return line


def _bytes_read(body: Computation, name: str, whole: int) -> int:
    """Bytes that a fusion's computation reads of one of its parameters."""
    total = 0
    for line in body.values():
        if name not in line.operands:
            continue
        if line.opcode == "bitcast":
            total += _bytes_read(body, line.name, whole)
        elif line.opcode in _READS_A_PART and line.operands[0] == name:
            total += line.shapes[0].bytes
        elif line.opcode == "scatter" and (replaced := _replaced(line)) and line.operands[0] == name:
            total += body[replaced].shapes[0].bytes
        elif line.opcode != "dynamic-update-slice" or line.operands[0] != name:
            return whole
    return total


def _flops(line: Instruction, computation: Computation) -> int:
    """Floating-point operations of a convolution or a matrix product, without those on padding."""
    left, right = (computation[name].shapes[0] for name in line.operands[:2])
    if line.opcode == "dot":
        contracted = _numbers(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.text)[1])
        return 2 * line.shapes[0].elements * math.prod(left.sizes[axis] for axis in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.text)
    result = line.shapes[0].sizes
    spatial = [axis for axis in labels[3] if axis.isdigit()]
    window = _window(line.text, len(spatial))
    pairs = 1
    for number, axis in enumerate(spatial):
        pairs *= places_met(left.sizes[labels[1].index(axis)], result[labels[3].index(axis)], **window[number])
    others = math.prod(size for axis, size in zip(labels[3], result, strict=True) if axis in "bf")
    features = right.sizes[labels[2].index("i")]
    return 2 * others * pairs * features


def _window(text: str, axes: int) -> list[dict[str, int]]:
    """The window of a convolution along each spatial axis, as `places_met` takes it."""
    if not axes:
        return []
    fields = dict(re.findall(r"(\w+)=([\dx_\-]+)", (re.search(r"window=\{([^}]*)\}", text) or [0, ""])[1]))

    def of(name: str, default: str) -> list[int]:
        return [int(part.split("_")[0]) for part in fields.get(name, "x".join([default] * axes)).split("x")]

    names = {"window": "size", "stride": "stride", "before": "pad", "spread": "lhs_dilate", "dilation": "rhs_dilate"}
    columns = {ours: of(theirs, "0" if theirs == "pad" else "1") for ours, theirs in names.items()}
    return [{name: values[axis] for name, values in columns.items()} for axis in range(axes)]
