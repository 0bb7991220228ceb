"""The optimizer against float64 NumPy, written from the update rule."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from avshare_jax.training import optimizer


def reference_updates(config, total_steps, start, gradients, decays):
    """Yields the parameter after each step, AdamW with AMSGrad as PyTorch defines it, on one array."""
    value = start.astype(np.float64)
    m, v, largest = np.zeros_like(value), np.zeros_like(value), np.zeros_like(value)
    warmup = config.warmup_fraction * total_steps
    for t, gradient in enumerate(gradients, start=1):
        gradient = gradient.astype(np.float64)
        gradient = gradient * min(1, config.grad_clip / np.linalg.norm(gradient))
        m = config.b1 * m + (1 - config.b1) * gradient
        v = config.b2 * v + (1 - config.b2) * gradient**2
        largest = np.maximum(largest, v)
        step = m / (1 - config.b1**t) / (np.sqrt(largest / (1 - config.b2**t)) + config.eps)
        rate = config.learning_rate * min(t / warmup, (total_steps - t + 1) / (total_steps - warmup + 1))
        value = value - rate * (step + decays * config.weight_decay * value)
        yield value


@pytest.mark.parametrize(("name", "decays"), [("kernel", True), ("bias", False)])
def test_updates_follow_the_rule(linear_config, name, decays):
    config, total_steps = linear_config.optimizer, 20
    config.weight_decay = 0.3
    random = np.random.default_rng(0)
    # Large gradients early, small ones later: the running maximum matters.
    gradients = [random.normal(size=(3, 2)).astype(np.float32) * scale for scale in np.geomspace(3, 0.01, total_steps)]
    start = random.normal(size=(3, 2)).astype(np.float32)
    transformation = optimizer.make_optimizer(config, total_steps)
    params = {"layer": {name: jnp.asarray(start)}}
    state = transformation.init(params)
    for gradient, expected in zip(
        gradients, reference_updates(config, total_steps, start, gradients, decays), strict=True
    ):
        updates, state = transformation.update({"layer": {name: jnp.asarray(gradient)}}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["layer"][name], expected, rtol=2e-5, atol=1e-6)


def test_schedule_rises_then_falls_to_zero(linear_config):
    config = linear_config.optimizer
    schedule = optimizer.learning_rate_schedule(config, 8)
    rates = np.array([schedule(count) for count in range(9)])
    np.testing.assert_allclose(
        rates, config.learning_rate * np.array([1 / 2, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0]), rtol=1e-5
    )


def test_schedule_without_warmup_starts_at_the_peak(linear_config):
    config = linear_config.optimizer
    config.warmup_fraction = 0.0
    assert optimizer.learning_rate_schedule(config, 8)(0) == pytest.approx(config.learning_rate)


def test_decay_leaves_out_biases_and_norm_scales():
    params = {
        "conv": {"kernel": 0},
        "norm": {"scale": 0, "bias": 0},
        "transformer": {"query": {"u": 0, "v": 0, "bias": 0}},
        "bos": 0,
    }
    assert optimizer.decay_mask(params) == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
        "transformer": {"query": {"u": True, "v": True, "bias": False}},
        "bos": True,
    }


@pytest.fixture
def finetuning_config():
    return ConfigDict(
        {
            "learning_rate": 0.1,
            "network_learning_rate": 0.01,
            "decay": "cosine",
            "warmup_fraction": 0.0,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-6,
            "weight_decay": 0.3,
        }
    )


@pytest.mark.parametrize(
    ("path", "rate", "decays"),
    [
        (("network", "visual_cnn", "stem", "kernel"), 0.01, True),
        (("network", "visual_cnn", "stem_norm", "scale"), 0.01, False),
        (("network", "audio_cnn", "stage1_block1", "a_norm", "bias"), 0.01, False),
        (("network", "transformer", "norm", "bias"), 0.01, True),
        (("clip_head", "classes", "bias"), 0.1, True),
    ],
)
@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_finetuning_follows_pytorchs_adam(finetuning_config, path, rate, decays, decay):
    config, total_steps, random = finetuning_config, 12, np.random.default_rng(0)
    config.decay = decay
    value = random.normal(size=(3, 2))
    params = traverse_util.unflatten_dict({path: jnp.asarray(value, jnp.float32)})
    transformation = optimizer.make_finetuning_optimizer(config, total_steps)
    state, m, v = transformation.init(params), 0.0, 0.0
    for t in range(total_steps):
        gradient = random.normal(size=(3, 2))
        updates, state = transformation.update(
            traverse_util.unflatten_dict({path: jnp.asarray(gradient, jnp.float32)}), state, params
        )
        params = optax.apply_updates(params, updates)
        gradient = gradient + decays * config.weight_decay * value
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        left = 0.5 * (1 + np.cos(np.pi * t / total_steps)) if decay == "cosine" else 1 - t / total_steps
        value = value - rate * left * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + config.eps)
        np.testing.assert_allclose(traverse_util.flatten_dict(params)[path], value, rtol=2e-4, atol=1e-5)
