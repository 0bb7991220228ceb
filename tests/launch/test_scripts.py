"""What all scripts have in common, and local.sh."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch")])
SCRIPTS = [*LAUNCH, ROOT / "tests" / "run.sh", ROOT / ".ci" / "run"]
COMMANDS = [script for script in LAUNCH if script.name != "environment.sh"]  # That one is sourced.


def run(*words):
    return subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_shellcheck_has_nothing_to_say():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    result = run(shellcheck, "--external-sources", "--source-path=SCRIPTDIR", *SCRIPTS)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("script", COMMANDS, ids=lambda script: script.name)
def test_help(script):
    result = run(script, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(f"Usage: launch/{script.name} ") and "--dry_run" in result.stdout


def test_local_dry_run_prints_the_commands():
    result = run(
        "launch/local.sh", "--dry_run", "--config=configs/pretrain.py", "--workdir=/a b", "--config.log_every=5"
    )
    assert result.returncode == 0 and result.stderr == ""
    assert [line.strip() for line in result.stdout.splitlines()] == [
        "source launch/environment.sh",
        r".venv/bin/python main.py --config=configs/pretrain.py --workdir=/a\ b --config.log_every=5",
        r".venv/bin/python eval.py --config=configs/eval.py --workdir=/a\ b",
    ]


def test_local_needs_a_folder_for_another_config():
    result = run("launch/local.sh", "--dry_run", "--config=configs/pretrain.py")
    assert result.returncode == 2 and "say --workdir=DIR" in result.stderr


def test_commands_of_a_simulated_pod_can_be_typed():
    result = subprocess.run(
        ["bash", "launch/simulate_pod.sh", "2", "--dry_run", "--workdir=/a b", "--config.note=$x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, _ = map(shlex.split, result.stdout.splitlines())
    assert first[:4] == [".venv/bin/python", "main.py", "--workdir=/a b", "--config.note=$x"]
