"""Shared and factorized weights, and the orthogonal maps, against their equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.stats

from avshare_jax.models.factorized import (
    ORTHOGONAL_MAPS,
    Stacks,
    apply_linear,
    block_rotations,
    fold,
    init_linear,
    make_stacks,
    select,
)

INPUTS, OUTPUTS, RANK, LAYERS, TRANSFORMERS = 10, 7, 6, 2, 3
SCHEMES = ("none", "all", "factorized")


def rotation(a, orthogonal_map):
    """Sigma from A (O, O), in float64."""
    x = np.triu(a, 1) - np.triu(a, 1).T
    identity = np.eye(len(a))
    return scipy.linalg.expm(x) if orthogonal_map == "expm" else np.linalg.solve(identity + x, identity - x)


def make_weights(random_variables, layer_sharing, transformer_sharing, rank=RANK):
    stacks = make_stacks(LAYERS, TRANSFORMERS, layer_sharing, transformer_sharing)
    return random_variables(lambda key: {"linear": init_linear(key, INPUTS, OUTPUTS, rank, stacks)})["linear"]


@pytest.mark.parametrize("orthogonal_map", ORTHOGONAL_MAPS)
@pytest.mark.parametrize("transformer_sharing", SCHEMES)
@pytest.mark.parametrize("layer_sharing", SCHEMES)
def test_each_layer_of_each_transformer_applies_its_equation(
    random_variables, layer_sharing, transformer_sharing, orthogonal_map
):
    weights = make_weights(random_variables, layer_sharing, transformer_sharing)
    x = np.random.default_rng(1).normal(size=(3, 5, INPUTS)).astype(np.float32)

    @jax.jit
    def apply(weights):
        folded = fold({"linear": weights}, orthogonal_map)["linear"]
        places = [(layer, transformer) for layer in range(LAYERS) for transformer in range(TRANSFORMERS)]
        return {
            place: apply_linear(
                {name: select(stack, *place) for name, stack in folded.items()}, jnp.asarray(x), jnp.float32
            )
            for place in places
        }

    for (layer, transformer), output in apply(weights).items():
        # Which array is whose, written out once more: what is shared has a single row.
        private = (0 if layer_sharing == "all" else layer, 0 if transformer_sharing == "all" else transformer)
        shared = (layer if layer_sharing == "none" else 0, transformer if transformer_sharing == "none" else 0)
        hidden = x.astype(np.float64) @ weights["v"][private]
        hidden /= np.linalg.norm(hidden, axis=-1, keepdims=True)
        sigma = rotation(weights["a"][private].astype(np.float64), orthogonal_map)
        expected = hidden @ sigma @ weights["u"][shared] + weights["bias"][shared]
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_full_weights_are_an_ordinary_linear_map(random_variables):
    weights = make_weights(random_variables, "none", "all", rank=None)
    assert {name: stack.shape for name, stack in weights.items()} == {
        "kernel": (LAYERS, 1, INPUTS, OUTPUTS),
        "bias": (LAYERS, 1, OUTPUTS),
    }
    x = np.random.default_rng(1).normal(size=(4, INPUTS)).astype(np.float32)
    folded = fold({"linear": weights}, "expm")["linear"]
    output = apply_linear({name: select(stack, 1, 2) for name, stack in folded.items()}, jnp.asarray(x), jnp.float32)
    np.testing.assert_allclose(output, x @ weights["kernel"][1, 0] + weights["bias"][1, 0], rtol=1e-4, atol=1e-5)


def test_in_the_paper_only_v_and_a_are_private():
    assert make_stacks(6, 3, "all", "factorized") == Stacks(shared=(1, 1), private=(1, 3))


def test_unknown_scheme_is_a_sentence():
    with pytest.raises(ValueError, match="none, all or factorized, and not 'half'"):
        make_stacks(6, 3, "all", "half")


@pytest.fixture(scope="module")
def paper_weights(random_variables):
    return make_weights(random_variables, "all", "factorized")


def apply_to(weights, transformer, x):
    folded = fold({"linear": weights}, "expm")["linear"]
    return apply_linear({name: select(stack, 0, transformer) for name, stack in folded.items()}, x, jnp.float32)


def test_input_scale_does_not_matter(paper_weights):
    x = np.random.default_rng(2).normal(size=(4, INPUTS)).astype(np.float32)
    one, other = apply_to(paper_weights, 1, x), apply_to(paper_weights, 1, 1000 * x)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_zero_input_gives_the_bias_and_finite_gradients(paper_weights):
    def total(weights, x):
        return apply_to(weights, 1, x).sum()

    x = np.zeros((2, INPUTS), np.float32)
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(paper_weights, x)
    np.testing.assert_allclose(value, 2 * paper_weights["bias"].sum(), rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_shared_u_receives_the_gradients_of_all_three_transformers(paper_weights):
    x = np.random.default_rng(4).normal(size=(TRANSFORMERS, INPUTS)).astype(np.float32)
    direction = np.random.default_rng(5).normal(size=(TRANSFORMERS, OUTPUTS)).astype(np.float32)

    def part(weights, transformer):
        return jnp.sum(direction[transformer] * apply_to(weights, transformer, x[transformer]))

    @jax.jit
    def gradients(weights):
        parts = [jax.grad(part)(weights, transformer) for transformer in range(TRANSFORMERS)]
        return jax.grad(lambda weights: sum(part(weights, t) for t in range(TRANSFORMERS)))(weights), parts

    together, parts = gradients(paper_weights)
    for name in ("u", "bias"):
        np.testing.assert_allclose(together[name], sum(gradient[name] for gradient in parts), rtol=1e-4, atol=1e-5)
        assert all(np.abs(gradient[name]).max() > 1e-3 for gradient in parts)
    for transformer, gradient in enumerate(parts):
        for name in ("v", "a"):
            np.testing.assert_allclose(together[name][0, transformer], gradient[name][0, transformer], atol=1e-5)
            assert np.abs(np.delete(gradient[name][0], transformer, axis=0)).max() == 0


@pytest.mark.parametrize("orthogonal_map", ORTHOGONAL_MAPS)
@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 3.0])
def test_sigma_is_orthogonal_and_follows_its_definition(orthogonal_map, scale):
    a = (scale * np.random.default_rng(3).normal(size=(2, 128, 128))).astype(np.float32)
    sigmas = np.asarray(ORTHOGONAL_MAPS[orthogonal_map](a), np.float64)
    for sigma, matrix in zip(sigmas, a.astype(np.float64), strict=True):
        assert np.linalg.norm(sigma.T @ sigma - np.eye(128)) < 1e-5
        assert np.linalg.det(sigma) == pytest.approx(1, abs=1e-4)
        # A Cayley map's linear system is ill-conditioned where a rotation is near a half turn.
        tolerance = 2e-5 if orthogonal_map == "expm" else 2e-4
        np.testing.assert_allclose(sigma, rotation(matrix, orthogonal_map), atol=tolerance * max(1, scale))
    np.testing.assert_array_equal(ORTHOGONAL_MAPS[orthogonal_map](np.triu(a, 1)), sigmas.astype(np.float32))


def test_other_matrices_do_not_change_an_exponential():
    """Neither those of other norms nor those that have none."""
    scales = np.array([0, 1e-5, 0.02, 1, 20, 1e4, np.nan])
    a = np.random.default_rng(4).normal(size=(7, 24, 24)) * scales[:, None, None]
    sigmas = np.asarray(ORTHOGONAL_MAPS["expm"](a.astype(np.float32)))
    assert np.isnan(sigmas[-2:]).all()
    for sigma, matrix, scale in zip(sigmas[:-2], a, scales, strict=False):
        np.testing.assert_allclose(sigma, rotation(matrix.astype(np.float32), "expm"), atol=2e-6 * max(1, scale))
    np.testing.assert_array_equal(sigmas[0], np.eye(24))


@pytest.mark.parametrize(("norm", "is_finite"), [(2048, True), (2049, False)])
def test_exponentials_reach_up_to_a_norm(norm, is_finite):
    a = np.zeros((4, 4), np.float32)
    a[0, 1] = norm
    sigma = np.asarray(ORTHOGONAL_MAPS["expm"](a))
    assert np.isfinite(sigma).all() == np.isfinite(sigma).any() == is_finite
    if is_finite:
        np.testing.assert_allclose(sigma, rotation(a.astype(np.float64), "expm"), atol=1e-3)


@pytest.mark.parametrize("orthogonal_map", ORTHOGONAL_MAPS)
def test_gradients_of_sigma_match_finite_differences(orthogonal_map):
    random = np.random.default_rng(6)
    a, weights = random.normal(size=(2, 5, 5))
    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(lambda a: jnp.sum(weights * ORTHOGONAL_MAPS[orthogonal_map](a)))(jnp.asarray(a)))
    assert gradient.dtype == np.float64
    for place in np.ndindex(5, 5):
        step = np.zeros((5, 5))
        step[place] = 1e-6
        difference = rotation(a + step, orthogonal_map) - rotation(a - step, orthogonal_map)
        np.testing.assert_allclose(gradient[place], np.sum(weights * difference) / 2e-6, atol=1e-7)


@pytest.mark.parametrize("orthogonal_map", ORTHOGONAL_MAPS)
def test_sigma_stays_orthogonal_over_a_thousand_updates(orthogonal_map):
    """A learns a random orthogonal matrix; what is checked is the matrix after each update."""
    target = scipy.stats.special_ortho_group.rvs(16, random_state=0).astype(np.float32)
    optimizer = optax.adam(1e-2)

    def update(carry, _):
        a, state = carry
        loss = lambda a: jnp.mean((ORTHOGONAL_MAPS[orthogonal_map](a) - target) ** 2)  # noqa: E731
        error, gradient = jax.value_and_grad(loss)(a)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(a, updates), state), (error, ORTHOGONAL_MAPS[orthogonal_map](a))

    a = block_rotations(jax.random.key(0), (16, 16))
    errors, sigmas = jax.jit(lambda a: jax.lax.scan(update, (a, optimizer.init(a)), length=1000)[1])(a)
    sigmas = np.asarray(sigmas, np.float64)
    assert np.linalg.norm(sigmas.mT @ sigmas - np.eye(16), axis=(1, 2)).max() < 1e-5
    assert errors[-1] < 0.1 * errors[0]


def test_initial_sigma_turns_pairs_of_axes():
    a = np.asarray(block_rotations(jax.random.key(0), (2, 6, 6)))
    assert (a[0] != a[1]).any()
    for orthogonal_map, turn in (("expm", lambda t: t), ("cayley", lambda t: -2 * np.arctan(t))):
        expected = np.zeros((6, 6))
        for row in (0, 2, 4):
            angle = turn(a[1, row, row + 1])
            cosine, sine = np.cos(angle), np.sin(angle)
            expected[row : row + 2, row : row + 2] = [[cosine, sine], [-sine, cosine]]
        np.testing.assert_allclose(ORTHOGONAL_MAPS[orthogonal_map](a)[1], expected, atol=1e-6)


def test_initial_angles_are_uniform():
    a = np.asarray(block_rotations(jax.random.key(1), (1000, 1000)))
    rows = np.arange(0, 1000, 2)
    values = a[rows, rows + 1]
    assert np.count_nonzero(a) == np.count_nonzero(values)
    angles = 2 * np.arctan(-values)  # The inverse of -sqrt((1 - cos t) / (1 + cos t)) = -tan(t / 2).
    assert scipy.stats.kstest(angles, "uniform", args=(0, np.pi / 2)).pvalue > 0.01


def test_initial_outputs_are_of_the_size_of_a_plain_layer():
    weights = init_linear(jax.random.key(2), 64, 512, 32, make_stacks(1, 3, "all", "factorized"))
    x = np.random.default_rng(5).normal(size=(20, 64)).astype(np.float32)
    # BERT's own layers start with a standard deviation of 0.02 for 768 inputs of unit variance.
    assert np.std(apply_to(weights, 1, x)) == pytest.approx(0.02 * np.sqrt(768), rel=0.2)
