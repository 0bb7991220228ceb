"""What a downstream run takes from the one that it starts from."""

from functools import partial

import jax
import numpy as np
import pytest

from avshare_jax.data.mixtures import open_mixture
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training import finetune, plan, pretrained
from avshare_jax.training.classification import Classification
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.optimizer import make_finetuning_optimizer
from avshare_jax.training.step import create_state
from tests import transfer


def shapes_of(config):
    config = finetune.with_classes_and_steps(config, open_mixture(config.data), "no workdir")
    return pretrained.network_shapes(config, Classification(config), make_mesh(config.mesh))


@pytest.mark.parametrize("task", transfer.CONFIG_FILES)
def test_weights_come_from_where_the_config_says(make_config, imported, task):
    directory, variables = imported
    config = make_config(task, init_from=str(directory / "whole"))
    # All sizes are the source's: those of the paper are not asked for.
    config.model = load_config_file(transfer.CONFIG_FILES[task]).model
    config.model = pretrained.starting_model(config, "no workdir")
    assert config.model.hidden == transfer.MODEL["hidden"]
    weights = pretrained.load_network(config, shapes_of(config))
    for name, parts in weights.items():
        assert parts.keys() == shapes_of(config)[name].keys()
        for part, found in parts.items():
            jax.tree.map(np.testing.assert_array_equal, found, variables[name][part])


def test_weights_replace_those_of_the_network_alone(make_config, imported):
    """They lie as those did that they replace."""
    directory, variables = imported
    config = make_config("kinetics_sounds", init_from=str(directory / "whole"))
    config = finetune.with_classes_and_steps(config, open_mixture(config.data), "no workdir")
    task, mesh = Classification(config), make_mesh(config.mesh)
    optimizer = make_finetuning_optimizer(config.optimizer, 10)
    create = partial(create_state, task, optimizer, is_trained=task.is_trained)
    shapes = jax.eval_shape(create, jax.random.key(0), plan.abstract_batch(config))
    state = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)
    weights = pretrained.load_network(config, pretrained.network_shapes(config, task, mesh))
    loaded = pretrained.put_network(weights, state)
    jax.tree.map(np.testing.assert_array_equal, loaded.params["network"], variables["params"])
    jax.tree.map(np.testing.assert_array_equal, loaded.batch_stats["network"], variables["batch_stats"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(loaded.params["clip_head"]))
    lies = jax.tree.map(lambda old, new: old.sharding == new.sharding, state.params, loaded.params)
    assert all(jax.tree.leaves(lies))


def test_a_source_without_a_needed_part_gets_a_sentence(make_config, imported):
    deaf = str(imported[0] / "deaf")
    config = make_config("esc50", init_from=deaf)
    with pytest.raises(UserError, match=f"{deaf} has no audio_cnn, which linear_esc50 needs"):
        pretrained.load_network(config, shapes_of(config))
    pretrained.load_network(make_config("ucf101", init_from=deaf), shapes_of(make_config("ucf101")))


def test_the_plan_says_where_sizes_come_from(make_config, imported):
    """A dropout of the recipe's default counts as not given."""
    whole = str(imported[0] / "whole")
    config = make_config("kinetics_sounds", init_from=whole)
    for asked, said in {0.3: "; dropout=0.3 from config.model.", 0.1: f", dropout=0.0 as in {whole}."}.items():
        given = load_config_file(transfer.CONFIG_FILES["kinetics_sounds"]).model
        given.dropout = asked
        config.model = given
        config.model = pretrained.starting_model(config, "no workdir")
        line = pretrained.describe_sizes(config, given)
        assert line.startswith("  The network has hidden=16, layers=1, heads=2, rank=None, dtype=float32")
        assert line.endswith(said)
    config.init_from = None
    assert pretrained.describe_sizes(config, config.model).endswith("dropout=0.0 from config.model.")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.hidden": 24}, "of another architecture: config.model.hidden is 16 there and 24 here"),
        ({"model.visual_cnn.width": 8}, "of another architecture: config.model.visual_cnn is"),
    ],
)
def test_another_architecture_gets_a_sentence(make_config, imported, changes, sentence):
    config = make_config("kinetics_sounds", init_from=str(imported[0] / "whole"), **changes)
    with pytest.raises(UserError, match=sentence):
        pretrained.starting_model(config, "no workdir")


def test_sizes_that_are_the_same_may_be_given(make_config, imported):
    config = make_config("kinetics_sounds", init_from=str(imported[0] / "whole"), **{"model.dropout": 0.2})
    model = pretrained.starting_model(config, "no workdir")
    assert model.to_dict() == config.model.to_dict() and model.dropout == 0.2


def test_another_front_end_is_told(make_config, imported):
    """The one of `imported` is the demo's."""
    config = make_config("kinetics_sounds", init_from=str(imported[0] / "whole"))
    recipe = load_config_file("configs/pretrain.py:demo").data.frontend
    found = pretrained.frontend_differences(config)
    assert f"mels={recipe.mels} there and {config.data.frontend.mels} here" in found
    config.data.frontend.update(recipe)
    assert not pretrained.frontend_differences(config)
    config.init_from = None
    assert not pretrained.frontend_differences(config)
