"""Meshes and the sentences about what does not fit them. Several devices: see test_devices.py."""

import jax
import pytest
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from avshare_jax.settings import UserError
from avshare_jax.training import mesh as meshes
from configs.pretrain import get_config


def test_all_devices_go_on_the_data_axis():
    mesh = meshes.make_mesh(get_config().mesh)
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "clip": 1}


@pytest.mark.parametrize("sizes", [{"data": jax.device_count() + 1}, {"data": 0}, {"data": -1, "fsdp": 0}])
def test_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    with pytest.raises(UserError, match=rf"does not fit {jax.device_count()} devices"):
        meshes.make_mesh(ConfigDict(sizes))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 3), (2, 4, 1)])
def test_batch_size_must_divide_over_the_devices_with_other_rows(sizes):
    mesh = AbstractMesh(sizes, ("data", "fsdp", "clip"))
    meshes.check_batch_size(16, mesh)
    with pytest.raises(UserError, match=r"batch_size=12 does not divide over the 8 devices.*such as 16"):
        meshes.check_batch_size(12, mesh)
