"""One run at a time writes a workdir.

WORKDIR/lock        locked by the process that trains, until it ends in any way
WORKDIR/owner.json  which one that is: host, pid, when it began to train, and whether it is ending

Object stores and some network file systems have no locks. There, the owner counts in its note every few seconds, and
whoever finds a note watches it: one that no longer changes belongs to a process that was killed.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import filelock
import jax
from etils import epath

from avshare_jax.settings import UserError, reason
from avshare_jax.training.hosts import gather

LOCK, NOTE = "lock", "owner.json"

SECONDS_BETWEEN_BEATS = 5.0
BEATS_MISSED = 4
"""After so many, the owner is taken for dead: 20 s."""
MOMENT = 1.0
"""How long a lock of this machine is waited for, in seconds: the system may be clearing up after a killed process."""
PATIENCE = 180.0
"""How long an owner is waited for that is ending, or may be dead on another host, whose locks servers keep a while."""


class Ownership:
    """The right to write a workdir, from when it is made until `release`. Process 0 has it for all processes of a run.

    Where another run has it, `UserError` says which, after a moment; one that was told to end, and is saving, is waited
    for.
    """

    def __init__(self, workdir: epath.PathLike):
        """Takes the workdir, which exists; raises `UserError`, in all processes, where another run has it."""
        self._workdir = epath.Path(workdir)
        self._token, self._ending, self._beats = uuid.uuid4().hex, False, 0
        self._since = datetime.now(UTC).isoformat(" ", "seconds")
        self._lock: filelock.BaseFileLock | None = None
        self._heart: threading.Thread | None = None
        self._successor: dict[str, Any] = {}  # The note of another process that has taken the workdir since.
        self._writing, self._released = threading.Lock(), threading.Event()
        problem = self._take() if jax.process_index() == 0 else None
        if found := [said for said in gather(problem) if said]:
            raise UserError(found[0])

    def note_ending(self) -> None:
        """Says that this run will end soon, so that its successor waits instead of giving up."""
        self._ending = True
        if jax.process_index() == 0:
            # The note only helps others; storage raises errors of its own.
            with self._writing, contextlib.suppress(Exception):
                self._keep_note()

    def check(self) -> None:
        """Raises `UserError` where another process, which took this one for dead, has taken the workdir."""
        if self._heart:
            # This thread may be the first to wake up after a standstill.
            with self._writing, contextlib.suppress(Exception):
                self._keep_note()
        if self._successor:
            raise UserError(
                f"This run stood still for so long that {_describe(self._successor)} took over the workdir "
                f"{self._workdir}: leave it to that one."
            )

    def release(self) -> None:
        """Gives the workdir back; a second call does nothing."""
        if jax.process_index() > 0 or self._released.is_set():
            return
        self._released.set()
        if self._heart:
            self._heart.join()
        with contextlib.suppress(Exception):
            if self._read_note().get("token") == self._token:
                (self._workdir / NOTE).unlink()
        if self._lock:
            self._lock.release()

    def _take(self) -> str | None:
        """Takes the workdir; returns a sentence where another has it, or it cannot be written."""
        try:
            taken = self._take_lock()
            if taken is None:
                taken = self._take_by_note()
            elif taken:
                self._write_note()
        except Exception as error:  # Cloud storage raises errors of its own libraries.
            return f"The workdir {self._workdir} cannot be written ({reason(error)}): choose another --workdir."
        if taken:
            return None
        return (
            f"The workdir {self._workdir} is being written by {_describe(self._read_note())}: wait until that has "
            "ended, or choose another --workdir."
        )

    def _take_lock(self) -> bool | None:
        """Locks the workdir; False where another has it, None where its file system has no locks."""
        if "://" in os.fspath(self._workdir):
            return None
        lock = filelock.FileLock(os.fspath(self._workdir / LOCK), fallback_to_soft=False, thread_local=False)
        started = time.monotonic()
        while True:
            try:
                lock.acquire(timeout=MOMENT, poll_interval=0.05)
                self._lock = lock
                return True
            except filelock.Timeout:
                note = self._read_note()  # None while its owner begins or ends.
                may_end = not note or note.get("ending") or note.get("host") != socket.gethostname()
                if not may_end or time.monotonic() - started > PATIENCE:
                    return False
            except PermissionError:
                raise
            except OSError:  # No such operation, no locks available, ...: each file system has its own number for it.
                return None

    def _take_by_note(self) -> bool:
        """Takes the workdir once no note of another changes any more; False where one does, and is not ending."""
        seen, changed = self._read_note(), time.monotonic()
        while seen and time.monotonic() - changed < BEATS_MISSED * SECONDS_BETWEEN_BEATS:
            time.sleep(SECONDS_BETWEEN_BEATS / 10)
            if (note := self._read_note()) != seen:
                if note and not note.get("ending"):
                    return False
                seen, changed = note, time.monotonic()
        self._write_note()
        time.sleep(SECONDS_BETWEEN_BEATS / 5)  # Of two that begin at once, the one that wrote last has it.
        if self._read_note().get("token") != self._token:
            return False
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()
        return True

    def _beat(self) -> None:
        while not self._successor and not self._released.wait(SECONDS_BETWEEN_BEATS):
            # A next time may succeed; until then, this run seems dead.
            with self._writing, contextlib.suppress(Exception):
                self._keep_note()

    def _keep_note(self) -> None:
        """Writes the note again, unless another process has written its own since: that one is the successor."""
        note = self._read_note()
        if note.get("token", self._token) != self._token:
            self._successor = note
        else:
            self._write_note()

    def _write_note(self) -> None:
        self._beats += 1
        note = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since}
        note |= {"ending": self._ending, "beats": self._beats, "token": self._token}
        path = self._workdir / NOTE
        new = path.with_suffix(f".{self._token}.tmp")
        new.write_text(json.dumps(note) + "\n")
        new.replace(path)

    def _read_note(self) -> dict[str, Any]:
        """The note in the workdir; empty where there is none, or none that can be read."""
        try:
            note = json.loads((self._workdir / NOTE).read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}


def _describe(note: dict[str, Any]) -> str:
    if not note:
        return "another process"
    return f"process {note.get('pid')} on {note.get('host')}, since {note.get('since')}"
