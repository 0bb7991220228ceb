"""Devices: a named mesh, how batches and state lie on it, and global arrays from each process's rows."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.settings import UserError


def make_mesh(mesh_config: ConfigDict) -> Mesh:
    """Lays all devices out as named axes; `{"data": -1}` puts them all on the axis `data`.

    Raises:
      UserError: the sizes do not multiply to the number of devices (one size may be -1: what is left).
    """
    sizes = dict(mesh_config)
    devices = jax.device_count()
    known = math.prod(size for size in sizes.values() if size != -1)
    sizes = {name: devices // known if size == -1 else size for name, size in sizes.items()}
    if math.prod(sizes.values()) != devices:
        raise UserError(
            f"config.mesh {dict(mesh_config)} does not fit {devices} devices: the sizes must multiply to {devices}, "
            "where one of them may be -1."
        )
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` where the global batch does not divide over the mesh's `data` axis."""
    rows = mesh.shape["data"]
    if batch_size % rows:
        above = batch_size + rows - batch_size % rows
        raise UserError(
            f"config.batch_size={batch_size} does not divide over the {rows} devices of the mesh's data axis: "
            f"use a multiple of {rows}, such as {above}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows (the first axis) split over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays (B, ...) from the contiguous rows (B / processes, ...) that this process read."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}
