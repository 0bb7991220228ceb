"""The Slurm job, from its submission to its place in the queue after it was interrupted."""

import os
import signal
import time

import pytest

from tests.launch import fakes

ARGUMENTS = ("--config=configs/pretrain.py", "--workdir=/shared/runs/a b")
JOB = {"SLURM_JOB_ID": "42", "SLURM_NTASKS_PER_NODE": "1"}
# Starts main.py where the options of srun end, as the only task.
SRUN = """
sys.argv = sys.argv[sys.argv.index("main.py"):]
"""
TRAINED = ["srun", "--kill-on-bad-exit=0", "--wait=600", ".venv/bin/python", "-u", "main.py", *ARGUMENTS]


@pytest.fixture
def slurm(tmp_path):
    slurm = fakes.Fakes(tmp_path, fakes.make_checkout(tmp_path / "checkout"))
    (slurm.checkout / ".venv" / "bin").mkdir(parents=True)
    (slurm.checkout / ".venv" / "bin" / "python").symlink_to("/bin/true")
    slurm.program("srun", SRUN + fakes.MAIN)
    for name in ("sbatch", "scontrol"):
        slurm.program(name, fakes.NOTE_ONLY)
    yield slurm
    (tmp_path / "release").touch()  # Ends what still waits.


def job(slurm, *options, **variables):
    return slurm.run("slurm.sbatch", *options, "--", *ARGUMENTS, **JOB, **variables)


@pytest.mark.parametrize("code, requeued", [(0, False), (1, False), (75, True), (134, True), (137, True)])
def test_what_a_restart_can_help_goes_back_into_the_queue(slurm, code, requeued):
    slurm.scenario(f"exit {code}")
    result = job(slurm)
    assert slurm.calls("srun") == [TRAINED]
    assert slurm.calls("scontrol") == ([["scontrol", "requeue", "42"]] if requeued else [])
    assert result.returncode == (0 if requeued else code)
    assert ("would repeat" in result.stderr) == (code == 1)


def test_requeues_are_bounded(slurm):
    slurm.scenario("exit 134", "exit 134")
    assert job(slurm, "--max_restarts=3", SLURM_RESTART_COUNT="2").returncode == 0
    assert len(slurm.calls("scontrol")) == 1
    result = job(slurm, "--max_restarts=3", SLURM_RESTART_COUNT="3")
    assert result.returncode == 134 and "Gave up after --max_restarts=3" in result.stderr
    assert len(slurm.calls("scontrol")) == 1


def test_requeue_that_is_refused_is_an_error(slurm):
    slurm.scenario("exit 75")
    (slurm.folder / "scontrol.code").write_text("1")
    result = job(slurm)
    assert result.returncode == 75 and "scontrol did not requeue job 42" in result.stderr


@pytest.mark.parametrize("sent, requeued", [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_job_that_is_announced_to_leave_comes_back_and_one_that_is_canceled_does_not(slurm, sent, requeued):
    slurm.scenario("wait")
    process = slurm.start("slurm.sbatch", "--", *ARGUMENTS, **JOB)
    deadline = time.monotonic() + fakes.TIMEOUT
    while not ((slurm.folder / "up-step").exists() and (slurm.folder / "up-step").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sent)
    if sent == signal.SIGTERM:  # Slurm sends it to the step as well.
        time.sleep(0.1)
        os.kill(int((slurm.folder / "up-step").read_text()), sent)
    _, errors = process.communicate(timeout=fakes.TIMEOUT)
    assert slurm.calls("scontrol") == ([["scontrol", "requeue", "42"]] if requeued else []), errors
    assert process.returncode == (0 if requeued else 75)


def test_one_process_per_node_gets_all_of_its_gpus(slurm):
    slurm.scenario(*["exit 0"] * 3)
    job(slurm, SLURM_GPUS_ON_NODE="4", SLURM_CPUS_PER_TASK="16")
    job(slurm, SLURM_GPUS_ON_NODE="1")
    slurm.run("slurm.sbatch", "--", *ARGUMENTS, SLURM_JOB_ID="42", SLURM_NTASKS_PER_NODE="4", SLURM_GPUS_ON_NODE="4")
    first, second, third = (environment for _, environment in slurm.starts("step"))
    assert first["JAX_LOCAL_DEVICE_IDS"] == "0,1,2,3" and first["SRUN_CPUS_PER_TASK"] == "16"
    assert "JAX_LOCAL_DEVICE_IDS" not in second and "JAX_LOCAL_DEVICE_IDS" not in third


def test_outside_a_job_it_submits_itself(slurm):
    result = slurm.run("slurm.sbatch", "--nodes=4", "--time=12:00:00", "--max_restarts=5", "--", *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    submitted = ["sbatch", "--nodes=4", "--time=12:00:00", "launch/slurm.sbatch", "--max_restarts=5", "--", *ARGUMENTS]
    assert slurm.calls() == [submitted]


def test_options_for_slurm_stand_before_the_first_command():
    lines = (fakes.ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
    heading = [line for line in lines[1 : lines.index("set -euo pipefail")] if line.startswith("#SBATCH ")]
    options = {line.removeprefix("#SBATCH ") for line in heading}
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@120", "--ntasks-per-node=1"} <= options


def test_dry_run_calls_nothing(slurm):
    result = slurm.run("slurm.sbatch", "--nodes=4", "--dry_run", "--", *ARGUMENTS)
    assert result.stdout.splitlines() == [
        "sbatch --nodes=4 launch/slurm.sbatch --max_restarts=30 -- "
        "--config=configs/pretrain.py '--workdir=/shared/runs/a b' ",
        "# The job then runs:",
        " ".join(TRAINED[:-1]) + " '--workdir=/shared/runs/a b' ",
        "# and when it is interrupted:",
        'scontrol requeue "$SLURM_JOB_ID"',
    ]
    assert job(slurm, "--dry_run").stdout == " ".join(TRAINED[:-1]) + " '--workdir=/shared/runs/a b' \n"
    assert slurm.calls() == []


@pytest.mark.parametrize(
    "variables, options, sentence",
    [
        ({}, ["--nodes=2"], "come after --"),
        ({}, ["--"], "need --workdir=DIR"),
        ({}, ["--", "--workdir=runs/a"], "need --workdir=DIR"),
        ({}, ["--max_restarts=few", "--", "--workdir=/a"], "--max_restarts=few must be a whole number"),
        (JOB, ["--nodes=2", "--", "--workdir=/a"], "Options of sbatch come before"),
    ],
)
def test_wrong_usage_is_a_sentence(slurm, variables, options, sentence):
    result = slurm.run("slurm.sbatch", *options, **variables)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and sentence in result.stderr
    assert slurm.calls() == []


def test_what_the_job_misses_is_a_sentence(slurm):
    (slurm.bin / "sbatch").unlink()
    result = slurm.run("slurm.sbatch", "--", *ARGUMENTS)
    assert result.returncode == 1 and "sbatch is not on the PATH" in result.stderr
    (slurm.checkout / "main.py").unlink()
    result = job(slurm)
    assert result.returncode == 1 and "is not the project's folder" in result.stderr
    assert slurm.calls() == []
