"""The table of rules: where parameters, optimizer state and batches lie, and the sentences about what does not fit."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.settings import UserError
from avshare_jax.training import optimizer, plan, pretraining, sharding, step
from avshare_jax.training.mesh import make_mesh
from configs.pretrain import get_config

FSDP = AbstractMesh((1, 8, 1), ("data", "fsdp", "clip"))


@pytest.fixture(scope="module")
def state():
    """Shapes of the state of the paper's run."""
    config = get_config()
    task, transformation = pretraining.Pretraining(config), optimizer.make_optimizer(config.optimizer, 1)
    return jax.eval_shape(
        lambda key, batch: step.create_state(task, transformation, key, batch),
        jax.random.key(0),
        plan.abstract_batch(config),
    )


def specs_by_path(state, mesh, rules):
    shardings = sharding.state_shardings(state, mesh, rules)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(shardings)
    }


def test_the_papers_parameters_and_moments_lie_alike(state):
    specs = specs_by_path(state, FSDP, get_config().sharding)
    expected = {
        "network/audio_cnn/stem_time/kernel": PartitionSpec(),  # has too few numbers
        "network/visual_cnn/stage4_block1/b/kernel": PartitionSpec(None, None, None, None, ("fsdp",)),
        "network/visual_cnn/stage4_block1/shortcut/kernel": PartitionSpec(None, None, None, None, ("fsdp",)),
        "network/visual_cnn/stage4_block2/a/kernel": PartitionSpec(None, None, None, ("fsdp",)),
        "network/visual_cnn/stem_norm/scale": PartitionSpec(),
        "network/transformer/query/u": PartitionSpec(None, None, None, ("fsdp",)),
        "network/transformer/mlp_out/v": PartitionSpec(None, None, ("fsdp",)),
        "network/transformer/query/a": PartitionSpec(None, None, None, ("fsdp",)),
        "network/multimodal_embedding/position": PartitionSpec(),
        "predictors_visual/bilinear": PartitionSpec(None, ("fsdp",)),
    }
    moments = {path.split("/mu/")[0] for path in specs if "/mu/" in path}
    assert len(moments) == 1
    for path, spec in expected.items():
        assert specs[f"params/{path}"] == spec, path
        for moment in ("mu", "nu", "nu_max"):
            assert specs[f"{moments.copy().pop()}/{moment}/{path}"] == spec, path


def test_fully_sharded_state_takes_an_eighth(state):
    shardings = sharding.state_shardings(state, FSDP, get_config().sharding)
    leaves = list(zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True))
    whole = sum(leaf.size for leaf, _ in leaves)
    share = sum(leaf.size // (8 if lies.spec != PartitionSpec() else 1) for leaf, lies in leaves)
    assert whole / 8 < share < whole / 7.5


def test_other_meshes_leave_the_state_whole(state):
    for sizes in ((8, 1, 1), (1, 1, 8)):
        mesh = AbstractMesh(sizes, ("data", "fsdp", "clip"))
        assert set(specs_by_path(state, mesh, get_config().sharding).values()) == {PartitionSpec()}


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((16, 8), PartitionSpec(("fsdp",))),
        ((8, 8), PartitionSpec(None, ("fsdp",))),
        ((20, 8), PartitionSpec(None, ("fsdp",))),
        ((9, 20), PartitionSpec()),
        ((8,), PartitionSpec(("fsdp",))),
        ((), PartitionSpec()),
    ],
)
def test_longest_axis_that_divides(shape, spec):
    rules = ConfigDict({"parameters": ((r"x", ("fsdp",)),), "smallest": 1})
    assert specs_by_path({"x": jax.ShapeDtypeStruct(shape, np.float32)}, FSDP, rules)["x"] == spec


def test_parameter_without_a_rule_is_an_error():
    rules = ConfigDict({"parameters": ((r"/kernel$", ("fsdp",)),), "smallest": 1})
    with pytest.raises(UserError, match=r"No pattern of config.sharding.parameters is found in dense/gain: add one"):
        sharding.state_shardings({"dense": {"gain": np.ones(3)}}, FSDP, rules)


def test_rows_and_clips_of_a_batch():
    shapes = plan.abstract_batch(get_config("data.keep_incomplete=True"))
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "clip"))
    specs = {name: lies.spec for name, lies in sharding.batch_shardings(shapes, mesh, get_config().sharding).items()}
    rows = ("data", "fsdp")
    assert specs == {
        "frames": PartitionSpec(rows, ("clip",)),
        "log_mel": PartitionSpec(rows, ("clip",)),
        "has_video": PartitionSpec(rows),
        "has_audio": PartitionSpec(rows),
    }


def test_batch_keeps_values_and_rows():
    config = get_config("demo")
    rows = np.arange(8 * 3, dtype=np.uint8).reshape(8, 3)
    batch = sharding.shard_batch({"frames": rows}, make_mesh(config.mesh), config.sharding)
    np.testing.assert_array_equal(batch["frames"], rows)
    assert batch["frames"].dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("batch_size", 12, "batch_size=12 does not divide over 4 devices of the mesh in 2 accumulation.*multiple of 8"),
        ("data.num_clips", 6, "num_clips=6 does not divide over 2 devices of the mesh in 2 chunk.*multiple of 4"),
    ],
)
def test_layouts_that_do_not_fit_are_sentences(name, value, sentence):
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "clip"))
    config = get_config("demo")
    config.memory.update(accumulation_steps=2, clip_chunks=2)
    sharding.check_layout(config, mesh)
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=sentence):
        sharding.check_layout(config, mesh)
