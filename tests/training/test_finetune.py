"""What a downstream run checks before it starts, and the weights that it starts from."""

from functools import partial

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.mixtures import open_mixture
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.interop.workdirs import write_imported
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training import finetune, plan
from avshare_jax.training.checkpoints import claim_workdir
from avshare_jax.training.classification import Classification
from avshare_jax.training.optimizer import make_finetuning_optimizer
from avshare_jax.training.step import create_state
from tests import transfer
from tests.data.conftest import TINY_FRONTEND
from tests.data.conftest import dataset_dir as dataset_dir  # a fixture

FILES = {
    "ucf101": "configs/finetune_ucf101.py",
    "esc50": "configs/linear_esc50.py",
    "kinetics_sounds": "configs/finetune_kinetics_sounds.py",
}


@pytest.fixture(scope="module")
def make_config(dataset_dir):
    """A reduced config on the data set "tiny", whose classes are even and odd."""

    def make(task, **changes):
        config = transfer.reduced(FILES[task], "tiny", dataset_dir)
        config.data.update(train_split="train", eval_split="test", frontend=ConfigDict(vars(TINY_FRONTEND)))
        config.data.update(min_short_side=10, max_short_side=16, crop=8)
        config.test.update(short_side=10, crop=8)
        config.update(batch_size=4)
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture(scope="module")
def imported(make_config, tmp_path_factory, random_variables):
    """A workdir with an imported network and another without its audio CNN, and the variables."""
    directory, config = tmp_path_factory.mktemp("imported"), make_config("kinetics_sounds")
    network = models.build(config.model)
    batch = {"frames": np.zeros((1, 1, 2, 8, 8, 3), np.float32), "log_mel": np.zeros((1, 1, 8, 8), np.float32)}
    variables = random_variables(lambda key: network.init(key, batch, train=False))
    recipe = load_config_file("configs/pretrain.py:demo,data.num_clips=2")
    write_imported(str(directory / "whole"), recipe, config.model, variables, {})
    parts = {name: {part: x for part, x in tree.items() if part != "audio_cnn"} for name, tree in variables.items()}
    write_imported(str(directory / "deaf"), recipe, config.model, parts, {})
    return directory, variables


def initial_state(config):
    config = finetune.with_classes_and_steps(config, open_mixture(config.data), "no workdir")
    task = Classification(config)
    create = partial(create_state, task, make_finetuning_optimizer(config.optimizer, 10), is_trained=task.is_trained)
    shapes = jax.eval_shape(create, jax.random.key(0), plan.abstract_batch(config))
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize("task", FILES)
def test_weights_come_from_where_the_config_says(make_config, imported, task):
    directory, variables = imported
    config = make_config(task, init_from=str(directory / "whole"))
    # All sizes are the source's: those of the paper are not asked for.
    config.model = load_config_file(FILES[task]).model
    config.model = finetune.starting_model(config, "no workdir")
    assert config.model.hidden == transfer.MODEL["hidden"]
    state = initial_state(config)
    loaded = finetune.load_network(config, state)
    for name, tree in {"params": loaded.params, "batch_stats": loaded.batch_stats}.items():
        for part, found in tree["network"].items():
            jax.tree.map(np.testing.assert_array_equal, found, variables[name][part])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(loaded.params["clip_head"]))


def test_a_source_without_a_needed_part_gets_a_sentence(make_config, imported):
    deaf = str(imported[0] / "deaf")
    config = make_config("esc50", init_from=deaf)
    with pytest.raises(UserError, match=f"{deaf} has no audio_cnn, which linear_esc50 needs"):
        finetune.load_network(config, initial_state(config))
    finetune.load_network(make_config("ucf101", init_from=deaf), initial_state(make_config("ucf101")))


def test_a_workdir_is_not_claimed_before_there_are_weights_to_start_from(make_config, imported, tmp_path):
    """The workdir is then free for the corrected command."""
    started = make_config("esc50")
    claim_workdir(tmp_path / "started", started, {"name": "tiny", "fingerprint": "1"})
    for source, sentence in {
        imported[0] / "deaf": "has no audio_cnn",
        tmp_path / "started": "no checkpoint yet",
    }.items():
        with pytest.raises(UserError, match=sentence):
            finetune.finetune(make_config("esc50", init_from=str(source)), tmp_path / "run")
        assert not (tmp_path / "run" / "config.json").exists()


def test_the_plan_says_where_sizes_come_from(make_config, imported):
    """A dropout of the recipe's default counts as not given."""
    whole = str(imported[0] / "whole")
    config = make_config("kinetics_sounds", init_from=whole)
    for asked, said in {0.3: "; dropout=0.3 from config.model.", 0.1: f", dropout=0.0 as in {whole}."}.items():
        given = load_config_file(FILES["kinetics_sounds"]).model
        given.dropout = asked
        config.model = given
        config.model = finetune.starting_model(config, "no workdir")
        line = finetune.describe_sizes(config, given)
        assert line.startswith("  The network has hidden=16, layers=1, heads=2, rank=None, dtype=float32")
        assert line.endswith(said)
    config.init_from = None
    assert finetune.describe_sizes(config, config.model).endswith("dropout=0.0 from config.model.")


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
        finetune.starting_model(config, "no workdir")


def test_sizes_that_are_the_same_may_be_given(make_config, imported):
    config = make_config("kinetics_sounds", init_from=str(imported[0] / "whole"), **{"model.dropout": 0.2})
    model = finetune.starting_model(config, "no workdir")
    assert model.to_dict() == config.model.to_dict() and model.dropout == 0.2


