"""Convolutions with folded axes against XLA's 3D convolution, normalization and pooling against NumPy."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from avshare_jax.models.convolution import Convolution, Counted, batch_norm
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


def test_batch_norm_by_batch_and_by_running_statistics():
    random = np.random.default_rng(2)
    x = random.normal(3, 2, size=(4, 5, 6, 3)).astype(np.float32)
    scale, bias, running_mean, running_variance = random.uniform(0.5, 2, (4, 3)).astype(np.float32)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": running_mean, "var": running_variance},
    }

    def expected(mean, variance):
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias

    evaluated = batch_norm(False, np.float32, "norm").apply(variables, x)
    np.testing.assert_allclose(evaluated, expected(running_mean, running_variance), rtol=1e-4, atol=1e-4)
    mean, variance = (getattr(x.astype(np.float64), name)((0, 1, 2)) for name in ("mean", "var"))
    trained, updates = batch_norm(True, np.float32, "norm").apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(trained, expected(mean, variance), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.9 * running_mean + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 * running_variance + 0.1 * variance, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8])
def test_max_pool_takes_the_largest_of_three(length):
    x = np.random.default_rng(length).uniform(size=(2, length, 3)).astype(np.float32)
    expected = [x[:, max(0, center - 1) : center + 2].max(1) for center in range(0, length, 2)]
    np.testing.assert_array_equal(max_pool_axis(x, axis=1), np.stack(expected, axis=1))


def test_pooling_both_axes_is_two_dimensional_pooling():
    x = np.random.default_rng(5).uniform(size=(2, 3, 9, 6, 2)).astype(np.float32)
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
