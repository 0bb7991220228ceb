"""A task small enough to follow by hand: linear regression with noise, a running mean, and batches by step."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict


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
