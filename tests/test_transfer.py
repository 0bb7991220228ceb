"""The four downstream protocols from preparation to result, at reduced size, on media in the publishers' formats.

A process of its own, which runs this file, prepares, trains and tests in it; another tests one of the runs again on 8
simulated devices. UCF101 is trained and watched by the documented commands themselves.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.evaluation.runs import evaluate_run
from avshare_jax.protocol import run_protocol
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training.finetune import finetune
from tests import transfer
from tests.data.sources import learnable

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
RATES = {"optimizer.learning_rate": 0.01, "optimizer.network_learning_rate": 0.01}
TREES = {
    "ucf101": learnable.make_ucf101,
    "esc50": learnable.make_esc50,
    "kinetics_sounds": learnable.make_kinetics_sounds,
    "charades": learnable.make_charades,
}


def measure(folder: Path) -> dict:
    """Everything that the tests look at."""
    data, results = folder / "data", {}
    for name, make_tree in TREES.items():
        transfer.prepare(make_tree(folder / "trees" / name), name, data)

    run = folder / "kinetics_sounds"
    options = {"batch_size": 8, "total_steps": 60, "checkpoint_every": 20, "log_every": 1, **RATES}
    config = transfer.reduced("configs/finetune_kinetics_sounds.py", "kinetics_sounds", data, **options)
    finetune(config, run)
    # As if it had been killed after step 40 and before its checkpoint of step 60.
    shutil.copytree(run, folder / "killed")
    shutil.rmtree(folder / "killed" / "checkpoints" / "60")
    finetune(config, folder / "killed")
    results["batches"] = [evaluate_run(transfer.evaluation_config(batch_size=size), run) for size in (48, 18)]
    results["videos"] = [json.loads(line) for line in (run / "eval" / "60.videos.jsonl").read_text().splitlines()]

    # Two of the five folds, on the frozen audio CNN of the run above.
    options = {"batch_size": 16, "total_steps": 60, "init_from": str(run), "num_splits": 2, **RATES}
    config = transfer.reduced("configs/linear_esc50.py", "esc50", data, **options)
    protocols = [run_protocol(config, transfer.evaluation_config(), str(folder / "esc50")) for _ in range(2)]
    results["protocols"] = protocols

    # Early fusion has one Transformer, which compiles sooner.
    options = {"batch_size": 8, "total_steps": 60, "model.fusion": "early", **RATES}
    config = transfer.reduced("configs/finetune_charades.py", "charades", data, **options)
    finetune(config, folder / "charades")
    results["charades"] = evaluate_run(transfer.evaluation_config(), folder / "charades")
    return results


def start(*arguments, devices=1, **pipes):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, text=True, **pipes)


def run(*arguments, devices=1):
    process = start(*arguments, devices=devices, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def results(folder):
    return json.loads(run(__file__, "measure", folder).splitlines()[-1])


def test_kinetics_sounds_needs_both_modalities(results):
    found = results["batches"][0]["measures"]
    # Image or sound alone leaves two of four classes.
    assert found["both"]["top1"] >= 0.8
    assert all(0.25 <= found[name]["top1"] <= 0.7 for name in ("visual", "audio"))
    assert [found[name]["num_videos"] for name in ("both", "visual", "audio")] == [15, 15, 15]


def test_every_video_is_tested_once_or_skipped_with_a_reason(results):
    data = results["batches"][0]["dataset"]
    counts = {name: data[name] for name in ("num_classes", "num_records", "num_videos", "num_skipped", "num_missing")}
    assert counts == {"num_classes": 4, "num_records": 16, "num_videos": 15, "num_skipped": 1, "num_missing": 1}
    assert data["skipped"] == {"has no sound": 1}
    ids = [row["video_id"] for row in results["videos"]]
    assert len(ids) == len(set(ids)) == 16
    assert [row["video_id"] for row in results["videos"] if "skipped" in row] == ["ks_0_00011_000000_000010"]
    right = [row["labels"] == [max(row["best"], key=row["best"].get)] for row in results["videos"] if "best" in row]
    assert np.mean(right) == results["batches"][0]["measures"]["both"]["top1"]
    assert np.sum(results["batches"][0]["confusion"]) == 15


def assert_same(one, other):
    """Everything but the scores' rounding."""
    assert one.keys() == other.keys()
    for name in one:
        if name == "measures":
            for choice in one[name]:
                assert one[name][choice] == pytest.approx(other[name][choice], abs=1e-9)
        else:
            assert one[name] == other[name]


def test_batches_that_do_not_divide_the_split_change_nothing(results):
    assert_same(*results["batches"])


def test_8_devices_change_nothing(results, folder):
    shutil.copytree(folder / "kinetics_sounds", folder / "devices")
    output = run(__file__, "evaluate", folder / "devices", devices=8)
    assert_same(json.loads(output.splitlines()[-1]), results["batches"][0])
    rows = [json.loads(line) for line in (folder / "devices" / "eval" / "60.videos.jsonl").read_text().splitlines()]
    for row, expected in zip(rows, results["videos"], strict=True):
        assert row.get("best") == pytest.approx(expected.get("best"), abs=2e-6) if "best" in row else row == expected


