"""A task small enough to follow by hand, linear regression with noise and a running mean; a downstream run's config."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.interop.workdirs import write_imported
from avshare_jax.settings import load_config_file
from tests import transfer
from tests.data.conftest import TINY_FRONTEND
from tests.data.conftest import dataset_dir as dataset_dir  # a fixture


class LinearTask:
    """Predicts `targets` (B, 2) from `inputs` (B, 3); the key adds noise, so that randomness is part of the loss."""

    def init(self, key, batch):
        kernel = 0.1 * jax.random.normal(key, (batch["inputs"].shape[-1], 2))
        return {
            "params": {"linear": {"kernel": kernel, "bias": jnp.zeros(2)}},
            "batch_stats": {"norm": {"mean": jnp.zeros(3)}},
        }

    def loss(self, variables, batch, key, train):
        linear = variables["params"]["linear"]
        noise = 0.01 * jax.random.normal(key, batch["targets"].shape)
        error = batch["inputs"] @ linear["kernel"] + linear["bias"] + noise - batch["targets"]
        loss = jnp.mean(error**2)
        mean = 0.9 * variables["batch_stats"]["norm"]["mean"] + 0.1 * batch["inputs"].mean(0)
        return loss, ({"largest_error": jnp.abs(error).max()}, {"norm": {"mean": mean}})


class StepBatches:
    """Batches that are a function of the step alone; those of the steps in `bad` hold a NaN."""

    def __init__(self, bad=()):
        self.bad = bad

    def batch(self, step: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(step)
        inputs = random.normal(size=(8, 3)).astype(np.float32)
        targets = inputs @ np.float32([[1, 0], [0, 2], [3, 0]])
        if step in self.bad:
            inputs[0, 0] = np.nan
        return {"inputs": inputs, "targets": targets}

    def __call__(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        step = start_step
        while True:
            yield self.batch(step)
            step += 1


@pytest.fixture
def linear_task():
    return LinearTask()


@pytest.fixture
def step_batches():
    return StepBatches


@pytest.fixture
def linear_config():
    return ConfigDict(
        {
            "name": "linear",
            "seed": 3,
            "batch_size": 8,
            "total_steps": 8,
            "data": {"num_clips": 1, "num_workers": 0},
            "model": {"width": 3, "heads": {"count": 2}, "kernels": (1, 3)},
            "optimizer": {
                "learning_rate": 0.05,
                "warmup_fraction": 0.25,
                "decay": "linear",
                "b1": 0.9,
                "b2": 0.98,
                "eps": 1e-8,
                "weight_decay": 0.01,
                "grad_clip": 1.0,
            },
            "norm_groups": 1,
            "memory": {"remat": "none", "clip_chunks": 1, "accumulation_steps": 1},
            "mesh": {"data": -1, "fsdp": 1, "clip": 1},
            "sharding": {
                "batch": ("data", "fsdp"),
                "clip": ("clip",),
                "parameters": ((r"/kernel$", ("fsdp",)), (r"/bias$", ()), (r"^batch_stats/", ())),
                "smallest": 1,
            },
            "log_every": 1,
            "checkpoint_every": 4,
            "checkpoints_kept": 2,
            "max_nonfinite_steps": 3,
        }
    )


@pytest.fixture(scope="module")
def make_config(dataset_dir):
    """A reduced config on the data set "tiny", whose classes are even and odd."""

    def make(task, **changes):
        config = transfer.reduced(transfer.CONFIG_FILES[task], "tiny", dataset_dir)
        config.data.update(train_split="train", eval_split="test", frontend=ConfigDict(vars(TINY_FRONTEND)))
        config.data.update(min_short_side=10, max_short_side=16, crop=8)
        config.test.update(short_side=10, crop=8)
        config.update(batch_size=4)
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture(scope="module")
def imported(make_config, tmp_path_factory, random_variables):
    """A workdir with an imported network and another without its audio CNN, and the variables."""
    directory, config = tmp_path_factory.mktemp("imported"), make_config("kinetics_sounds")
    network = models.build(config.model)
    batch = {"frames": np.zeros((1, 1, 2, 8, 8, 3), np.float32), "log_mel": np.zeros((1, 1, 8, 8), np.float32)}
    variables = random_variables(lambda key: network.init(key, batch, train=False))
    recipe = load_config_file("configs/pretrain.py:demo,data.num_clips=2,objectives.num_negatives=8")
    write_imported(str(directory / "whole"), recipe, config.model, variables, {})
    parts = {name: {part: x for part, x in tree.items() if part != "audio_cnn"} for name, tree in variables.items()}
    write_imported(str(directory / "deaf"), recipe, config.model, parts, {})
    return directory, variables
