"""What one device has of a batch, on meshes of more devices than there are."""

import pytest
from jax.sharding import AbstractMesh

from avshare_jax.benchmark import parts
from avshare_jax.settings import UserError
from avshare_jax.training.mesh import AXES
from configs.pretrain import get_config


@pytest.fixture
def mesh_of(monkeypatch):
    """Sets the sizes of the axes of the mesh that every config gets."""
    return lambda *sizes: monkeypatch.setattr(parts, "make_mesh", lambda _: AbstractMesh(sizes, AXES))


def test_a_device_has_its_rows_and_its_clips(mesh_of):
    config = get_config()  # 256 videos of 30 clips
    for sizes, share in {(1, 1, 1): (256, 30), (64, 1, 1): (4, 30), (8, 4, 1): (8, 30), (32, 1, 5): (8, 6)}.items():
        mesh_of(*sizes)
        assert parts.share_of_device(config) == share
    mesh_of(48, 1, 1)
    with pytest.raises(UserError, match="batch_size=256 does not divide over 48 devices"):
        parts.share_of_device(config)


def test_parts_have_the_sizes_of_the_share(mesh_of):
    config = get_config("demo")
    config.batch_size, config.objectives.negative_groups = 16, 2
    mesh_of(2, 2, 2)  # 4 videos of 8 clips, of which the CNNs have 4
    found = {part.name: part.arguments for part in parts.parts_of(config)}
    assert found["visual CNN"][1].shape[0] == found["audio CNN"][1].shape[0] == 16
    assert found["visual CNN, stage 2"][1].shape[0] == 16
    assert found["visual Transformer"][1].shape[:2] == (4, 9)
    assert found["multimodal Transformer"][1].shape[:2] == (8, 18)
    assert found["negatives of one modality"][0].shape[:2] == (4, 8)
