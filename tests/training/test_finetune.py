"""What a downstream run checks before it starts."""

import shutil
from functools import partial

import jax
import numpy as np
import pytest

from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.mixtures import open_mixture
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training import finetune, plan
from avshare_jax.training.checkpoints import claim_workdir
from avshare_jax.training.step import create_state
from tests.data.conftest import TINY_FRONTEND
from tests.data.conftest import dataset_dir as dataset_dir  # a fixture


def test_a_workdir_is_not_claimed_before_there_are_weights_to_start_from(make_config, imported, tmp_path):
    """The workdir is then free for the corrected command."""
    started = make_config("esc50")
    claim_workdir(tmp_path / "started", started, {"name": "tiny", "fingerprint": "1"})
    shutil.copytree(imported[0] / "whole", tmp_path / "damaged")
    for path in (tmp_path / "damaged" / "checkpoints").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for source, sentence in {
        imported[0] / "deaf": "has no audio_cnn",
        tmp_path / "started": "no checkpoint yet",
        tmp_path / "damaged": "damaged",
    }.items():
        with pytest.raises(UserError, match=sentence):
            finetune.finetune(make_config("esc50", init_from=str(source)), tmp_path / "run")
        assert not (tmp_path / "run" / "config.json").exists()


def test_no_run_to_start_from_gets_a_sentence(make_config, tmp_path):
    with pytest.raises(UserError, match="There is no run in .*nowhere"):
        finetune.finetune(make_config("ucf101", init_from=str(tmp_path / "nowhere")), tmp_path / "run")


class Training:
    """Stands for `loop.train`: records the run, and starts as often as it is told to."""

    def __init__(self, starts):
        self.starts, self.states = starts, []

    def __call__(self, config, workdir, *, task, dataset_identity, start_from, make_optimizer, is_trained, **_):
        claim_workdir(workdir, config, dataset_identity)
        create = partial(create_state, task, make_optimizer(config.optimizer, 10), is_trained=is_trained)
        shapes = jax.eval_shape(create, jax.random.key(0), plan.abstract_batch(config))
        for _ in range(self.starts):
            self.states.append(start_from(jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)))


def test_a_run_that_starts_again_does_so_from_the_same_weights(make_config, imported, tmp_path, monkeypatch):
    """It does where the only checkpoint is damaged, whether that is found by this process or was by one before."""
    config = make_config("kinetics_sounds", init_from=str(imported[0] / "whole"))
    training = Training(starts=2)
    monkeypatch.setattr(finetune, "train", training)
    finetune.finetune(config, tmp_path)
    monkeypatch.setattr(finetune, "latest_step", lambda _: 5)
    finetune.finetune(config, tmp_path)
    assert len(training.states) == 4
    for state in training.states:
        jax.tree.map(np.testing.assert_array_equal, state.params["network"], imported[1]["params"])


def test_a_run_goes_on_without_the_one_that_it_started_from(make_config, imported, tmp_path, monkeypatch):
    shutil.copytree(imported[0] / "whole", tmp_path / "source")
    config = make_config("kinetics_sounds", init_from=str(tmp_path / "source"))
    monkeypatch.setattr(finetune, "train", Training(starts=0))
    finetune.finetune(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "source")
    monkeypatch.setattr(finetune, "latest_step", lambda _: 5)
    finetune.finetune(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("task", "changes", "sentence"),
    [
        ("ucf101", {"split": 4}, "config.split=4 must be between 1 and config.num_splits=3"),
        ("ucf101", {"task.frozen": ("audio_cnn",)}, "task.frozen names audio_cnn, which the network does not have"),
        ("ucf101", {"task.modalities": ("sight",)}, "config.task.modalities=.*must be"),
        ("ucf101", {"task.heads": ("hands",)}, "holds 'hands', which must be clips or tokens"),
        ("ucf101", {"augment.modality_dropout": 0.5}, "the task has one: use 0"),
        ("ucf101", {"test.crop": 12}, "config.test.crop=12 must be at most config.test.short_side=10"),
        ("ucf101", {"task.loss.name": "margin"}, "config.task.loss.name='margin' must be cross_entropy, multi_margin"),
        ("ucf101", {"task.loss.name": "multi_margin"}, "'multi_margin' needs a number as config.task.loss.margin"),
        ("ucf101", {"epochs": 0.0}, "config.epochs=0.0 must be above 0"),
        ("ucf101", {"task.loss.name": "binary_cross_entropy"}, "have one label, which config.task.loss.name does not"),
        ("ucf101", {"task.class_names": ("a", "b", "c")}, "has 2 classes, but the config has 3"),
        ("ucf101", {"task.class_names": ("even", "uneven")}, "number 1 is 'odd' in the data set and 'uneven' there"),
        ("kinetics_sounds", {"model.positions": 2}, "num_clips=2 is too many: the network has config.model.pos"),
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
