"""Compiling for devices that are not there: the command as it is typed, its sentences, and its arithmetic."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import compile_for
from avshare_jax.training.chips import CHIPS
from avshare_jax.training.compile_for import Cost, describe_collectives, describe_cost, devices_of, does_not_fit
from avshare_jax.training.program import Collective, Shape
from configs.pretrain import get_config

SMALL = (
    *("--config.model.hidden=8", "--config.model.mlp=16", "--config.model.heads=2", "--config.model.layers=1"),
    *("--config.model.rank=4", "--config.model.orthogonal_map=cayley", "--config.model.visual_cnn.width=8"),
    *("--config.model.visual_cnn.stage_sizes=(1,)", "--config.model.visual_cnn.temporal_kernels=(3,)"),
    *("--config.model.audio_cnn.width=8", "--config.model.audio_cnn.stage_sizes=()"),
    *("--config.data.num_clips=2", "--config.data.crop=16", "--config.data.frames_per_clip=2"),
    *("--config.batch_size=8", "--config.objectives.num_negatives=4"),
)


def mesh_of(kind, *shape):
    devices = np.full(shape, SimpleNamespace(device_kind=kind))
    return SimpleNamespace(devices=devices, size=devices.size, shape=dict(zip(("data", "clip"), shape, strict=True)))


def all_reduce(elements):
    shape = Shape("f32", (elements,), 4 * elements, on_chip=False)
    return Collective("all-reduce", (shape,), 3, "jit(step)/jvp(Network)/while/body/cnn/stem/dot_general")


def compile_command(topology, *overrides):
    """Output of the command in a process of its own."""
    command = [sys.executable, "-m", "avshare_jax.training.compile_for", "--config=configs/pretrain.py:demo"]
    process = subprocess.run([*command, f"--topology={topology}", *SMALL, *overrides], capture_output=True, text=True)
    return process.returncode, process.stdout, process.stderr


@pytest.mark.slow
def test_the_command_prints_cost_and_collectives_of_simulated_devices():
    code, output, errors = compile_command("cpu:4", "--config.mesh.fsdp=2")
    assert code == 0, errors
    assert "demo for 4 x cpu, mesh data=2, fsdp=2, clip=1: 8 videos a step" in output
    assert "all-reduce" in output and "all-gather" in output
    assert "at best" not in output, "nobody publishes the limits of this machine"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is an extra: pip install -e '.[compile]'"
)
def test_the_command_compiles_for_tpus():
    code, output, errors = compile_command("v5e:2x2")
    assert code == 0, errors
    assert "demo for 4 x TPU v5 lite" in output
    assert "at best" in output


def test_least_time_of_a_step_is_that_of_what_limits_it():
    config, mesh = get_config("demo"), mesh_of("TPU v5 lite", 4, 2)
    chip = CHIPS["TPU v5 lite"]
    cost = Cost(
        seconds_to_compile=61.0,
        state=int(1e9),
        batch=int(2e9),
        temporary=int(3e9),
        code=int(1e8),
        flops=int(0.1 * chip.flops),
        traffic=int(0.4 * chip.bandwidth),
        collectives=(all_reduce(int(0.01 * chip.exchange / 4)),),
    )
    text = describe_cost(config, mesh, cost)
    assert "arithmetic 100.0 ms, memory 400.0 ms, exchange 60.0 ms" in text
    # 16 videos in 0.4 s on 8 chips.
    assert "at best        40 videos/s, 5 on each device, limited by memory" in text
    assert "6.1 of 17.2 GB on each device: state 1, batch 2, temporary 3, program 0.1" in text
    assert f"{0.1 * chip.flops / 2 / 1e12:.3f} TFLOP" in text, "two videos on each chip"
    assert "compiled in    1m01s" in text


def test_collectives_that_are_alike_are_joined_and_add_up():
    lines = describe_collectives([all_reduce(8), all_reduce(8), all_reduce(2)]).splitlines()
    assert [line.split()[0] for line in lines] == ["times", "6", "3", "9"]
    assert lines[1].split()[1:4] == ["32", "all-reduce", "f32[8]"]
    assert lines[1].endswith("cnn/stem/dot_general")
    assert lines[-1].split()[1:] == [f"{6 * 32 + 3 * 8:,}", "in", "all"]


def test_the_many_small_collectives_share_a_line():
    lines = describe_collectives([all_reduce(10_000), all_reduce(2), all_reduce(1)]).splitlines()
    assert [line.split()[0] for line in lines] == ["times", "3", "6", "9"]
    assert lines[2].split()[1:] == ["36", "others,", "together"]


def test_too_much_for_the_memory_is_a_sentence_that_says_what_to_change():
    config = get_config()
    config.memory.remat = "blocks"
    sentence = does_not_fit(config, mesh_of("TPU v5 lite", 64, 1), "Used 24.32G of 15.75G hbm. Exceeded ... by 8.57G.")
    assert "needs 24.32 GiB of the device's 15.75 GiB for 4 of the 256 videos" in sentence
    assert "remat" not in sentence and "clip_chunks=2" in sentence


def test_a_compiler_that_crashes_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(compile_for, "report", crash)
    monkeypatch.setattr(compile_for, "flags", SimpleNamespace(FLAGS=SimpleNamespace(topology=str(tmp_path / "began"))))
    with pytest.raises(UserError, match="The compiler crashed, or was killed .*remat=blocks"):
        compile_for.main(get_config("demo"))
    assert (tmp_path / "began").exists()


def crash(config, topology):
    Path(topology).touch()
    os.kill(os.getpid(), signal.SIGSEGV)


def test_unknown_topologies(monkeypatch):
    def unknown(*_):
        raise ValueError("no such thing\nand more")

    monkeypatch.setattr(compile_for.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[compile\]'"):
        devices_of("v5e:2x2")
    monkeypatch.setattr(compile_for.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(compile_for.topologies, "get_topology_desc", unknown)
    with pytest.raises(UserError, match=r"--topology=v99:2x2 is none .*\(no such thing\).*such as v4:4x4x4"):
        devices_of("v99:2x2")