def test_a_killed_run_goes_on_with_the_same_numbers(results, folder):
    lines = [
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("kinetics_sounds", "killed")
    ]
    clock = ("per_second", "share", "eta_seconds")
    learned = [[{k: v for k, v in row.items() if not k.endswith(clock)} for row in rows] for rows in lines]
    assert len(learned[0]) == 60 and learned[0] == learned[1]


def test_esc50_by_folds(results, folder):
    first, second = results["protocols"]
    assert first == second == json.loads((folder / "esc50" / "protocol.json").read_text())
    top1 = [split["measures"]["audio"]["top1"] for split in first["splits"]]
    assert [split["dataset"]["split"] for split in first["splits"]] == ["test1", "test2"]
    evaluation = json.loads((folder / "esc50" / "split_1" / "eval" / "60.json").read_text())
    assert evaluation["overlap"]["pretrained_on"] == "kinetics_sounds"
    assert evaluation["overlap"]["overlapping_videos"] == 0
    assert first["mean"]["audio"]["top1"] == pytest.approx(np.mean(top1))
    # Chance: 0.25 both.
    assert np.mean(top1) >= 0.5 and first["mean"]["audio"]["mean_average_precision"] >= 0.7
    assert first["std"]["audio"]["top1"] == pytest.approx(np.std(top1, ddof=1))


def test_charades_finds_several_actions(results):
    found, data = results["charades"]["measures"], results["charades"]["dataset"]
    assert data["multi_label"] and data["num_classes"] == 3 and data["num_videos"] == 16
    assert results["charades"]["views"]["pool"] == "max"
    assert found["both"]["mean_average_precision"] >= found["both"]["chance_of_precision"] + 0.25


def test_pictures_and_pages_are_written(results, folder):
    for name in ("kinetics_sounds", "charades", "esc50/split_1"):
        report = folder / name / "report"
        assert (report / "confusion.png").read_bytes().startswith(b"\x89PNG")
        assert "confusion.png" in (report / "index.html").read_text()
        assert any((folder / name / "tensorboard" / "eval").iterdir())
    assert "skipped (1 has no sound)" in (folder / "kinetics_sounds" / "report" / "index.html").read_text()


def test_commands_train_and_watch_ucf101(results, folder):
    options = {"batch_size": 8, "total_steps": 40, "checkpoint_every": 20, **RATES}
    config = transfer.reduced("configs/finetune_ucf101.py", "ucf101", folder / "data", **options)
    plain = load_config_file("configs/finetune_ucf101.py")
    changed = [change for change in transfer.differences(plain, config) if "=None" not in change]
    command = ["main.py", "--config=configs/finetune_ucf101.py:split=2", f"--workdir={folder / 'ucf101'}", *changed]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    watching = ["eval.py", "--config=configs/eval.py", f"--workdir={folder / 'ucf101'}", "--watch"]
    watcher = start(*watching, "--config.poll_seconds=0.2", **pipes)
    trainer = start(*command, **pipes)
    for process in (trainer, watcher):
        output, errors = process.communicate(timeout=600)
        assert (process.returncode, errors) == (0, "")
    evaluations = [json.loads((folder / "ucf101" / "eval" / f"{step}.json").read_text()) for step in (20, 40)]
    assert [found["step"] for found in evaluations] == [20, 40]
    assert evaluations[1]["dataset"]["split"] == "test2" and evaluations[1]["split"] == 2
    assert evaluations[1]["measures"]["visual"]["top1"] >= 0.8  # chance: 1/3
    assert "3 classes, 18 videos tested" in output and "the run has all of its steps" in output.lower()


def test_data_sets_that_do_not_fit_get_a_sentence(results, folder):
    changes = {"data.name": "esc50", "data.eval_split": "test1"}
    with pytest.raises(UserError, match="The classes of the data set esc50 are not those of the run in"):
        evaluate_run(transfer.evaluation_config(**changes), folder / "kinetics_sounds")
    with pytest.raises(DatasetError, match="have several labels, which config.task.loss.name does not fit"):
        evaluate_run(transfer.evaluation_config(**{"data.name": "charades"}), folder / "kinetics_sounds")
    changes = {"data.name": "kinetics_sounds", "data.eval_split": "test"}
    with pytest.raises(DatasetError, match="has no split 'test'"):
        evaluate_run(transfer.evaluation_config(**changes), folder / "kinetics_sounds")


if __name__ == "__main__":
    task, place = sys.argv[1:]
    if task == "measure":
        found = measure(Path(place))
    else:
        found = evaluate_run(transfer.evaluation_config(batch_size=48), place)
    print(json.dumps(found))
