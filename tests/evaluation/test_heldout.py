"""Held-out metrics are means over full batches with equal draws; a fresh network has real BatchNorm statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from avshare_jax.evaluation import heldout
from avshare_jax.settings import UserError


class Normalized(nn.Module):
    """Dense and BatchNorm twice, so that the second statistics rest on the first normalization."""

    @nn.compact
    def __call__(self, x, train):
        for width in (4, 3):
            x = nn.Dense(width)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return x


class FakeTask:
    """Loss and metrics that show which key, mode and videos they came from."""

    network = Normalized()

    def init(self, key, batch):
        return self.network.init(key, batch["log_mel"], train=False)

    def loss(self, variables, batch, key, train):
        outputs, updates = self.network.apply(variables, batch["log_mel"], train=train, mutable=["batch_stats"])
        metrics = {
            "mean": batch["log_mel"].mean(),
            "draw": jax.random.uniform(key),
            "train": jnp.float32(train),
        }
        return jnp.square(outputs).mean(), (metrics, updates.get("batch_stats", variables["batch_stats"]))


def make_batches(count, size=6):
    random = np.random.default_rng(0)
    return [
        {
            "frames": np.zeros((size, 1), np.uint8),
            "log_mel": (0.05 * random.normal(size=(size, 5)) + 3).astype(np.float32),
            "valid": np.ones(size, bool),
        }
        for _ in range(count)
    ]


def test_metrics_are_means_over_full_batches():
    task, batches = FakeTask(), make_batches(4)
    variables = task.init(jax.random.key(0), batches[0])
    batches[3]["valid"][-1] = False
    found, num_videos = heldout.heldout_metrics(task, {"a": variables, "b": variables}, batches, jax.random.key(1))
    assert num_videos == 18
    assert found["a"]["mean"] == pytest.approx(np.mean([batch["log_mel"] for batch in batches[:3]]))
    assert found["a"]["train"] == 0
    assert found["a"] == found["b"]
    draws = [jax.random.uniform(jax.random.fold_in(jax.random.key(1), i)) for i in range(3)]
    assert found["a"]["draw"] == pytest.approx(np.mean(draws))


def test_no_full_batch_is_an_error():
    task, batches = FakeTask(), make_batches(1)
    batches[0]["valid"][0] = False
    with pytest.raises(UserError, match="batch_size"):
        heldout.heldout_metrics(task, {"a": task.init(jax.random.key(0), batches[0])}, batches, jax.random.key(1))


def test_fresh_statistics_are_the_average_of_those_of_the_batches():
    task, batches = FakeTask(), make_batches(5)
    fresh = heldout.fresh_variables(task, jax.random.key(0), batches)
    dense = fresh["params"]["Dense_0"]
    activations = [batch["log_mel"].astype(np.float64) @ dense["kernel"] + dense["bias"] for batch in batches]
    weights = 0.9 ** np.arange(4, -1, -1)
    for name, statistic in (("mean", np.mean), ("var", np.var)):
        expected = np.average([statistic(x, axis=0) for x in activations], axis=0, weights=weights)
        np.testing.assert_allclose(fresh["batch_stats"]["BatchNorm_0"][name], expected, rtol=1e-2)


def test_a_fresh_network_gives_normalized_features_at_every_depth():
    task, batches = FakeTask(), make_batches(20, size=64)
    fresh = heldout.fresh_variables(task, jax.random.key(0), batches)
    outputs = task.network.apply(fresh, np.concatenate([batch["log_mel"] for batch in batches]), train=False)
    np.testing.assert_allclose(outputs.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(outputs.std(0), 1, atol=0.1)
    untouched = task.init(jax.random.key(0), batches[0])
    jax.tree.map(np.testing.assert_array_equal, fresh["params"], untouched["params"])
