"""What was compiled is kept and found again, by processes of their own, as JAX's settings are for good."""

import json
import os
import subprocess
import sys

import pytest
from etils import epath

from avshare_jax.compilation_cache import keep_compiled_programs

SCRIPT = """
import json, sys, warnings
import jax, jax.numpy as jnp
from jax._src import monitoring
from avshare_jax.compilation_cache import keep_compiled_programs
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
folder = keep_compiled_programs(*sys.argv[1:])
program = jax.jit(lambda x: jnp.sin(x) @ x).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
value = float(program(jnp.ones((64, 64)))[0, 0])
print(json.dumps([str(folder), value, sum(name.endswith("cache_hits") for name in events)]))
"""


@pytest.fixture
def compile_in(tmp_path):
    """Compiles a program in a new process with the given argument and environment; returns folder, value and hits."""

    def run(*arguments, **environment):
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("JAX_")},
                **{"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
                **{"HOME": str(tmp_path / "home"), **environment},
            },
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])

    return run


def test_the_second_process_reads_what_the_first_compiled(compile_in, tmp_path):
    folder, value, hits = compile_in()
    assert folder.startswith(str(tmp_path / "home" / ".cache" / "avshare_jax" / "compiled")) and hits == 0
    again, same, hits = compile_in()
    assert (again, same) == (folder, value) and hits > 0
    for entry in (tmp_path / "home").rglob("*-cache"):  # As a kill or a full disk leaves it.
        entry.write_bytes(entry.read_bytes()[:50])
    assert compile_in()[:2] == [folder, value]


def test_the_place_can_be_chosen_and_keeping_turned_off(compile_in, tmp_path):
    assert compile_in(str(tmp_path / "chosen"))[0].startswith(str(tmp_path / "chosen"))
    assert compile_in(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "given"))[0].startswith(str(tmp_path / "given"))
    assert compile_in("", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "none"))[0] == "None"
    (tmp_path / "file").touch()
    assert compile_in(str(tmp_path / "file"))[0] == "None"
    assert not (tmp_path / "none").exists() and not (tmp_path / "home").exists()


def test_a_user_without_a_home_is_told(monkeypatch, capsys):
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("jax.config.update", lambda *setting: None)
    assert keep_compiled_programs() is None
    assert "are not kept: this user has no home folder; see --compilation_cache" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError("Not authorized.\nRetrying failed."), RuntimeError("Not authorized.")])
def test_errors_of_cloud_storage_are_said_and_end_nothing(monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    settings = []
    monkeypatch.setattr(epath.gpath.PosixGPath, "mkdir", fail)
    monkeypatch.setattr("jax.config.update", lambda *setting: settings.append(setting))
    assert keep_compiled_programs("gs://bucket/compiled") is None
    assert settings == [("jax_enable_compilation_cache", False)]
    output = capsys.readouterr().out
    assert output.startswith("Compiled programs cannot be kept in gs://bucket/compiled")
    assert output.endswith(" (Not authorized); see --compilation_cache.\n")
