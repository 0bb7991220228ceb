"""Where arrays lie on a mesh: the config's table of rules applied to batches, parameters and the optimizer's state."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.models.placement import BATCH_AXES, partition_spec
from avshare_jax.settings import UserError


def check_layout(config: ConfigDict, mesh: Mesh) -> None:
    """Checks that batch and clips divide over the mesh and into the parts that the config asks for.

    Args:
      config: `batch_size`, `data.num_clips`, `memory` and `sharding` are read; one that the schema has passed.
      mesh: from `make_mesh`.

    Raises:
      UserError: says what does not divide by what.
    """
    rows, columns = (_parts(config.sharding[name], mesh) for name in ("batch", "clip"))
    steps, chunks = config.memory.accumulation_steps, config.memory.clip_chunks
    if config.batch_size % (rows * steps):
        raise UserError(
            f"config.batch_size={config.batch_size} does not divide over {rows} devices of the mesh in "
            f"{steps} accumulation step(s): use a multiple of {rows * steps}."
        )
    if config.data.num_clips % (columns * chunks):
        raise UserError(
            f"config.data.num_clips={config.data.num_clips} does not divide over {columns} devices of the mesh in "
            f"{chunks} chunk(s) (config.memory.clip_chunks): use a multiple of {columns * chunks}."
        )
    if columns > 1 and jax.process_count() > 1 and not _of_one_process(config.sharding.clip, mesh):
        raise UserError(
            f"Clips lie on {columns} devices, which must be of one process, but each process has "
            f"{jax.local_device_count()}: a process reads whole videos. Choose another config.mesh."
        )


def batch_shardings(batch: Mapping[str, Any], mesh: Mesh, rules: ConfigDict) -> dict[str, NamedSharding]:
    """How the arrays of a batch lie on the mesh: rows split by the rule "batch", clips by "clip"."""
    return {name: NamedSharding(mesh, partition_spec(BATCH_AXES.get(name, ("batch",)), rules)) for name in batch}


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, rules: ConfigDict) -> dict[str, jax.Array]:
    """Makes global arrays (B, ...) from the contiguous rows (B / processes, ...) that this process read."""
    shardings = batch_shardings(batch, mesh, rules)
    return {name: jax.make_array_from_process_local_data(shardings[name], rows) for name, rows in batch.items()}


def state_shardings(state: Any, mesh: Mesh, rules: ConfigDict) -> Any:
    """How each array of a state lies on the mesh.

    The first pattern of `rules.parameters` that is found in an array's path, such as
    "params/network/visual_cnn/stem/kernel" or "opt_state/1/mu/...", names axes of the mesh. The array is split over
    them along its longest axis that divides, the last of these where several are as long. It is whole on every device
    where none divides, or where it has fewer than `rules.smallest` numbers; scalars always are.

    Args:
      state: a tree of arrays or `jax.ShapeDtypeStruct`.
      mesh: from `make_mesh`.
      rules: `config.sharding`.

    Returns:
      A tree of `NamedSharding` like the state.

    Raises:
      UserError: an array's path has none of the patterns.
    """

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if not leaf.ndim:
            return NamedSharding(mesh, PartitionSpec())
        axes = _rule_of(jax.tree_util.keystr(path, simple=True, separator="/"), rules)
        parts = _parts(axes, mesh)
        dividing = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or leaf.size < rules.smallest or not dividing:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(dividing, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, tuple(axes)))

    return jax.tree_util.tree_map_with_path(sharding, state)


def _rule_of(path: str, rules: ConfigDict) -> tuple[str, ...]:
    for pattern, axes in rules.parameters:
        if re.search(pattern, path):
            return axes
    raise UserError(
        f"No pattern of config.sharding.parameters is found in {path}: add one that says over which axes of the mesh "
        "this array is split, or () for none."
    )


def _of_one_process(axes: tuple[str, ...], mesh: Mesh) -> bool:
    """Whether devices that differ along these axes only are always of the same process."""
    numbers = tuple(mesh.axis_names.index(axis) for axis in axes)
    processes = np.vectorize(lambda device: device.process_index)(mesh.devices)
    return bool((processes == processes.min(numbers, keepdims=True)).all())


def _parts(axes: tuple[str, ...], mesh: Mesh) -> int:
    """Into how many parts an axis is split over these axes of the mesh."""
    return math.prod(mesh.shape[axis] for axis in axes)
