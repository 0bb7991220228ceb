"""What pods do to runs, done to real processes: kills, warnings, dead peers, damaged checkpoints, other machines."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from avshare_jax.settings import CRASHED
from avshare_jax.training.goodput import DOWNTIME, PROFILES, RESTORE, STEPS, read_lines, summarize
from avshare_jax.training.hosts import RESTART
from tests.test_main import finish, folder, learned, start, whole_run

pytestmark = [pytest.mark.slow, pytest.mark.drill]

__all__ = ["folder", "whole_run"]  # fixtures

KILLS = int(os.environ.get("KILLS", "3"))
"""How often the single process is killed; `KILLS=20 tests/run.sh -m drill -k random` takes some minutes."""


def wait_for_checkpoint(process, workdir, step):
    while not (workdir / "checkpoints" / str(step)).exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def pod(folder, workdir, count, *arguments, **changes):
    """Starts the processes of a run of `count` hosts."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        address = f"--coordinator=localhost:{listener.getsockname()[1]}"
    return [
        start(folder, workdir, address, f"--num_processes={count}", f"--process_id={index}", *arguments, **changes)
        for index in range(count)
    ]


def assert_close(found, expected, rtol=2e-3):
    """Compares logged metrics of two runs on different devices; losses drift apart by rounding as training goes on."""
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    np.testing.assert_allclose([line["loss"] for line in found], [line["loss"] for line in expected], rtol=rtol)


