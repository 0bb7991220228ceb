"""Devices as a mesh with named axes."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.settings import UserError


def make_mesh(mesh_config: ConfigDict) -> Mesh:
    """Lays all devices out as named axes; `{"data": -1, "fsdp": 1, "clip": 1}` puts them all on the axis `data`.

    Raises:
      UserError: the sizes do not multiply to the number of devices (one size may be -1: what is left).
    """
    sizes = dict(mesh_config)
    devices = jax.device_count()
    known = math.prod(size for size in sizes.values() if size != -1)
    fitting = {name: devices // max(known, 1) if size == -1 else size for name, size in sizes.items()}
    if math.prod(fitting.values()) != devices or min(fitting.values()) < 1:
        raise UserError(
            f"config.mesh {sizes} does not fit {devices} devices: the sizes must multiply to {devices}, "
            "where one of them may be -1."
        )
    return jax.make_mesh(tuple(fitting.values()), tuple(fitting), axis_types=(AxisType.Auto,) * len(fitting))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
