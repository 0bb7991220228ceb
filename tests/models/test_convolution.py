"""Convolutions with folded axes against XLA's 3D convolution, normalization and pooling against NumPy."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from avshare_jax.models.convolution import BatchNorm, Convolution, Counted
from avshare_jax.models.placement import written_for
from avshare_jax.models.visual_cnn import VisualCNN, max_pool, max_pool_axis


@pytest.mark.parametrize(
    ("kernel_size", "strides"),
    [
        ((1, 1, 1), (1, 1, 1)),
        ((1, 1, 1), (1, 2, 2)),
        ((1, 3, 3), (1, 1, 1)),
        ((1, 3, 3), (1, 2, 2)),
        ((1, 5, 5), (2, 2, 2)),
        ((3, 1, 1), (1, 1, 1)),
        ((3, 1, 1), (2, 2, 2)),
        ((5, 7, 7), (2, 2, 2)),
        ((2, 1, 1), (1, 1, 1)),
        ((4, 3, 3), (1, 1, 1)),
    ],
)
def test_folding_axes_changes_neither_values_nor_gradients(kernel_size, strides):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 5, 8, 7, 3)).astype(np.float32)
    kernel = random.normal(size=(*kernel_size, 3, 4)).astype(np.float32)

    def folded(x, kernel):
        return Convolution(4, kernel_size, strides).apply({"params": {"kernel": kernel}}, x)

    def native(x, kernel):
        padding = [(size // 2, size // 2) for size in kernel_size]
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))

    expected, native_vjp = jax.vjp(native, x, kernel)
    actual, folded_vjp = jax.vjp(folded, x, kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    cotangent = random.normal(size=expected.shape).astype(np.float32)
    for ours, theirs in zip(folded_vjp(cotangent), native_vjp(cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kernel_size", "strides"),
    [((1, 1), (2, 2)), ((1, 3), (1, 2)), ((3, 1), (2, 1)), ((9, 1), (1, 1)), ((3, 3), (2, 2))],
)
def test_two_dimensional_convolution_is_the_sum_over_its_window(kernel_size, strides):
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 6, 5, 2)).astype(np.float32)
    kernel = random.normal(size=(*kernel_size, 2, 3)).astype(np.float32)
    half = [size // 2 for size in kernel_size]
    padded = np.pad(x.astype(np.float64), ((0, 0), (half[0], half[0]), (half[1], half[1]), (0, 0)))
    expected = [
        [
            np.tensordot(padded[:, row : row + kernel_size[0], column : column + kernel_size[1]], kernel, 3)
            for column in range(0, 5, strides[1])
        ]
        for row in range(0, 6, strides[0])
    ]
    actual = Convolution(3, kernel_size, strides).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(actual, np.moveaxis(expected, 2, 0), rtol=1e-4, atol=1e-5)


@pytest.fixture
def norm_variables():
    scale, bias, mean, variance = np.random.default_rng(2).uniform(0.5, 2, (4, 3)).astype(np.float32)
    scale[1] *= -1
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": variance}}


def test_batch_norm_by_batch_and_by_running_statistics(norm_variables):
    x = np.random.default_rng(3).normal(3, 2, size=(4, 5, 6, 3)).astype(np.float32)
    params, running = norm_variables["params"], norm_variables["batch_stats"]

    def expected(mean, variance):
        return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]

    evaluated = BatchNorm(False, np.float32).apply(norm_variables, x, Counted())
    np.testing.assert_allclose(evaluated, expected(running["mean"], running["var"]), rtol=1e-4, atol=1e-4)
    mean, variance = (getattr(x.astype(np.float64), name)((0, 1, 2)) for name in ("mean", "var"))
    trained, updates = BatchNorm(True, np.float32).apply(norm_variables, x, Counted(), mutable=["batch_stats"])
    np.testing.assert_allclose(trained, expected(mean, variance), rtol=1e-4, atol=1e-4)
    moved = updates["batch_stats"]
    np.testing.assert_allclose(moved["mean"], 0.9 * running["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(moved["var"], 0.9 * running["var"] + 0.1 * variance, rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("present", [None, np.array([True, False, True, True])])
def test_batch_norm_and_its_gradients_are_those_of_flax(norm_variables, train, present):
    random = np.random.default_rng(4)
    x, cotangent = random.normal(3, 2, size=(2, 4, 5, 6, 3)).astype(np.float32)

    def ours(params, x):
        norm, variables = BatchNorm(train, np.float32), norm_variables | {"params": params}
        return norm.apply(variables, x, Counted(present), mutable=["batch_stats"])

    def theirs(params, x):
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False)
        mask = None if present is None else present[:, None, None, None]
        return norm.apply(norm_variables | {"params": params}, x, mask=mask, mutable=["batch_stats"])

    results = [jax.vjp(norm, norm_variables["params"], x, has_aux=True) for norm in (ours, theirs)]
    (normalized, pull, updates), (expected, expected_pull, expected_updates) = results
    both = (normalized, updates, pull(cotangent)), (expected, expected_updates, expected_pull(cotangent))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4), *both)


def test_the_backward_pass_keeps_less_than_with_flax():
    class Chain(nn.Module):
        make_norm: Callable

        @nn.compact
        def __call__(self, x):
            for _ in range(4):
                x = nn.relu(self.make_norm()(nn.Dense(16, use_bias=False)(x)))
            return jnp.sum(x)

    def planned(make_norm):
        chain, x = Chain(make_norm), jax.ShapeDtypeStruct((64, 32, 32, 16), jnp.float32)
        variables = jax.eval_shape(chain.init, jax.random.key(0), x)
        loss = lambda variables, x: chain.apply(variables, x, mutable=["batch_stats"])[0]  # noqa: E731
        plan = jax.jit(jax.grad(loss)).lower(variables, x).compile().memory_analysis()
        return plan.temp_size_in_bytes

    ours = planned(lambda: partial(BatchNorm(True, jnp.float32), counted=Counted()))
    assert ours < 0.8 * planned(lambda: nn.BatchNorm(use_running_average=False))


@pytest.mark.parametrize(
    ("train", "counted"),
    [
        (False, Counted()),
        (True, Counted()),
        (True, Counted(np.array([True, False]))),
        (True, Counted(None, np.eye(2, dtype=bool))),
    ],
)
def test_pooling_before_normalization_is_pooling_after_it(norm_variables, train, counted):
    """One channel has a negative scale: the largest of what is normalized is the smallest before."""
    random = np.random.default_rng(5)
    x = random.normal(1, 2, size=(2, 3, 8, 7, 3)).astype(np.float32)
    cotangent = random.normal(size=(2, 3, 4, 4, 3)).astype(np.float32)

    def normalize(params, x, pool=None):
        norm, variables = BatchNorm(train, x.dtype), norm_variables | {"params": params}
        y, updates = norm.apply(variables, x, counted, pool, mutable=["batch_stats"])
        return y if pool else max_pool(y), updates

    params = norm_variables["params"]
    before, pull_before, updates = jax.vjp(lambda *args: normalize(*args, max_pool), params, x, has_aux=True)
    after, pull_after, expected_updates = jax.vjp(normalize, params, x, has_aux=True)
    both = (before, updates, pull_before(cotangent)), (after, expected_updates, pull_after(cotangent))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), *both)
    half, _ = normalize(params, jnp.asarray(x, jnp.bfloat16), max_pool)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), after, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8])
def test_max_pool_takes_the_largest_of_three(length):
    x = np.random.default_rng(length).normal(size=(2, length, 3)).astype(np.float32)
    expected = [x[:, max(0, center - 1) : center + 2].max(1) for center in range(0, length, 2)]
    np.testing.assert_array_equal(max_pool_axis(x, axis=1), np.stack(expected, axis=1))


def test_pooling_both_axes_is_two_dimensional_pooling():
    x = np.random.default_rng(5).normal(size=(2, 3, 9, 6, 2)).astype(np.float32)
    expected = nn.max_pool(x, (1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))
    np.testing.assert_array_equal(max_pool(x), expected)


@pytest.mark.parametrize(
    ("platform", "primitive"), [("tpu", "reduce_window_max"), ("gpu", "f32[3,4,16,8] = conv_general_dilated")]
)
def test_what_is_compiled_for_other_platforms_computes_the_same(platform, primitive):
    random = np.random.default_rng(6)
    clips = random.normal(size=(3, 4, 16, 16, 3)).astype(np.float32)
    cnn = VisualCNN(4, (1, 1), (1, 3), (3, 5, 5), (1, 2, 2), np.float32)
    variables = cnn.init(jax.random.key(0), clips, False, Counted())

    def features(params, clips):
        return cnn.apply(variables | {"params": params}, clips, True, Counted(), mutable=["batch_stats"])[0]

    def run():
        outputs, pull = jax.vjp(features, variables["params"], clips)
        return outputs, pull(np.cos(np.arange(outputs.size, dtype=np.float32)).reshape(outputs.shape))

    here = run()
    with written_for(platform):
        program = str(jax.make_jaxpr(features)(variables["params"], clips))
        there = run()
    assert primitive in program, "the program is the one for that platform"
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4), there, here)
