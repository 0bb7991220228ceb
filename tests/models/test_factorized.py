"""The factorized linear map against its equation in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from avshare_jax.models.factorized import FactorizedLinear, apply_folded, cayley_rotations, orthogonal

INPUTS, OUTPUTS, RANK = 10, 7, 6
NAMES = ("visual", "audio", "multimodal")


@pytest.fixture(scope="module")
def layer():
    return FactorizedLinear(INPUTS, OUTPUTS, RANK, NAMES)


@pytest.fixture(scope="module")
def params(layer, random_variables):
    return random_variables(lambda key: layer.init(key, NAMES[0]))["params"]


@pytest.fixture(scope="module")
def apply(layer):
    @jax.jit
    def apply(params, x):
        return {name: apply_folded(layer.apply({"params": params}, name), x, jnp.float32) for name in NAMES}

    return apply


def reference(params, name, x):
    """y = U Sigma normalize(V^T x) + b for row vectors: h <- h Sigma, then times U^T, which is how U is stored."""
    params = {key: np.asarray(value, np.float64) for key, value in params.items()}
    upper = np.triu(params[f"private_a_{name}"], 1)
    sigma = scipy.linalg.expm(upper - upper.T)
    hidden = np.asarray(x, np.float64) @ params[f"private_v_{name}"]
    hidden /= np.maximum(np.linalg.norm(hidden, axis=-1, keepdims=True), 1e-12)
    return hidden @ sigma @ params["shared_u"] + params["shared_bias"]


def test_each_transformer_applies_its_equation(apply, params):
    x = np.random.default_rng(1).normal(size=(3, 5, INPUTS)).astype(np.float32)
    outputs = apply(params, x)
    for name in NAMES:
        np.testing.assert_allclose(outputs[name], reference(params, name, x), rtol=1e-4, atol=1e-5)


def test_only_v_and_a_are_private(params):
    assert {name: value.shape for name, value in params.items() if name.startswith("shared")} == {
        "shared_u": (RANK, OUTPUTS),
        "shared_bias": (OUTPUTS,),
    }
    private = {f"private_v_{name}": (INPUTS, RANK) for name in NAMES} | {
        f"private_a_{name}": (RANK, RANK) for name in NAMES
    }
    assert {name: value.shape for name, value in params.items() if name.startswith("private")} == private


def test_input_scale_does_not_matter(apply, params):
    x = np.random.default_rng(2).normal(size=(4, INPUTS)).astype(np.float32)
    outputs, scaled = apply(params, x), apply(params, 1000 * x)
    for name in NAMES:
        np.testing.assert_allclose(outputs[name], scaled[name], rtol=1e-4, atol=1e-5)


def test_zero_input_gives_the_bias_and_finite_gradients(layer, params):
    def total(params, x):
        return apply_folded(layer.apply({"params": params}, "audio"), x, jnp.float32).sum()

    x = np.zeros((2, INPUTS), np.float32)
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(params, x)
    np.testing.assert_allclose(value, 2 * params["shared_bias"].sum(), rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_sigma_is_the_rotation_of_the_upper_triangle(scale):
    a = (scale * np.random.default_rng(3).normal(size=(16, 16))).astype(np.float32)
    sigma = np.asarray(orthogonal(a), np.float64)
    np.testing.assert_allclose(sigma @ sigma.T, np.eye(16), atol=2e-4)
    assert np.linalg.det(sigma) == pytest.approx(1, abs=1e-3)
    upper = np.triu(a, 1).astype(np.float64)
    np.testing.assert_allclose(sigma, scipy.linalg.expm(upper - upper.T), atol=2e-4 * max(1, scale))
    np.testing.assert_array_equal(orthogonal(np.triu(a, 1)), orthogonal(a))


def test_initial_sigma_turns_pairs_of_axes():
    a = np.asarray(cayley_rotations(jax.random.key(0), (6, 6)))
    expected = np.zeros((6, 6))
    for row in (0, 2, 4):
        cosine, sine = np.cos(a[row, row + 1]), np.sin(a[row, row + 1])
        expected[row : row + 2, row : row + 2] = [[cosine, sine], [-sine, cosine]]
    np.testing.assert_allclose(orthogonal(a), expected, atol=1e-6)


def test_initial_angles_are_uniform():
    a = np.asarray(cayley_rotations(jax.random.key(1), (1000, 1000)))
    rows = np.arange(0, 1000, 2)
    values = a[rows, rows + 1]
    assert np.count_nonzero(a) == np.count_nonzero(values)
    angles = 2 * np.arctan(-values)  # The inverse of -sqrt((1 - cos t) / (1 + cos t)) = -tan(t / 2).
    assert scipy.stats.kstest(angles, "uniform", args=(0, np.pi / 2)).pvalue > 0.01


def test_shared_u_receives_the_gradients_of_all_three_transformers(random_variables):
    layer = FactorizedLinear(5, 5, 4, NAMES)
    params = random_variables(lambda key: layer.init(key, NAMES[0]))["params"]
    visual, audio, direction = np.random.default_rng(4).normal(size=(3, 3, 5)).astype(np.float32)

    def loss(*params):
        """The multimodal map of what the two unimodal ones give, each with its own copy of the parameters."""
        weights = [layer.apply({"params": copy}, name) for copy, name in zip(params, NAMES, strict=True)]
        unimodal = apply_folded(weights[0], visual, jnp.float32) + apply_folded(weights[1], audio, jnp.float32)
        return jnp.sum(direction * apply_folded(weights[2], unimodal, jnp.float32))

    @jax.jit
    def gradients(params):
        return jax.grad(lambda params: loss(params, params, params))(params), jax.grad(loss, (0, 1, 2))(*[params] * 3)

    shared, copies = gradients(params)
    for name in ("shared_u", "shared_bias"):
        np.testing.assert_allclose(shared[name], sum(copy[name] for copy in copies), rtol=1e-4, atol=1e-5)
        assert all(np.abs(copy[name]).max() > 1e-3 for copy in copies)
    for copy, name in zip(copies, NAMES, strict=True):
        for private in (f"private_v_{name}", f"private_a_{name}"):
            np.testing.assert_allclose(shared[private], copy[private], rtol=1e-4, atol=1e-5)


def test_initial_outputs_are_of_the_size_of_a_plain_layer():
    layer = FactorizedLinear(64, 512, 32, NAMES)
    params = layer.init(jax.random.key(2), "audio")["params"]
    x = np.random.default_rng(5).normal(size=(20, 64)).astype(np.float32)
    outputs = apply_folded(layer.apply({"params": params}, "audio"), x, jnp.float32)
    # BERT's own layers start with a standard deviation of 0.02 for 768 inputs of unit variance.
    assert np.std(outputs) == pytest.approx(0.02 * np.sqrt(768), rel=0.2)
