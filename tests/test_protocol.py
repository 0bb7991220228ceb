"""Mean and standard deviation over the splits of a protocol; what runs them is tested by test_transfer.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from avshare_jax import protocol


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


def test_a_config_of_no_task_gets_a_sentence():
    result = subprocess.run(
        [sys.executable, "-m", "avshare_jax.protocol", "--config=configs/pretrain.py:demo"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stderr == "error: The config demo is of no downstream task: choose one of configs/finetune_*.py.\n"
