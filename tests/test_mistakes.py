"""Whatever mistake a command meets, of a user or a machine, it ends in a sentence and a code that ends it for good.

Real processes, because what a launcher sees is their exit code: 1 is a mistake, which it does not repeat. Commands that
no launcher starts may also end with argparse's 2.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avshare_jax.settings import load_config_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SECONDS = 300
"""Far longer than it should take on a machine that does other things, too."""

TRAIN = ("main.py", "--config=configs/pretrain.py:demo", "--workdir={run}")
FINETUNE = ("main.py", "--config=configs/finetune_ucf101.py", "--workdir={run}")
PROTOCOL = ("-m", "avshare_jax.protocol", "--config=configs/finetune_ucf101.py", "--workdir={run}")
EVALUATE = ("eval.py", "--workdir={run}")
FEATURES = ("-m", "avshare_jax.features", "--checkpoint={run}", "--input={videos}", "--output={out}/features.npz")
PREPARE = ("-m", "avshare_jax.prepare", "folder", "--videos={videos}", "--name=mine", "--data_dir={out}")
INSPECT = ("-m", "avshare_jax.data.inspect", "mine", "--data_dir={out}")
CURVES = ("-m", "avshare_jax.evaluation.curves", "{run}", "--output={out}/curves.png")
BENCHMARK = ("-m", "avshare_jax.benchmark", "step", "--config=configs/pretrain.py:demo")
COMPILE = ("-m", "avshare_jax.training.compile_for", "--config=configs/pretrain.py:demo", "--topology=cpu:2")
IMPORT = ("-m", "avshare_jax.interop.avbert", "{out}/weights.npz", "--workdir={out}/imported")
EXPORT = ("-m", "avshare_jax.interop.avbert", "--export={out}/weights.safetensors", "--workdir={run}")
INFERENCE = ("-m", "avshare_jax.interop.inference", "--workdir={run}", "--output={out}/network.npz")

CUDA = {"JAX_PLATFORMS": "cuda"}
BAD_VALUE = ("--config.batch_size=0",)


def damaged_run(run):
    """A workdir whose config was edited by hand."""
    config = json.loads(load_config_file("configs/pretrain.py:demo").to_json())
    config["model"]["heads"] = "four"
    (run / "config.json").write_text(json.dumps(config))
    (run / "dataset.json").write_text('{"name": "demo", "fingerprint": "abc"}')


def empty_config(run):
    """A workdir whose config was lost when a disk was full."""
    (run / "config.json").touch()


def damaged_tensors(run):
    """A file that is no tensors."""
    (run.parent / "out" / "weights.npz").write_bytes(b"PK\x03\x04 and no more")


def file_for_folder(run):
    """A workdir that cannot be one."""
    run.rmdir()
    run.touch()


def nothing(run):
    """All is there that the mistake needs."""


CASES = {
    # The backend of another machine.
    "train, no such device": (TRAIN, nothing, CUDA, "cuda"),
    "finetune, no such device": (FINETUNE, nothing, CUDA, "cuda"),
    "protocol, no such device": (PROTOCOL, nothing, {"JAX_PLATFORMS": "nonsense"}, "nonsense"),
    "evaluate, no such device": (EVALUATE, nothing, CUDA, "cuda"),
    "benchmark, no such device": (BENCHMARK, nothing, {"JAX_PLATFORMS": "tpu"}, "tpu"),
    # Values that a field cannot have.
    "train, wrong value": ((*TRAIN, "--config.optimizer.decay=cosin"), nothing, {}, "the nearest is 'cosine'"),
    "finetune, wrong value": ((*FINETUNE, "--config.model.fusion=mdi"), nothing, {}, "the nearest is 'mid'"),
    "protocol, wrong value": ((*PROTOCOL, *BAD_VALUE), nothing, {}, "config.batch_size=0 must be at least 1"),
    "evaluate, wrong value": ((*EVALUATE, *BAD_VALUE), nothing, {}, "config.batch_size=0 must be at least 1"),
    "compile, wrong value": ((*COMPILE, *BAD_VALUE), nothing, {}, "config.batch_size=0 must be at least 1"),
    # Places that cannot be written.
    "train, no folder": (TRAIN, file_for_folder, {}, "cannot be written"),
    "finetune, no folder": (FINETUNE, file_for_folder, {}, "cannot be written"),
    "protocol, no folder": (PROTOCOL, file_for_folder, {}, "cannot be written"),
    "prepare, no folder": ((*PREPARE, "--data_dir={videos}/a.mp4/data"), nothing, {}, "cannot be written"),
    "benchmark, no folder": ((*BENCHMARK, "--json={videos}"), nothing, {}, "cannot be written"),
    # What is not there.
    "evaluate, no run": (EVALUATE, nothing, {}, "There is no run in"),
    "features, no run": (FEATURES, nothing, {}, "There is no run in"),
    "export, no run": (EXPORT, nothing, {}, "There is no run in"),
    "inference, no run": (INFERENCE, nothing, {}, "There is no run in"),
    "curves, no run": (CURVES, nothing, {}, "There is no run in"),
    "inspect, no data set": (INSPECT, nothing, {}, "mine"),
    # Damage.
    "evaluate, damaged config": (EVALUATE, damaged_run, {}, "config.model.heads='four' must be a whole number"),
    "features, empty config": (FEATURES, empty_config, {}, "is damaged or was edited"),
    "export, damaged config": (EXPORT, damaged_run, {}, "config.model.heads='four' must be a whole number"),
    "finetune, from a damaged run": (
        (*FINETUNE, "--workdir={out}/new", "--config.init_from={run}"),
        damaged_run,
        {},
        "config.model.heads='four' must be a whole number",
    ),
    "import, damaged tensors": (IMPORT, damaged_tensors, {}, "weights.npz"),
    "prepare, nothing but damage": (PREPARE, nothing, {}, "There is no readable video"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_ends_in_a_sentence_and_is_not_tried_again(tmp_path, case):
    command, spoil, variables, words = CASES[case]
    places = {name: tmp_path / name for name in ("run", "videos", "out")}
    for place in places.values():
        place.mkdir()
    (places["videos"] / "a.mp4").write_bytes(b"no video")
    spoil(places["run"])
    result = subprocess.run(
        [sys.executable, *(part.format(**places) for part in command)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    launched = command[0] != "-m" or command[1] == "avshare_jax.protocol"
    assert result.returncode in ({1} if launched else {1, 2}), result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip()[-2_000:]
    assert "error: " in last and words in last
