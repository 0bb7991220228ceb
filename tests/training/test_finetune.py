"""What a downstream run checks before it starts, and the weights that it starts from."""

import shutil

import numpy as np
import pytest

from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.mixtures import open_mixture
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training import finetune
from avshare_jax.training.checkpoints import claim_workdir
from tests.data.conftest import TINY_FRONTEND
from tests.data.conftest import dataset_dir as dataset_dir  # a fixture


def test_a_workdir_is_not_claimed_before_there_are_weights_to_start_from(make_config, imported, tmp_path):
    """The workdir is then free for the corrected command."""
    started = make_config("esc50")
    claim_workdir(tmp_path / "started", started, {"name": "tiny", "fingerprint": "1"})
    shutil.copytree(imported[0] / "whole", tmp_path / "damaged")
    largest = max((tmp_path / "damaged" / "checkpoints").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
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
