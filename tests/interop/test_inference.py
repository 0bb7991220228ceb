"""An exported network gives the outputs of the network itself, in a process that has nothing but JAX and NumPy."""

import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

from avshare_jax import models
from avshare_jax.interop import exported, inference

SHAPES = {"frames": (3, 8, 32, 32, 3), "log_mel": (3, 32, 16)}

# The imports of what is not JAX or NumPy fail.
PROGRAM = """
import importlib.util, sys
import numpy as np
sys.modules.update(dict.fromkeys(["flax", "ml_collections", "orbax", "tensorflow", "avshare_jax"]))
spec = importlib.util.spec_from_file_location("exported", sys.argv[1])
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
network = exported.load(sys.argv[2])
inputs = np.load(sys.argv[3])
for videos in (1, 3):
    outputs = network(inputs["frames"][:videos], inputs["log_mel"][:videos])
    np.savez(f"{sys.argv[4]}/{videos}.npz", **outputs)
"""


@pytest.fixture(scope="module")
def program(workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "avbert.npz"
    inference.main([f"--workdir={workdir}", f"--output={path}"])
    return path


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    return {
        "frames": random.integers(0, 256, (3, *SHAPES["frames"]), np.uint8),
        "log_mel": random.normal(size=(3, *SHAPES["log_mel"])).astype(np.float32),
    }


@pytest.mark.slow
def test_outputs_in_a_bare_process(program, inputs, small, tmp_path):
    np.savez(tmp_path / "inputs.npz", **inputs)
    arguments = [exported.__file__, program, tmp_path / "inputs.npz", tmp_path]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config, variables = small
    expected = jax.jit(lambda batch: models.build(config).apply(variables, batch, train=False))(inputs)
    for videos in (1, 3):
        outputs = np.load(tmp_path / f"{videos}.npz")
        assert set(outputs) == expected.keys()
        for name, value in expected.items():
            assert outputs[name].shape == (videos, *value.shape[1:])
            error = np.sqrt(np.mean((outputs[name] - value[:videos]) ** 2) / np.mean(np.square(value[:videos])))
            assert error < 1e-5, name


def test_other_sizes_are_refused(program, inputs):
    with pytest.raises(ValueError, match="expected"):
        exported.load(program)(inputs["frames"][:, :2], inputs["log_mel"])


def test_the_program_is_for_all_platforms_and_any_number_of_videos(program):
    with np.load(program, allow_pickle=False) as file:
        found = jax.export.deserialize(bytearray(file["stablehlo"].tobytes()))
    assert found.platforms == ("cpu", "cuda", "tpu")
    frames, log_mel = found.in_avals[-2:]
    assert frames.dtype == np.uint8 and log_mel.dtype == np.float32
    for aval, shape in ((frames, SHAPES["frames"]), (log_mel, SHAPES["log_mel"])):
        assert jax.export.is_symbolic_dim(aval.shape[0]) and aval.shape[1:] == shape


def test_sizes_can_be_chosen(workdir, tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(inference, "write_exported", lambda path, config, variables, sizes: found.update(sizes))
    inference.main([f"--workdir={workdir}", f"--output={tmp_path / 'a.npz'}", "--num_clips=2", "--mels=20"])
    assert found == {"num_clips": 2, "frames_per_clip": 8, "crop": 32, "mel_frames": 32, "mels": 20}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output=a.safetensors"], "must be called something.npz"),
        (["--output=a.npz", "--num_clips=99"], "99 is too many"),
        (["--output=a.npz", "--workdir=no_such_run"], "no run in no_such_run"),
    ],
)
def test_mistakes_get_one_sentence(workdir, arguments, words):
    with pytest.raises(SystemExit, match=words):
        inference.main([f"--workdir={workdir}", *arguments])


def test_a_file_that_cannot_be_written_is_said_before_the_network_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(inference.workdirs, "read_network", None)
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(SystemExit, match=r"a\.npz cannot be written \(Is a directory\)"):
        inference.main([f"--workdir={tmp_path}", f"--output={tmp_path / 'a.npz'}"])
