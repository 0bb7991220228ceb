"""Where activations lie: the network names axes, and a context says which axes of a mesh they are split over.

Two names are in use: "batch", the rows of a batch, and "clip", the clips S of a video while the CNNs work on them.
Outside of the context, as on one device, nothing is split and all functions here are plain reshapes.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Mapping[str, Sequence[str]]
Axes = Sequence[str | tuple[str, ...] | None]

# The axes of a batch's arrays; all others have rows alone.
BATCH_AXES = {"frames": ("batch", "clip"), "log_mel": ("batch", "clip")}

_current: ContextVar[tuple[Mesh, Rules] | None] = ContextVar("placement", default=None)
_platform: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def placement(mesh: Mesh, rules: Rules) -> Generator[None]:
    """Places activations on `mesh` while a step is traced.

    Args:
      mesh: has every axis that the rules name.
      rules: for "batch" and "clip" the axes of the mesh that they are split over; none: not split.
    """
    token = _current.set((mesh, rules))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def written_for(name: str) -> Generator[None]:
    """Lets the network be traced as for devices of a platform, such as "tpu", whatever it then runs on.

    A jitted function that was traced before stays as it is.
    """
    token = _platform.set(name)
    try:
        yield
    finally:
        _platform.reset(token)


def platform() -> str:
    """The platform that is being traced for, such as "cpu": of `written_for`, the mesh's devices, or JAX's default."""
    if (name := _platform.get()) is not None:
        return name
    current = _current.get()
    return jax.default_backend() if current is None else current[0].devices.flat[0].platform


def compiler_options(runs_on: str | None = None) -> dict[str, str] | None:
    """Options for `jax.jit` of the network where it runs, such as on "cpu" (None: JAX's default backend).

    On CPUs convolutions and matrix products are left to Eigen, and only sums to XLA's newer library, YNNPACK, which by
    default gets them all: then training the paper's network takes a sixth longer. Only for what no other jitted
    function calls: JAX takes no options there.
    """
    if (runs_on or jax.default_backend()) != "cpu":
        return None
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def partition_spec(axes: Axes, rules: Rules) -> PartitionSpec:
    """Turns the names of an array's axes into axes of the mesh.

    Args:
      axes: for each axis of the array its name, a tuple of the names that were folded into it, or None: not split.
      rules: as for `placement`.
    """
    names = [(axis,) if isinstance(axis, str) else axis or () for axis in axes]
    return PartitionSpec(*(tuple(part for name in group for part in rules[name]) or None for group in names))


def constrain(x: jax.Array, axes: Axes) -> jax.Array:
    """Asks for an array to lie as the names of its first axes say (see `partition_spec`); its values stay."""
    if (current := _current.get()) is None:
        return x
    mesh, rules = current
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, partition_spec(axes, rules)))


def fold_clips(x: jax.Array) -> jax.Array:
    """Folds videos and clips, (B, S, ...), into one axis, (B * S, ...), without moving anything between devices.

    The order is by device, then by video, then by clip. A plain reshape would interleave the clips of several devices
    where both axes are split, so that each device would have to fetch the others' frames.
    """
    rows, columns = _parts("batch"), _parts("clip")
    x = constrain(x, ("batch", "clip"))
    videos, clips, *rest = x.shape
    blocks = x.reshape(rows, videos // rows, columns, clips // columns, *rest)
    blocks = constrain(blocks, ("batch", None, "clip")).swapaxes(1, 2)
    return constrain(blocks.reshape(videos * clips, *rest), (("batch", "clip"),))


def unfold_clips(x: jax.Array, videos: int) -> jax.Array:
    """Undoes `fold_clips`: (B * S, ...) to (B, S, ...) for `videos` = B."""
    rows, columns = _parts("batch"), _parts("clip")
    clips = x.shape[0] // videos
    blocks = x.reshape(rows, columns, videos // rows, clips // columns, *x.shape[1:])
    blocks = constrain(blocks, ("batch", "clip")).swapaxes(1, 2)
    return constrain(blocks.reshape(videos, clips, *x.shape[1:]), ("batch", "clip"))


def split_axis(x: jax.Array, axis: int, parts: int) -> jax.Array:
    """Deals an axis out to `parts` in turn: (..., n, ...) becomes (parts, ..., n / parts, ...).

    Part i has the elements i, i + parts, i + 2 parts ... Consecutive parts would each lie on some of the devices; dealt
    out, every device has its share of every part, and which elements a part has does not depend on the devices.
    """
    split = x.reshape(*x.shape[:axis], x.shape[axis] // parts, parts, *x.shape[axis + 1 :])
    return jnp.moveaxis(split, axis + 1, 0)


def join_axis(x: jax.Array, axis: int) -> jax.Array:
    """Undoes `split_axis`: (parts, ..., n / parts, ...) to (..., n, ...), where `axis` is that of the result."""
    joined = jnp.moveaxis(x, 0, axis + 1)
    return joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])


def _parts(name: str) -> int:
    """Into how many parts the axis of that name is split."""
    if (current := _current.get()) is None:
        return 1
    mesh, rules = current
    return math.prod(mesh.shape[axis] for axis in rules[name])
