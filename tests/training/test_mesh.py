"""Meshes and the sentences about what does not fit them. Several devices: see test_devices.py."""

import jax
import pytest
from ml_collections import ConfigDict

from avshare_jax.settings import UserError
from avshare_jax.training import mesh as meshes
from configs.pretrain import get_config


def test_all_devices_go_on_the_data_axis():
    mesh = meshes.make_mesh(get_config().mesh)
    # In this order: the clips of a video are on neighbors, which are of one process.
    assert list(mesh.shape.items()) == [("data", jax.device_count()), ("fsdp", 1), ("clip", 1)]


@pytest.mark.parametrize("sizes", [{"data": jax.device_count() + 1}, {"data": 0}, {"data": -1, "fsdp": 0}])
def test_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    with pytest.raises(UserError, match=rf"does not fit {jax.device_count()} devices"):
        meshes.make_mesh(ConfigDict({"data": 1, "fsdp": 1, "clip": 1} | sizes))
