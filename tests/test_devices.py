"""Devices that JAX cannot start are said in a sentence, whichever error it raises."""

import os
import subprocess
import sys

import jax
import pytest

from avshare_jax.devices import check_devices
from avshare_jax.settings import UserError


@pytest.fixture
def asked():
    """Sets what JAX_PLATFORMS would."""
    before = jax.config.jax_platforms
    yield lambda platforms: jax.config.update("jax_platforms", platforms)
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError(), "it has no plugin for that"),
        (
            RuntimeError("Unable to initialize backend 'tpu': no libtpu.so (set JAX_PLATFORMS='' to choose)"),
            "libtpu.so",
        ),
        (ValueError("The plugin is of another version.\nLine 2"), "(The plugin is of another version)"),
    ],
)
def test_a_platform_of_another_machine_is_a_sentence(asked, monkeypatch, error, said):
    def fail():
        raise error

    asked("tpu")
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(UserError) as ending:
        check_devices()
    sentence = str(ending.value)
    assert "JAX_PLATFORMS='tpu'" in sentence and said in sentence and "\n" not in sentence
    assert f"it finds {jax.device_count()} x {jax.default_backend()}." in sentence.replace(";", ".")


def test_without_a_wish_it_names_the_way_out(asked, monkeypatch):
    def fail():
        raise RuntimeError("The driver is too old")

    asked("")
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(UserError, match=r"this machine's devices \(The driver is too old\): set JAX_PLATFORMS=cpu"):
        check_devices()


def test_jax_itself_raises_what_is_expected():
    """A real start, since a process can do that only once."""
    code = """
from avshare_jax.devices import check_devices
from avshare_jax.settings import UserError
try:
    check_devices()
except UserError as error:
    print(error)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "nonsense"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    (sentence,) = result.stdout.splitlines()
    assert "JAX_PLATFORMS='nonsense'" in sentence and "it finds" in sentence and "(set" not in sentence
