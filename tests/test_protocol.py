"""Mean and standard deviation over the splits of a protocol; what runs them is tested by test_transfer.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from avshare_jax import protocol
from avshare_jax.evaluation import runs
from avshare_jax.recipes import classification
from avshare_jax.settings import UserError
from avshare_jax.training import checkpoints
from tests import transfer


def evaluation(split, top1, top5=None):
    data = {"num_classes": 3, "num_videos": 7, "num_skipped": 1, "split": f"test{split}"}
    measures = {"visual": {"num_videos": 7, "top1": top1, "top5": top5, "mean_average_precision": 0.5}}
    return {"split": split, "step": 5, "dataset": data, "measures": measures}


def test_mean_and_deviation_of_splits():
    result = protocol.summarize([evaluation(1, 0.5, 0.9), evaluation(2, 0.7), evaluation(3, 0.9, 0.9)])
    assert result["mean"]["visual"] == {"top1": pytest.approx(0.7), "top5": None, "mean_average_precision": 0.5}
    assert result["std"]["visual"] == {"top1": pytest.approx(0.2), "top5": None, "mean_average_precision": 0.0}
    text = protocol.format_result(result | {"run": "finetune_test", "init_from": None})
    assert "random weights: 3 split(s)" in text and "top-1 70.0 ± 20.0 %, mAP 50.0 ± 0.0 %" in text
    assert "split 2: 3 classes, 7 videos of test2, 1 skipped" in text


def test_a_single_split_has_no_deviation():
    assert protocol.summarize([evaluation(1, 0.5)])["std"]["visual"]["top1"] is None


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """Tests split 2 as a protocol does, where step 5 of two data sets has an evaluation; says whether it was reused."""
    (tmp_path / "eval").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "clips+more", "fingerprint": "1+2"}))
    overlap = {"overlapping_videos": 1, "not_compared": [], "excluded": False}
    recorded = {
        "dataset": {"name": "clips", "fingerprint": "1", "split": "test2"},
        "views": classification("finetune_clips", transfer.FRONTEND, ("visual",)).test.to_dict(),
        "overlap": overlap,
        "measures": {},
    }
    monkeypatch.setattr(checkpoints, "latest_step", lambda workdir: 5)
    asked = []

    def evaluate_run(config, workdir, step):
        asked.append((config.data.eval_split, config.test.spatial_views, step))
        return {"fresh": True}

    monkeypatch.setattr(runs, "evaluate_run", evaluate_run)

    def test(exclude=False, overlap=overlap, fingerprint="1", labels=(), damage=None, **changes):
        dataset = recorded["dataset"] | {"fingerprint": fingerprint} | dict(labels)
        found = recorded | {"overlap": overlap, "dataset": dataset}
        (tmp_path / "eval" / "5.json").write_text(json.dumps(found) if damage is None else damage)
        config = classification("finetune_clips", transfer.FRONTEND, ("visual",))
        config.update(num_splits=3, split=2)
        config.data.update(name="clips+more", eval_split="test{split}")
        config.update_from_flattened_dict(changes)
        eval_config = transfer.evaluation_config(exclude_pretraining_videos=exclude)
        result = protocol.test_split(protocol.test_config(config, eval_config), str(tmp_path))
        assert result == ({"fresh": True} if asked else found)
        return asked or "reused"

    return test


def test_an_evaluation_is_reused_where_it_tested_the_same(tested):
    assert tested() == "reused"
    assert tested(exclude=True, overlap=None) == "reused"
    none_seen = {"overlapping_videos": 0, "not_compared": [], "excluded": False}
    assert tested(exclude=True, overlap=none_seen) == "reused"
    assert tested(labels={"multi_label": False}) == "reused"
    assert tested(labels={"multi_label": True, "num_without_class": 4}) == "reused"


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"data.eval_split": "other{split}"}, ("other2", 3, 5)),
        ({"test.spatial_views": 1}, ("test2", 1, 5)),
        ({"data.name": "more"}, ("test2", 3, 5)),
        ({"fingerprint": "0"}, ("test2", 3, 5)),
        ({"exclude": True}, ("test2", 3, 5)),
        ({"labels": {"multi_label": True}}, ("test2", 3, 5)),
        ({"damage": '{"dataset": {'}, ("test2", 3, 5)),
        ({"damage": "[]"}, ("test2", 3, 5)),
    ],
)
def test_an_evaluation_of_something_else_is_not_reused(tested, changes, asked):
    assert tested(**changes) == [asked]


def test_what_cannot_be_written_is_printed_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("avshare_jax.training.finetune.finetune", lambda *_, **__: None)
    monkeypatch.setattr(protocol, "test_split", lambda config, folder: evaluation(int(folder[-1]), 0.5))
    config = classification("finetune_clips", transfer.FRONTEND, ("visual",))
    config.update(num_splits=2)
    (tmp_path / "protocol.json").mkdir()
    with pytest.raises(UserError, match=r"printed above, and cannot be written to .*protocol\.json \(.*is a directory"):
        protocol.run_protocol(config, transfer.evaluation_config(), str(tmp_path))
    assert "top-1 50.0 ± 0.0 %" in capsys.readouterr().out


def test_a_protocol_runs_where_there_is_no_checkout(tmp_path):
    shutil.copytree(Path(protocol.__file__).parent, tmp_path / "avshare_jax")
    (tmp_path / "own.py").write_text(
        "from avshare_jax import recipes\n"
        "from avshare_jax.data.frontend import FrontEnd\n"
        "def get_config():\n"
        "    config = recipes.classification('finetune_own', FrontEnd(), ('visual',))\n"
        "    config.data.update(name='nothing', data_dir='nowhere')\n"
        "    return config\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "avshare_jax.protocol", "--config=own.py", "--workdir=run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Split 1 of 1, in run/split_1" in result.stdout
    assert result.returncode == 1 and "configs" not in result.stderr and "nowhere" in result.stderr


def test_a_config_of_no_task_gets_a_sentence():
    result = subprocess.run(
        [sys.executable, "-m", "avshare_jax.protocol", "--config=configs/pretrain.py:demo"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: The config is one of pretraining, but this command takes those of a downstream task: "
        "choose another --config.\n"
    )
