"""A small instance of the released network, run once in PyTorch with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from avshare_jax.interop import avbert, released_names
from avshare_jax.settings import load_config_file

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="session")
def golden():
    with np.load(DATA / "avbert_small.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def state_dict(golden):
    """The 659 parameters and buffers under their own names; a real checkpoint also has copies and counts."""
    return {name.removeprefix("param/"): value for name, value in golden.items() if name.startswith("param/")}


@pytest.fixture(scope="session")
def small(golden, state_dict):
    """The config and the variables of the imported network."""
    meta = json.loads(str(golden["meta"]))
    return released_names.from_torch(state_dict, heads=meta["heads"], layers=meta["layers"])


@pytest.fixture(scope="session")
def released_shapes():
    """Shape by name of the full-size network's 659 parameters and buffers."""
    rows = [line.split("\t") for line in (DATA / "avbert_state_dict_shapes.tsv").read_text().splitlines()]
    return {name: tuple(map(int, shape.split("x"))) for name, shape in rows}


@pytest.fixture(scope="session")
def complete():
    """Returns a function that adds to a state_dict what a checkpoint file holds besides: copies and counts."""

    def add(state_dict):
        counts = {
            name.replace("running_mean", "num_batches_tracked"): np.array(220_000)
            for name in state_dict
            if name.endswith("running_mean")
        }
        copies = {
            name.replace("transformer", f"{user}_transformer", 1): value
            for name, value in state_dict.items()
            for user in ("single_visual", "single_audio", "multi")
            if name.startswith("transformer.")
        }
        return state_dict | counts | copies

    return add


@pytest.fixture(scope="session")
def recipe():
    """A recipe with 3 clips of 8 frames of 32 pixels and 32 x 16 spectrograms, as the small instance was run with."""
    config = load_config_file("configs/pretrain.py:10s")
    config.data.update(num_clips=3, frames_per_clip=8, crop=32, mel_frames=32)
    config.data.frontend.mels = 16
    return config


@pytest.fixture(scope="session")
def workdir(tmp_path_factory, state_dict, complete, recipe):
    """A workdir of the small instance, imported from a file."""
    folder = tmp_path_factory.mktemp("imported")
    np.savez(folder / "avbert.npz", **complete(state_dict))
    avbert.import_checkpoint(folder / "avbert.npz", str(folder / "run"), recipe, heads=4)
    return folder / "run"