def test_no_run_to_start_from_gets_a_sentence(make_config, tmp_path):
    with pytest.raises(UserError, match="There is no run in .*nowhere"):
        finetune.finetune(make_config("ucf101", init_from=str(tmp_path / "nowhere")), tmp_path / "run")


@pytest.mark.parametrize(
    ("task", "changes", "sentence"),
    [
        ("ucf101", {"split": 4}, "config.split=4 must be between 1 and config.num_splits=3"),
        ("ucf101", {"task.frozen": ("audio_cnn",)}, "task.frozen names audio_cnn, which the network does not have"),
        ("ucf101", {"task.modalities": ("sight",)}, "config.task.modalities=.*must be"),
        ("ucf101", {"task.heads": ("hands",)}, "must be one or both of clips, tokens"),
        ("ucf101", {"augment.modality_dropout": 0.5}, "the task has one: use 0"),
        ("ucf101", {"test.crop": 12}, "config.test.crop=12 must be at most config.test.short_side=10"),
        ("ucf101", {"task.loss.name": "margin"}, "config.task.loss.name=margin must be one of cross_entropy"),
        ("ucf101", {"task.loss.name": "multi_margin"}, "multi_margin has a margin"),
        ("ucf101", {"epochs": 0.0}, "config.epochs=0.0 must be at least"),
        ("ucf101", {"task.loss.name": "binary_cross_entropy"}, "have one label, which config.task.loss.name does not"),
        ("ucf101", {"task.class_names": ("a", "b", "c")}, "has 2 classes, but the config has 3"),
        ("ucf101", {"task.class_names": ("even", "uneven")}, "number 1 is 'odd' in the data set and 'uneven' there"),
        ("kinetics_sounds", {"model.positions": 2}, "num_clips=2 is too many: the network has 2 positions"),
        ("ucf101", {"data.train_split": "train{split}"}, "has no split 'train1'"),
    ],
)
def test_mistakes_get_a_sentence(make_config, tmp_path, task, changes, sentence):
    with pytest.raises((UserError, DatasetError), match=sentence):
        finetune.finetune(make_config(task, **changes), tmp_path)
    assert not (tmp_path / "checkpoints").exists() or not any((tmp_path / "checkpoints").iterdir())


@pytest.fixture
def write_records(dataset_dir, tmp_path):
    """Writes a data set with the first records of "tiny", changed."""

    def write(splits, class_names=("even", "odd"), **changes):
        records = open_dataset(dataset_dir, "tiny").source("train")
        content = {}
        for split, count in splits.items():
            content[split] = []
            for number in range(count):
                record = {name: value for name, value in records[number].items() if name != "label"}
                names = {name: record[name].decode() for name in ("video_id", "source_id")}
                labels = (class_names[number % len(class_names)],) if class_names else ()
                content[split].append(record | names | {"labels": labels} | changes)
        write_dataset("other", tmp_path / "data", content, Contents(TINY_FRONTEND, 98, class_names=class_names))
        return {"data.name": "other", "data.data_dir": str(tmp_path / "data")}

    return write


@pytest.mark.parametrize(
    ("task", "records", "sentence"),
    [
        ("ucf101", {"class_names": ()}, "has no labels: classification needs at least two classes"),
        ("ucf101", {"class_names": ("one",)}, "has a single class"),
        ("esc50", {"has_audio": False, "log_mel": np.zeros((0, 3), np.float32)}, "each needs sound and a label"),
        ("ucf101", {"has_video": False, "frames": []}, "each needs an image and a label"),
        ("kinetics_sounds", {"has_video": False, "frames": []}, "each needs both image and sound and a label"),
        ("ucf101", {"labels": ()}, "each needs an image and a label"),
    ],
)
def test_data_that_do_not_fit_get_a_sentence(make_config, write_records, tmp_path, task, records, sentence):
    config = make_config(task, **write_records({"train": 2}, **records))
    with pytest.raises((UserError, DatasetError), match=sentence):
        finetune.finetune(config, tmp_path / "run")


def test_an_empty_split_gets_a_sentence(make_config, write_records, tmp_path):
    config = make_config("ucf101", **write_records({"train": 2, "empty": 0}), **{"data.train_split": "empty"})
    with pytest.raises(DatasetError, match="split 'empty'|empty of the data set other is empty"):
        finetune.finetune(config, tmp_path / "run")


def test_a_workdir_of_other_classes_gets_a_sentence(make_config, write_records, tmp_path):
    config = make_config("ucf101", **write_records({"train": 3}, class_names=("a", "b", "c")))
    recorded = config.copy_and_resolve_references()
    recorded.task.class_names = ("a", "b")
    claim_workdir(tmp_path / "run", recorded, {"name": "other", "fingerprint": "1"})
    with pytest.raises(UserError, match=r"other has 3 classes, but the run in .*run has 2: they must be the same"):
        finetune.finetune(config, tmp_path / "run")


def test_epochs_become_steps(make_config):
    config = make_config("ucf101", epochs=6.0)
    mixture = open_mixture(config.data)
    assert finetune.with_classes_and_steps(config, mixture, "no workdir").total_steps == round(6 * 11 / 4)
    config.total_steps = 7
    found = finetune.with_classes_and_steps(config, mixture, "no workdir")
    assert (found.total_steps, found.task.class_names) == (7, ("even", "odd"))


def test_splits_are_filled_in(make_config):
    config = load_config_file("configs/finetune_ucf101.py:split=3")
    assert finetune.with_split(config).data.train_split == "train3"
    assert finetune.with_split(config).data.eval_split == "test3"
