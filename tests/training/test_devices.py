"""Proves that a run's losses and gradients do not depend on the devices, on 8 simulated ones against one of them.

A process of its own, which runs this file, takes five steps on every mesh. BatchNorm, negatives and derangement cross
the borders between devices. It lists what the devices exchange: never activations. For every way of sharing weights, it
takes a step with the Transformers alone, which are all that sharing concerns, on a mesh of all axes.
"""

import json
import os
import subprocess
import sys
from functools import partial
from itertools import product

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from avshare_jax import models
from avshare_jax.models.factorized import SHARING
from avshare_jax.training.clip_objectives import WEIGHTS
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.program import Program
from avshare_jax.training.sharding import shard_batch, state_shardings
from avshare_jax.training.step import TrainState, create_state, make_train_step
from configs.pretrain import get_config

# Sizes of the axes data, fsdp and clip.
ONE = (1, 1, 1)
MIXED = (2, 2, 2)
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "clip": (1, 1, 8), "mixed": MIXED}
SCHEMES = [f"{layers} {transformers}" for layers, transformers in product(SHARING, SHARING)]
STEPS, VIDEOS, CLIPS, FRAMES, PIXELS = 5, 8, 8, 2, 16
# The smallest feature map on one device: its clips, of 2 frames of 4 x 4 pixels in 8 channels.
SMALLEST_ACTIVATION = VIDEOS * CLIPS // 8 * FRAMES * 4 * 4 * 8


def microscopic_config():
    """A network of few parts with as few channels as can be split over 8 devices; of the audio CNN, the stem."""
    config = get_config("demo")
    # The orthogonal map is the one that compiles sooner.
    config.model.update(hidden=8, mlp=16, heads=2, layers=1, rank=4, orthogonal_map="cayley")
    config.model.visual_cnn.update(width=8, stage_sizes=(1,), temporal_kernels=(3,))
    config.model.audio_cnn.update(width=8, stage_sizes=(), separable_stages=0, stem_kernel=3)
    config.objectives.update(num_negatives=4)
    config.sharding.smallest = 1
    return config


class Transformers:
    """A task for the Transformers alone: from given clip embeddings (B, S, D) to given tokens."""

    def __init__(self, config):
        self.network = models.build(config.model)

    def apply(self, function, variables, batch, **options):
        def encode(network, batch):
            tokens = network.encode({name: batch[name] for name in models.MODALITIES}, train=True)
            return network.fuse(tokens, train=True, present={})

        return function(variables, batch, method=encode, **options)

    def init(self, key, batch):
        return self.apply(self.network.init, key, batch)

    def loss(self, variables, batch, key, train):
        tokens = self.apply(self.network.apply, variables, batch)
        return ((tokens - batch["targets"]) ** 2).mean(), ({}, variables["batch_stats"])


