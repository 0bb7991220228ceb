"""One run at a time writes a workdir; a killed one leaves nothing behind, one that is ending is waited for."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import filelock
import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import ownership
from avshare_jax.training.ownership import Ownership


@pytest.fixture
def no_locks(monkeypatch):
    """As on an object store, or a network file system without locks; an owner counts fast there."""

    def acquire(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    monkeypatch.setattr(ownership, "SECONDS_BETWEEN_BEATS", 0.05)


def die(owner):
    """What is left of a process that is killed: it writes no more, and its note stays."""
    owner._released.set()
    owner._heart.join()


def test_a_second_is_refused_and_told_who_is_first(tmp_path):
    first = Ownership(tmp_path)
    with pytest.raises(UserError, match=rf"process {os.getpid()} on {socket.gethostname()}, since 20.* another --work"):
        Ownership(tmp_path)
    first.release()
    first.release()
    Ownership(tmp_path).release()
    assert not (tmp_path / "owner.json").exists()


def test_a_killed_process_leaves_its_workdir_free(tmp_path):
    code = f"""
import signal
from avshare_jax.training.ownership import Ownership
owner = Ownership({str(tmp_path)!r})
print("mine", flush=True)
signal.pause()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(UserError, match=f"process {process.pid} on"):
        Ownership(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / "owner.json").read_text())["pid"] == process.pid
    Ownership(tmp_path).release()


@pytest.mark.parametrize("locks", [True, False])
def test_one_that_is_ending_is_waited_for(tmp_path, monkeypatch, request, locks):
    if not locks:
        request.getfixturevalue("no_locks")
    monkeypatch.setattr(ownership, "MOMENT", 0.05)
    first = Ownership(tmp_path)
    first.note_ending()
    later = threading.Timer(0.5, first.release)
    later.start()
    second = Ownership(tmp_path)
    assert first._released.is_set()
    later.join()
    assert json.loads((tmp_path / "owner.json").read_text())["token"] == second._token
    second.release()


def test_a_lock_of_a_dead_host_is_waited_for(tmp_path, monkeypatch):
    """The server of a network file system keeps it for a while."""
    monkeypatch.setattr(ownership, "MOMENT", 0.05)
    first = Ownership(tmp_path)
    note = json.loads((tmp_path / "owner.json").read_text())
    (tmp_path / "owner.json").write_text(json.dumps({**note, "host": "another"}))
    later = threading.Timer(0.5, first.release)
    later.start()
    Ownership(tmp_path).release()
    later.join()
    monkeypatch.setattr(ownership, "PATIENCE", 0.1)
    first = Ownership(tmp_path)
    (tmp_path / "owner.json").write_text(json.dumps({**note, "host": "another"}))
    with pytest.raises(UserError, match="on another, since"):
        Ownership(tmp_path)
    first.release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_living_owner_keeps_its_workdir_and_a_dead_one_does_not(tmp_path):
    first = Ownership(tmp_path)
    with pytest.raises(UserError, match=f"process {os.getpid()} on"):
        Ownership(tmp_path)
    first.check()
    die(first)
    second = Ownership(tmp_path)
    second.release()
    assert not (tmp_path / "owner.json").exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_one_that_stood_still_notices_its_successor(tmp_path):
    first = Ownership(tmp_path)
    first._writing.acquire()  # It does not write, as a machine that sleeps.
    second = Ownership(tmp_path)
    first._writing.release()
    deadline = time.monotonic() + 30
    while not first._successor and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(UserError, match="stood still .* took over the workdir"):
        first.check()
    first.release()
    second.check()
    assert json.loads((tmp_path / "owner.json").read_text())["token"] == second._token
    second.release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_one_that_wakes_up_notices_before_its_next_beat(tmp_path):
    """Neither saves nor writes its note over that of its successor, though its heart has not beaten yet."""
    first = Ownership(tmp_path)
    first._writing.acquire()
    second = Ownership(tmp_path)
    first._released.set()  # Its thread does not come to beat again.
    first._writing.release()
    first._heart.join()
    first._successor = {}
    first.note_ending()
    assert json.loads((tmp_path / "owner.json").read_text())["token"] == second._token
    first._successor = {}
    with pytest.raises(UserError, match="took over the workdir"):
        first.check()
    second.check()
    second.release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_damaged_note_hinders_nobody(tmp_path):
    (tmp_path / "owner.json").write_text("[1")
    Ownership(tmp_path).release()
