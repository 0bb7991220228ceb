"""Proves that a run's losses do not depend on the number of devices: pretraining on 1 device and on 8 simulated ones.

BatchNorm, negatives and derangement all cross device borders. Both numbers of devices get a
process of their own, which runs this file.
"""

import json
import os
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from avshare_jax.training.mesh import make_mesh, replicated, shard_batch
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.step import TrainState, create_state, make_train_step
from configs.pretrain import get_config


def first_losses() -> list[float]:
    """Losses of 5 steps of a microscopic network on noise, 8 videos of 4 clips, on all devices of this process."""
    config = get_config("demo")
    config.model.update(hidden=16, mlp=32, heads=2, layers=1, rank=4)
    config.model.visual_cnn.update(width=4, stage_sizes=(1,), temporal_kernels=(3,))
    config.model.audio_cnn.update(width=4, stage_sizes=(1,), separable_stages=1)
    config.objectives.num_negatives = 4
    mesh = make_mesh(config.mesh)
    task, optimizer = Pretraining(config), make_optimizer(config.optimizer, total_steps=5)
    random = np.random.default_rng(0)
    batches = [
        {
            "frames": random.integers(0, 256, (8, 4, 2, 16, 16, 3), np.uint8),
            "log_mel": random.normal(size=(8, 4, 16, 16)).astype(np.float32),
        }
        for _ in range(5)
    ]

    state = jax.device_put(initial_state(task, optimizer, batches[0]), replicated(mesh))
    train_step = make_train_step(task, optimizer, mesh, seed=0)
    losses = []
    for batch in batches:
        state, metrics = train_step(state, shard_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return losses


def initial_state(task, optimizer, batch):
    """A state with weights from NumPy: compiling the real initialization would take longer than the test."""
    random = np.random.default_rng(1)
    state = jax.eval_shape(partial(create_state, task, optimizer), jax.random.key(0), batch)
    params = jax.tree.map(lambda x: 0.1 * random.normal(size=x.shape).astype(x.dtype), state.params)
    batch_stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state.batch_stats)
    zero = np.int32(0)
    return TrainState(zero, params, batch_stats, optimizer.init(params), zero, zero)


def run_on(devices):
    """Runs this file in a process with so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_losses_on_8_devices_are_those_on_one():
    processes = {devices: run_on(devices) for devices in (1, 8)}
    losses = {}
    for devices, process in processes.items():
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0
        found, losses[devices] = json.loads(output.splitlines()[-1])
        assert found == devices
    # The first loss has no history; later ones carry the rounding of the updates before.
    np.testing.assert_allclose(losses[8], losses[1], rtol=2e-5)
    assert len(set(losses[1])) == 5


if __name__ == "__main__":
    print(json.dumps([jax.device_count(), first_losses()]))
