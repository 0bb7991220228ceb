"""The evaluation binary: what a user sees who mistypes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=no_such_run"], ["no run", "no_such_run"]),
        (["--config.batchsize=8"], ["'batchsize'", "batch_size"]),
        (["--config.neighbors.k=(1.5,)"], ["neighbors.k=(1.5,) holds 1.5, which must be a whole number, at least 1."]),
        (["--workdir=~/no_such_run"], ["no run in /home of the test/no_such_run"]),
        (["--config=configs/evla.py"], ["configs/evla.py", "configs/eval.py"]),
    ],
)
def test_mistakes_get_one_sentence(arguments, words):
    result = subprocess.run(
        [sys.executable, "eval.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "HOME": "/home of the test"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)
