"""Devices as a mesh with named axes."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.settings import UserError

# From far to near. JAX gives neighbors on the last axis to one process: the clips of a video, which one process reads.
AXES = ("data", "fsdp", "clip")


def make_mesh(mesh_config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays devices out as named axes; `{"data": -1, "fsdp": 1, "clip": 1}` puts them all on the axis `data`.

    Args:
      mesh_config: the size of each of `AXES`.
      devices: to lay out; None: all that there are.

    Raises:
      UserError: the sizes do not multiply to the number of devices (one size may be -1: what is left).
    """
    sizes = {name: mesh_config[name] for name in AXES}
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    known = math.prod(size for size in sizes.values() if size != -1)
    fitting = {name: count // max(known, 1) if size == -1 else size for name, size in sizes.items()}
    if math.prod(fitting.values()) != count or min(fitting.values()) < 1:
        raise UserError(
            f"config.mesh {sizes} does not fit {count} devices: the sizes must multiply to {count}, "
            "where one of them may be -1."
        )
    types = (AxisType.Auto,) * len(fitting)
    return jax.make_mesh(tuple(fitting.values()), tuple(fitting), axis_types=types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
