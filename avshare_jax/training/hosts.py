"""Several processes as one run: how they find each other, who speaks, and how they end together.

Each host of a pod runs the same command. JAX finds the others by itself on TPU VMs, GKE and Slurm; elsewhere the flags
of main.py say where process 0 is. Processes end with one of three codes, which the launch scripts act on: 0, done; 1, a
mistake that a restart would repeat; `RESTART` or any other, start the same command again.
"""

import contextlib
import io
import ipaddress
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.names import printable_lines
from avshare_jax.devices import check_devices
from avshare_jax.settings import CRASHED, UserError, reason

RESTART = 75
"""Exit code of a process that was told to end and has saved its state: EX_TEMPFAIL, "try again"."""

SHUTDOWN_SECONDS = 15
"""How long a process that is done waits for the others."""


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None, timeout_seconds: int) -> None:
    """Connects the processes of a run and starts their devices; call it before anything else of JAX.

    Without flags it does so only where JAX recognizes a cluster, and leaves a single machine as it is. With them,
    process 0 listens on the addresses of the named host, see `bind_address`. Only process 0 keeps its standard output.

    Args:
      coordinator: HOST:PORT of process 0, or None.
      num_processes: how many there are, or None.
      process_id: which this is, from 0, or None.
      timeout_seconds: after which a process ends whose peer has died, or has not come at the start.

    Raises:
      UserError: some of the flags are missing or wrong, the port is taken, the others cannot be reached, or JAX cannot
        start its devices.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise UserError("--coordinator=HOST:PORT, --num_processes=N and --process_id=I go together: give all three.")
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise UserError(
            f"--process_id={process_id} is none of --num_processes={num_processes}: they count from 0 to "
            f"{num_processes - 1}."
        )
    bind = None if coordinator is None else bind_address(coordinator)
    if coordinator and process_id == 0:
        check_port_is_free(coordinator)
    try:
        jax.distributed.initialize(
            *given,
            coordinator_bind_address=bind,
            initialization_timeout=timeout_seconds,
            heartbeat_timeout_seconds=timeout_seconds,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        if coordinator is not None:
            raise UserError(f"The processes cannot be connected: {error}.") from error
        # This is no cluster.
    except RuntimeError as error:
        raise UserError(
            f"The other processes were not there within {timeout_seconds} s ({str(error).splitlines()[0]}): start all "
            "of them, and let --coordinator name process 0."
        ) from error
    check_devices()
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends this process at once where it fails, so that the others notice; alone, does nothing.

    Python's own end would wait for a farewell of all processes, which are themselves waiting for this one's next step.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            code = error.code
        elif isinstance(error, (UserError, DatasetError)):
            code = 1
            print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        elif sentence := shortage(error):
            code = 1
            print(f"error: {sentence}", file=sys.stderr)
        else:
            code = CRASHED
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Preemption:
    """Notices that this machine is about to be taken away (SIGTERM), at the same step in all processes.

    A context manager: leaving it gives SIGTERM back to whatever handled it before.
    """

    def __init__(self) -> None:
        """Listens from now on. Until the first call of `is_due`, nothing is to be saved: SIGTERM ends the process."""
        self._asked = self._running = False
        self._before = None
        if not jax.distributed.is_initialized():  # There, JAX listens, and tells the others.
            self._before = signal.signal(signal.SIGTERM, self._notice)

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def is_due(self, step: int) -> bool:
        """Whether to save the state of this step and end; to be asked after every step, by all processes."""
        self._running = True
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _notice(self, *_: object) -> None:
        if not self._running:
            sys.exit(RESTART)
        self._asked = True


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """Lets process 0 do something, such as making files, before the others do the same and find it done.

    However long it takes: all meet before, because on CPUs a process waits 30 s for those it has not met yet.
    """
    multihost_utils.sync_global_devices(f"{what}: all are here")
    if jax.process_index() > 0:
        multihost_utils.sync_global_devices(what)
    yield
    if jax.process_index() == 0:
        multihost_utils.sync_global_devices(what)


def bind_address(coordinator: str) -> str | None:
    """Returns where process 0 listens: HOST:PORT as it was named, or None for JAX's choice, which is all interfaces."""
    return coordinator if own_addresses(coordinator) and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ else None


def check_port_is_free(coordinator: str) -> None:
    """Raises `UserError` where another process listens on the port: the two would share it, each with its own peers."""
    port = int(coordinator.rpartition(":")[2])
    for address in own_addresses(coordinator) or {"0.0.0.0"}:
        try:
            _try_to_bind(address, port)
        except OSError as error:
            raise UserError(
                f"Process 0 cannot listen on {coordinator}: {reason(error)}. Name another port in --coordinator, or "
                "end the process that has it."
            ) from error


def own_addresses(coordinator: str) -> set[str]:
    """The addresses of the coordinator's host that this machine has and that other processes of the run can reach.

    There are none where the name stands for another machine's address, such as that of a gateway before this one, or is
    not known yet, or where `/etc/hosts` has this machine's own name for a loopback address.

    Args:
      coordinator: HOST:PORT; brackets enclose an IPv6 address.

    Raises:
      UserError: it is of another form.
    """
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(
            f"--coordinator={coordinator} must be HOST:PORT of process 0, with a port from 1 to 65535, such as "
            "localhost:8476 or [::1]:8476."
        )
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()
    if host != "localhost" and host not in found:
        found = {address for address in found if not ipaddress.ip_address(address).is_loopback}
    return set(filter(_is_of_this_machine, found))


def _is_of_this_machine(address: str) -> bool:
    try:
        _try_to_bind(address, 0)
    except OSError:
        return False
    return True


def _try_to_bind(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Connections of the run before may be closing.
        trial.bind((address, port))


def gather(value: Any) -> list[Any]:
    """Gives every process the values of all processes, in their order; what JSON can hold, small enough for memory."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(part) for part in _gather_bytes(json.dumps(value).encode())]


def gather_arrays(arrays: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
    """Gives every process the named arrays of all processes, in their order; of any dtype but object."""
    if jax.process_count() == 1:
        return [arrays]
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return [dict(np.load(io.BytesIO(part), allow_pickle=False)) for part in _gather_bytes(file.getvalue())]


def _gather_bytes(sent: bytes) -> list[bytes]:
    """Neither sent nor read as pickles, which can hold code: peers are whoever reaches the coordinator's port."""
    data = np.frombuffer(sent, np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(len(data)))
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(data)] = data
    everything = multihost_utils.process_allgather(padded)
    return [part[:size].tobytes() for part, size in zip(everything, sizes, strict=True)]
