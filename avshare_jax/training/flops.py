"""Floating-point operations of convolutions and matrix products, counted from a traced function before any compiler.

A multiply-add is two. Operations on a convolution's own padding are left out, as compilers do. What is computed again
in a backward pass is counted where the trace has it: trace without rematerialization for the operations of the model.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core


def count_flops(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Counts the operations of a function by where in the program they are, such as "network/visual_cnn/stem".

    Args:
      function: anything that JAX can trace.
      arguments: arrays or `jax.ShapeDtypeStruct`.
    """
    return sum_by_source(_flops_of(jax.make_jaxpr(function)(*arguments).jaxpr, "", 1))


def sum_by_source(pairs: Iterator[tuple[str, int]]) -> Counter[str]:
    """Sums numbers that have the same name."""
    counts: Counter[str] = Counter()
    for source, number in pairs:
        counts[source] += number
    return counts


def places_met(size: int, results: int, *, window: int, stride: int, before: int, spread: int, dilation: int) -> int:
    """Pairs of a result and a place of its window that meet a number of the input, along one axis of a convolution.

    Args:
      size: of the input.
      results: of the output.
      window: size of the kernel.
      stride: of the window.
      before: padding before the input.
      spread: distance of the input's numbers, with zeros between them (of a gradient by a strided input).
      dilation: distance of the window's places.
    """
    count = 0
    for place in range(window):
        for result in range(results):
            index = result * stride + place * dilation - before
            count += index % spread == 0 and 0 <= index < size * spread
    return count


def _flops_of(jaxpr: core.Jaxpr, outer: str, times: int) -> Iterator[tuple[str, int]]:
    for equation in jaxpr.eqns:
        source = "/".join(filter(None, (outer, str(equation.source_info.name_stack))))
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            yield source, times * _matrix_product(equation)
        elif name == "conv_general_dilated":
            yield source, times * _convolution(equation)
        elif name == "cond":  # One of the branches runs; the largest is counted.
            branches = [list(_flops_of(branch.jaxpr, source, times)) for branch in params["branches"]]
            yield from max(branches, key=lambda found: sum(flops for _, flops in found))
        else:
            turns = params["length"] if name == "scan" else 1
            for inner in _inner_jaxprs(params.values()):
                yield from _flops_of(inner, source, times * turns)


def _inner_jaxprs(values: Sequence[Any]) -> Iterator[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _matrix_product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: core.JaxprEqn) -> int:
    params = equation.params
    left, right, result = (v.aval.shape for v in (*equation.invars[:2], *equation.outvars))
    axes = params["dimension_numbers"]
    places = 1
    for number, (stride, (before, _), spread, dilation) in enumerate(
        zip(params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"], strict=True)
    ):
        size, window, results = (
            shape[spec[2 + number]]
            for shape, spec in ((left, axes.lhs_spec), (right, axes.rhs_spec), (result, axes.out_spec))
        )
        places *= places_met(
            size, results, window=window, stride=stride, before=before, spread=spread, dilation=dilation
        )
    batch, features = (result[axis] for axis in axes.out_spec[:2])
    return 2 * batch * features * places * right[axes.rhs_spec[1]]
