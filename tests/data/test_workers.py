"""How much memory worker processes may take, and how pools of them end."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from avshare_jax.data import workers
from avshare_jax.data.workers import LEAST_MEMORY, memory_per_worker


def test_memory_is_divided_by_the_workers_and_never_too_little(monkeypatch):
    monkeypatch.setattr(workers, "_container_limits", lambda: [8 * 2**30])
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: type("Memory", (), {"total": 64 * 2**30}))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert memory_per_worker(2) == 3 * 2**30
    assert memory_per_worker(64) == LEAST_MEMORY
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4 * 2**30, resource.RLIM_INFINITY))
    assert memory_per_worker(1) == 3 * 2**30


def test_limits_of_all_control_groups_around_a_process_count(tmp_path):
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "groups" / "job" / "step").mkdir(parents=True)
    (tmp_path / "groups" / "job" / "memory.max").write_text("1000\n")
    (tmp_path / "groups" / "job" / "step" / "memory.max").write_text("max\n")
    assert workers._container_limits(tmp_path / "groups", tmp_path / "own") == [1000]
    assert workers._container_limits(tmp_path / "groups", tmp_path / "nowhere") == []


def test_what_asks_for_more_memory_gets_an_error():
    code = """
from avshare_jax.data.workers import limit_memory
limit_memory(100_000_000)
kept = bytearray(50_000_000)
try:
    bytearray(80_000_000)
except MemoryError:
    print("limited")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "limited\n", found.stderr


def die(job):
    os._exit(1)


def test_a_pool_whose_processes_die_ends():
    with pytest.raises(BrokenProcessPool):
        list(workers.run_in_workers(die, range(200), 2))


def test_processes_that_did_start_do_not_stay_where_others_cannot(monkeypatch):
    start, started = multiprocessing.context.SpawnProcess.start, []

    def start_one(process):
        if started:
            raise OSError(errno.EMFILE, "Too many open files")
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start_one)
    with pytest.raises(OSError, match="Too many open files"):
        list(workers.run_in_workers(die, range(2), 2))
    started[0].join(20)
    assert started[0].exitcode == -signal.SIGKILL
