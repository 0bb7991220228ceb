"""One training step, called directly."""

import jax
import numpy as np
import pytest

from avshare_jax.training import mesh as meshes
from avshare_jax.training import optimizer, sharding, step


@pytest.fixture
def transformation(linear_config):
    return optimizer.make_optimizer(linear_config.optimizer, linear_config.total_steps)


@pytest.fixture
def state(linear_task, transformation, step_batches):
    return step.create_state(linear_task, transformation, jax.random.key(0), step_batches().batch(0))


def take(state, batch, linear_task, transformation, seed=0):
    return step.train_step(state, batch, task=linear_task, optimizer=transformation, seed=seed)


def test_step_moves_everything_and_reports(state, linear_task, transformation, step_batches):
    after, metrics = take(state, step_batches().batch(0), linear_task, transformation)
    assert (after.step, after.skipped, after.skipped_in_a_row) == (1, 0, 0)
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after.variables, state.variables)), strict=True))
    assert {"loss", "grad_norm", "skipped", "skipped_in_a_row", "largest_error"} == set(metrics)


def test_randomness_depends_on_seed_and_step_alone(state, linear_task, transformation, step_batches):
    batch = step_batches().batch(0)
    losses = [
        float(take(start, batch, linear_task, transformation, seed)[1]["loss"])
        for start, seed in ((state, 0), (state, 0), (state, 1), (state.replace(step=state.step + 1), 0))
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_not_finite_step_changes_only_the_counters(state, linear_task, transformation, step_batches):
    bad = step_batches(bad=[0]).batch(0)
    after, metrics = take(state, bad, linear_task, transformation)
    assert not np.isfinite(metrics["loss"])
    assert (after.step, after.skipped, after.skipped_in_a_row) == (1, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, after.variables, state.variables)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, state.opt_state)
    after, _ = take(after, bad, linear_task, transformation)
    assert (after.step, after.skipped, after.skipped_in_a_row) == (2, 2, 2)
    after, _ = take(after, step_batches().batch(0), linear_task, transformation)
    assert (after.step, after.skipped, after.skipped_in_a_row) == (3, 2, 0)


def test_not_finite_gradient_of_a_finite_loss_is_skipped(state, transformation, step_batches):
    class RootTask:
        def loss(self, variables, batch, key, train):
            # The derivative of the square root at zero is infinite.
            zero = 0 * variables["params"]["linear"]["bias"].sum()
            return jax.numpy.sqrt(zero), ({}, variables["batch_stats"])

    after, metrics = take(state, step_batches().batch(0), RootTask(), transformation)
    assert np.isfinite(metrics["loss"]) and after.skipped == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_accumulated_gradients_are_those_of_the_whole_batch(state, linear_task, transformation, step_batches):
    """With a loss that is a mean over videos, and without noise, parts change nothing but the rounding."""

    class QuietTask:
        def loss(self, variables, batch, key, train):
            error = batch["inputs"] @ variables["params"]["linear"]["kernel"] - batch["targets"]
            mean = {"norm": {"mean": 0.9 * variables["batch_stats"]["norm"]["mean"] + 0.1 * batch["inputs"].mean(0)}}
            return (error**2).mean(), ({"first": batch["inputs"][0, 0]}, mean)

    batch = step_batches().batch(0)
    arguments = {"task": QuietTask(), "optimizer": transformation, "seed": 0}
    whole, whole_metrics = step.train_step(state, batch, **arguments)
    parts, metrics = step.train_step(state, batch, **arguments, accumulation_steps=4)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), parts, whole)
    np.testing.assert_allclose(metrics["loss"], whole_metrics["loss"], rtol=1e-5)
    # Part i begins with row i.
    np.testing.assert_allclose(metrics["first"], batch["inputs"][:4, 0].mean(), rtol=1e-5)


def test_parts_of_a_batch_have_keys_of_their_own():
    batch = {"rows": np.arange(6.0)}
    keys = step.accumulate(lambda part, key: jax.random.uniform(key, (100,)), batch, jax.random.key(0), 2)
    alone = step.accumulate(lambda part, key: jax.random.uniform(key, (100,)), batch, jax.random.key(0), 1)
    np.testing.assert_array_equal(alone, jax.random.uniform(jax.random.key(0), (100,)))
    # The mean of two independent uniform draws varies half as much.
    assert 0.6 < np.var(keys) / (1 / 24) < 1.5


def test_a_part_that_is_not_finite_skips_the_step(state, linear_task, transformation, step_batches):
    bad = step_batches(bad=[0]).batch(0)
    after, _ = step.train_step(state, bad, task=linear_task, optimizer=transformation, seed=0, accumulation_steps=2)
    assert (after.step, after.skipped) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, after.variables, state.variables)


def test_compiled_step_donates_its_state(state, linear_task, linear_config, transformation, step_batches):
    mesh, rules = meshes.make_mesh(linear_config.mesh), linear_config.sharding
    lies = sharding.state_shardings(state, mesh, rules)
    compiled = step.make_train_step(linear_task, transformation, mesh, seed=0, rules=rules, state_sharding=lies)
    state = jax.device_put(state, lies)
    after, _ = compiled(state, sharding.shard_batch(step_batches().batch(0), mesh, rules))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert after.step == 1