def test_killed_at_random_moments_nothing_is_different(whole_run, folder):
    rng = random.Random(0)
    for _ in range(KILLS):
        process = start(folder, "often_killed")
        try:
            process.wait(timeout=rng.uniform(4.0, 20.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        finish(process)
    code, _, errors = finish(start(folder, "often_killed"))
    assert code == 0, errors
    assert learned(folder / "often_killed") == learned(folder / "whole")


def test_told_to_end_it_saves_the_step_and_says_so_by_its_code(whole_run, folder):
    process = start(folder, "told", checkpoint_every=100)
    while not (folder / "told" / "metrics.jsonl").exists() or len(learned(folder / "told")) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, output, _ = finish(process)
    assert code == RESTART
    [saved] = [path.name for path in (folder / "told" / "checkpoints").iterdir()]
    assert f"Told to end: step {saved} is saved" in output and int(saved) < 100
    code, output, errors = finish(start(folder, "told"))
    assert code == 0, errors
    assert f"Resuming from the checkpoint of step {saved}." in output
    assert learned(folder / "told") == learned(folder / "whole")


def test_told_to_end_before_the_first_step_there_is_nothing_to_save(folder):
    process = start(folder, "never_began")
    assert "Run demo" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == RESTART


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_checkpoint_costs_the_steps_since_the_one_before(whole_run, folder, damage):
    workdir = folder / f"damaged_{damage}"
    process = start(folder, workdir.name, checkpoints_kept=2)
    wait_for_checkpoint(process, workdir, 60)
    process.send_signal(signal.SIGKILL)
    finish(process)
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    for data in (workdir / "checkpoints" / str(last)).rglob("d/*"):  # not all of them are read
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    code, output, errors = finish(start(folder, workdir.name))
    assert code == 0, errors
    assert f"The checkpoint of step {last} in " in output and "going back to the one before" in output
    assert f"Resuming from the checkpoint of step {last - 20}." in output
    assert (workdir / "damaged" / str(last)).is_dir()
    assert learned(workdir) == learned(folder / "whole")


def test_input_worker_that_dies_ends_the_run_which_can_be_gone_on_with(whole_run, folder):
    process = start(folder, "worker_dies", data__num_workers=1)
    wait_for_checkpoint(process, folder / "worker_dies", 20)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent, command = path.read_text().rsplit(")", 1)[1].split()[1], (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == process.pid and b"spawn_main" in command:
            os.kill(int(path.parent.name), signal.SIGKILL)
    code, _, errors = finish(process)
    assert code == CRASHED and errors
    code, _, errors = finish(start(folder, "worker_dies"))
    assert code == 0, errors
    assert learned(folder / "worker_dies") == learned(folder / "whole")


@pytest.fixture(scope="module")
def one_host(folder):
    """The metrics of a short run in one process."""
    code, _, errors = finish(start(folder, "one_host", total_steps=20))
    assert code == 0, errors
    return learned(folder / "one_host")


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_learn_what_one_does_and_only_the_first_speaks(one_host, folder, count):
    workdir = f"{count}_hosts"
    results = [finish(process) for process in pod(folder, workdir, count, total_steps=20)]
    assert [code for code, _, _ in results] == [0] * count, results
    assert "step 20/20" in results[0][1]
    assert not any("step" in output for _, output, _ in results[1:])
    assert_close(learned(folder / workdir), one_host)


def test_hosts_profile_the_same_steps_and_keep_one_ledger_over_restarts(folder):
    workdir = folder / "two_hosts_profiled"
    processes = pod(folder, workdir.name, 2, "--profile_steps=5:7")
    wait_for_checkpoint(processes[0], workdir, 20)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [finish(process)[0] for process in processes] == [RESTART] * 2
    time.sleep(3)  # Downtime: when a process began is known to a second.
    results = [finish(process) for process in pod(folder, workdir.name, 2, "--profile_steps=5:7")]
    assert [code for code, _, _ in results] == [0, 0], results
    for index in range(2):
        assert list((workdir / "profiles" / "step_5" / f"process_{index}").rglob("*.xplane.pb"))
    assert results[0][1].count("Goodput:") == 1 and "Goodput:" not in results[1][1]
    lines = read_lines(epath.Path(workdir / "goodput.jsonl"))
    assert len({line["process"] for line in lines}) == 2  # Process 0, before and after.
    seconds = summarize(lines)
    assert {cause for cause in seconds if seconds[cause] > 0} >= {STEPS, RESTORE, DOWNTIME, PROFILES}


def test_run_goes_on_with_other_devices_and_hosts(whole_run, folder):
    """One device, then two hosts, then four devices; beside the same on one device."""
    for step, runner in ((20, lambda: [start(folder, "moves")]), (60, lambda: pod(folder, "moves", 2))):
        processes = runner()
        wait_for_checkpoint(processes[0], folder / "moves", step)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [finish(process)[0] for process in processes] == [RESTART] * len(processes)
    code, output, errors = finish(start(folder, "moves", devices=4))
    assert code == 0, errors
    assert "4 x cpu" in output
    assert_close(learned(folder / "moves"), learned(folder / "whole"), rtol=2e-2)


def test_a_host_whose_peer_is_killed_ends_within_the_time_that_was_set(folder):
    processes = pod(folder, "peer_dies", 2, peer_timeout_seconds=10)
    wait_for_checkpoint(processes[0], folder / "peer_dies", 20)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, _, _ = finish(processes[0])
    finish(processes[1])
    assert code not in (0, 1)
    assert time.monotonic() - killed < 30


PEER_FAILS = """
import sys, time
import jax, jax.numpy as jnp
from jax.experimental import multihost_utils
from avshare_jax.settings import UserError
from avshare_jax.training import hosts
hosts.connect(sys.argv[1], 2, int(sys.argv[2]), 10)
with hosts.ending_together():
    for step in range(1000):
        multihost_utils.process_allgather(jnp.int32(step))
        if step == 5 and jax.process_index() == 1:
            raise {error}("went wrong")
        time.sleep(0.05)
"""


@pytest.mark.parametrize(("error", "code"), [("RuntimeError", CRASHED), ("UserError", 1)])
def test_an_error_in_one_of_two_hosts_ends_both(error, code):
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        address = f"localhost:{listener.getsockname()[1]}"
    script = PEER_FAILS.format(error=error)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, address, str(index)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    started = time.monotonic()
    results = [finish(process) for process in processes]
    assert time.monotonic() - started < 60
    assert results[1][0] == code and "went wrong" in results[1][2]
    assert results[0][0] not in (0, 1)
