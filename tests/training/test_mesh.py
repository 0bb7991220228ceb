"""Meshes and the sentences about what does not fit them. Several devices: see test_devices.py."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from avshare_jax.settings import UserError
from avshare_jax.training import mesh as meshes


def test_all_devices_go_on_the_data_axis():
    mesh = meshes.make_mesh(ConfigDict({"data": -1}))
    assert dict(mesh.shape) == {"data": jax.device_count()}


def test_mesh_that_does_not_fit_the_devices_is_refused():
    wrong = jax.device_count() + 1
    with pytest.raises(UserError, match=rf"does not fit {jax.device_count()} devices"):
        meshes.make_mesh(ConfigDict({"data": wrong}))


def test_batch_size_must_divide_over_the_devices():
    mesh = AbstractMesh((8,), ("data",))
    meshes.check_batch_size(16, mesh)
    with pytest.raises(UserError, match=r"batch_size=12 does not divide over the 8 devices.*such as 16"):
        meshes.check_batch_size(12, mesh)


def test_batch_keeps_values_and_rows():
    mesh = meshes.make_mesh(ConfigDict({"data": -1}))
    rows = np.arange(8 * 3, dtype=np.uint8).reshape(8, 3)
    batch = meshes.shard_batch({"frames": rows}, mesh)
    np.testing.assert_array_equal(batch["frames"], rows)
    assert batch["frames"].dtype == np.uint8