def make_mesh(sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return jax.make_mesh(sizes, ("data", "fsdp", "clip"), devices=devices, axis_types=(AxisType.Auto,) * 3)


def tokens_of_step(step):
    random, clips = np.random.default_rng(step), (VIDEOS, CLIPS, 8)
    embeddings = {name: random.normal(size=clips).astype(np.float32) for name in models.MODALITIES}
    return embeddings | {"targets": random.normal(size=(VIDEOS, 2 * (CLIPS + 1), 8)).astype(np.float32)}


def batch_of_step(step):
    """Clips with colors and a spectrum of their own.

    Between clips that are nearly alike, as noise is to the CNNs, rounding would decide which are drawn as negatives.
    """
    random, clips = np.random.default_rng(step), (VIDEOS, CLIPS)
    colors = random.uniform(0, 255, (*clips, 1, 4, 4, 3)).repeat(PIXELS // 4, 3).repeat(PIXELS // 4, 4)
    spectra = random.normal(0, 3, (*clips, 1, 16))
    return {
        "frames": colors.repeat(FRAMES, 2).astype(np.uint8),
        "log_mel": (spectra + random.normal(size=(*clips, 16, 16))).astype(np.float32),
    }


def initial_state(task, optimizer, batch):
    """A state with weights from NumPy: compiling the real initialization would take longer than the test."""
    random = np.random.default_rng(1)
    state = jax.eval_shape(partial(create_state, task, optimizer), jax.random.key(0), batch)
    params = jax.tree.map(lambda x: 0.1 * random.normal(size=x.shape).astype(x.dtype), state.params)
    batch_stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state.batch_stats)
    zero = np.int32(0)
    return TrainState(zero, params, batch_stats, optimizer.init(params), zero, zero)


def take_steps(config, task, make_batch, sizes, steps, optimizer, starts=None):
    """Takes the first steps on a mesh.

    Returns:
      The losses, the states before each step, the gradients in those states, or in `starts` where they are given, and
      the elements of each collective of the compiled step.
    """
    mesh = make_mesh(sizes)
    # A trace that forgets everything keeps the last gradient in the state.
    optimizer = optax.chain(optax.trace(decay=0.0), optimizer)
    state = initial_state(task, optimizer, make_batch(0))
    lies = state_shardings(state, mesh, config.sharding)
    state = jax.device_put(state, lies)
    train_step = make_train_step(
        task,
        optimizer,
        mesh,
        seed=0,
        rules=config.sharding,
        state_sharding=lies,
        accumulation_steps=config.memory.accumulation_steps,
    )
    batches = [shard_batch(make_batch(step), mesh, config.sharding) for step in range(steps)]
    train_step = train_step.lower(state, batches[0]).compile()
    losses, states, gradients = [], [], []
    for batch in batches:
        states.append(jax.tree.map(np.asarray, state))
        state, metrics = train_step(state, batch)
        losses.append(float(metrics["loss"]))
    for start, batch in zip(starts or states, batches, strict=True):
        after, _ = train_step(jax.device_put(start, lies), batch)
        gradients.append(jax.tree.map(np.asarray, after.opt_state[0].trace))
    exchanged = [collective.elements for collective in Program.parse(train_step.as_text()).collectives()]
    return losses, states, gradients, exchanged


def largest_difference(gradients, expected):
    """The largest norm of a difference between two arrays' gradients, over the norm of the whole gradient."""
    norm = optax.tree.norm(expected)
    differences = jax.tree.map(lambda one, other: np.linalg.norm(one - other), gradients, expected)
    return float(max(jax.tree.leaves(differences)) / norm)


def compare(config, task, make_batch, meshes, steps, optimizer):
    """By the name of the mesh: losses on it and on one device, differences of gradients, and elements exchanged."""
    one, starts, expected, _ = take_steps(config, task, make_batch, ONE, steps, optimizer)
    results = {}
    for name, sizes in meshes.items():
        # AdamW makes much of gradients that are nothing but rounding. So gradients are compared in the same states.
        losses, _, gradients, exchanged = take_steps(config, task, make_batch, sizes, steps, optimizer, starts)
        differences = [largest_difference(*pair) for pair in zip(gradients, expected, strict=True)]
        results[name] = {"losses": losses, "one": one, "differences": differences, "exchanged": exchanged}
    return results


def measure():
    """Everything that the tests look at, as JSON."""
    config = microscopic_config()
    optimizer = make_optimizer(config.optimizer, total_steps=STEPS)
    results = compare(config, Pretraining(config), batch_of_step, MESHES, STEPS, optimizer)

    config.norm_groups = 2
    config.memory.update(remat="blocks", clip_chunks=2, accumulation_steps=2)
    config.objectives.update(dict.fromkeys(WEIGHTS, 0.5), contrast_same_video=0.5)
    config.objectives.update(projector_hidden=8, projector_width=8, sigreg_slices=8)
    results |= compare(config, Pretraining(config), batch_of_step, {"options": MIXED}, 2, optimizer)

    config = microscopic_config()
    config.model.update(layers=2, fusion="late")
    for scheme in SCHEMES:
        layer_sharing, transformer_sharing = scheme.split()
        config.model.update(layer_sharing=layer_sharing, transformer_sharing=transformer_sharing)
        results |= compare(config, Transformers(config), tokens_of_step, {scheme: MIXED}, 1, optax.identity())
    return results


@pytest.fixture(scope="module")
def results():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.run(
        [sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, timeout=1800
    )
    assert process.returncode == 0
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_losses_and_gradients_on_8_devices_are_those_on_one(results, mesh):
    found = results[mesh]
    # The first loss has no history; later ones carry the rounding of the updates before.
    np.testing.assert_allclose(found["losses"], found["one"], rtol=2e-6)
    # Rounding may decide on which side of its kink a single ReLU is: in one step of the five, and hardly to be seen.
    *others, largest = sorted(found["differences"])
    assert max(others) < 2e-6 and largest < 1e-4
    assert len(set(found["one"])) == STEPS


@pytest.mark.slow
def test_parts_of_batch_and_clips_are_the_same_on_all_devices(results):
    found = results["options"]
    np.testing.assert_allclose(found["losses"], found["one"], rtol=2e-6)
    assert max(found["differences"]) < 2e-6
    assert found["losses"][0] != results["mixed"]["losses"][0]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_way_of_sharing_weights(results, scheme):
    found = results[scheme]
    np.testing.assert_allclose(found["losses"], found["one"], rtol=2e-6)
    assert max(found["differences"]) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [*MESHES, "options"])
def test_devices_exchange_no_activations(results, mesh):
    exchanged = results[mesh]["exchanged"]
    assert exchanged
    assert max(exchanged) < SMALLEST_ACTIVATION


if __name__ == "__main__":
    print(json.dumps(measure()))
