"""What connects the processes of a run: the address that process 0 listens on, and what they tell each other."""

import errno
import json
import os
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import hosts

TELL = """
import json, sys
import numpy as np, psutil
from avshare_jax.training import hosts
address, index = sys.argv[1], int(sys.argv[2])
hosts.connect(address, 2, index, 60)
listening = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == "LISTEN"]
values = hosts.gather({"process": index, "share": 0.1, "nothing": None, "text": "x" * index})
arrays = hosts.gather_arrays({"ids": np.array(["a", "bc"][: index + 1]), "scores": np.full((index, 3), 0.1)})
shown = [[array["ids"].tolist(), array["scores"].tolist(), array["scores"].dtype.str] for array in arrays]
print(json.dumps([listening, values, shown]), file=sys.stderr)
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def told():
    """What each of two processes says of its listening sockets and of what came from both."""
    address = f"localhost:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TELL, address, str(index)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [json.loads(error.splitlines()[-1]) for error in errors]


def test_the_coordinator_listens_on_the_named_host_alone(told):
    loopback = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert told[0][0], "process 0 listens"
    for listening, *_ in told:
        assert set(listening) <= loopback


def test_all_processes_get_what_each_has_said(told):
    values = [{"process": index, "share": 0.1, "nothing": None, "text": "x" * index} for index in range(2)]
    arrays = [[["a"], [], "<f8"], [["a", "bc"], [[0.1, 0.1, 0.1]], "<f8"]]
    assert [[said[1], said[2]] for said in told] == [[values, arrays]] * 2


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("what a peer has sent was run",))


@pytest.mark.parametrize("gather", [hosts.gather, lambda value: hosts.gather_arrays({"value": np.arange(value)})])
def test_pickles_of_a_peer_are_not_opened(gather, monkeypatch):
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    sent = pickle.dumps(Trap())
    monkeypatch.setattr(
        hosts.multihost_utils,
        "process_allgather",
        lambda x: np.stack([np.int64(len(sent)) if x.ndim == 0 else np.frombuffer(sent, np.uint8)] * 2),
    )
    monkeypatch.setattr(hosts, "max", lambda sizes: 1000, raising=False)
    with pytest.raises(ValueError):
        gather(1)


def resolve(monkeypatch, *addresses):
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)

    def getaddrinfo(*_, **__):
        if not addresses:
            raise socket.gaierror("not known")
        return [(0, 0, 0, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(hosts.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("coordinator", "addresses", "bound"),
    [
        ("localhost:80", ["::1", "127.0.0.1"], True),
        ("127.0.0.1:80", ["127.0.0.1"], True),
        ("this-host:80", ["127.0.1.1"], False),  # As Debian's /etc/hosts has it: others could not come.
        ("behind-nat:80", ["203.0.113.7"], False),  # No machine has this address, it is for examples.
        ("not-known-yet:80", [], False),
    ],
)
def test_the_named_host_is_bound_where_others_reach_it(monkeypatch, coordinator, addresses, bound):
    resolve(monkeypatch, *addresses)
    assert hosts.bind_address(coordinator) == (coordinator if bound else None)


def test_an_own_address_is_bound_by_its_name(monkeypatch):
    resolve(monkeypatch, "203.0.113.7", "198.51.100.1")
    monkeypatch.setattr(hosts, "_is_of_this_machine", lambda address: address == "198.51.100.1")
    assert hosts.bind_address("this-host:80") == "this-host:80"


def test_the_address_that_jax_is_told_to_bind_stays(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "[::]:80")
    assert hosts.bind_address("localhost:80") is None


@pytest.mark.parametrize("coordinator", ["", "localhost", ":80", "localhost:", "localhost:x", "localhost:0", "a:65536"])
def test_a_malformed_coordinator_is_a_sentence(coordinator):
    with pytest.raises(UserError, match=r"must be HOST:PORT of process 0"):
        hosts.connect(coordinator, 1, 0, 5)


@pytest.mark.parametrize("process_id", [2, 3])
def test_a_process_beyond_the_number_of_processes_is_a_sentence(monkeypatch, process_id):
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda *_, **__: pytest.fail("went on"))
    with pytest.raises(UserError, match=f"--process_id={process_id} is none .*: they count from 0 to 1"):
        hosts.connect("localhost:8476", 2, process_id, 5)


def test_a_port_that_is_taken_is_a_sentence(monkeypatch):
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda *_, **__: pytest.fail("went on"))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # As the coordinator of another run does.
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"cannot listen on {address}: Address already in use. Name another port"):
            hosts.connect(address, 2, 0, 5)


@pytest.mark.parametrize("index", [0, 1])
def test_all_meet_before_the_first_process_works(monkeypatch, index):
    """Where process 0 works first, and the others have not met it, they would give it up after 30 s."""
    happened = []
    monkeypatch.setattr(hosts.jax, "process_index", lambda: index)
    monkeypatch.setattr(hosts.multihost_utils, "sync_global_devices", happened.append)
    with hosts.first_process_first("files"):
        happened.append("work")
    together, other = ["files: all are here"], ["files"]
    assert happened == together + (["work", *other] if index == 0 else [*other, "work"])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("No."), 1, "error: No.\n"),
        (SystemExit(75), 75, ""),
        (OSError(errno.EMFILE, "Too many open files"), 1, "error: Too many files are open"),
        (MemoryError(), 1, "error: Memory has run out"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."), 1, "error: It does not fit the memory"),
        (KeyError("x"), 70, "Traceback"),
    ],
)
def test_one_of_several_processes_ends_at_once_with_its_code(monkeypatch, capfd, error, code, said):
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.os, "_exit", lambda given: codes.append(given))
    codes = []
    with hosts.ending_together():
        raise error
    assert codes == [code]
    assert capfd.readouterr().err.startswith(said)
