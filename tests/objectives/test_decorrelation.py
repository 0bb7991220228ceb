"""VICReg's terms and SIGReg against NumPy in float64, and against what they are for."""

import jax
import numpy as np
import pytest

from avshare_jax.objectives.decorrelation import sigreg, variance_and_covariance

ROWS, WIDTH, SLICES = 12, 5, 7
SOME = np.arange(ROWS) % 4 != 1


def vicreg_reference(rows):
    deviations = np.sqrt(np.var(rows, axis=0, ddof=1) + 1e-4)
    covariance = np.cov(rows, rowvar=False)
    others = covariance[~np.eye(len(covariance), dtype=bool)]
    return np.maximum(0, 1 - deviations).mean(), (others**2).sum() / rows.shape[1]


def sigreg_reference(rows, directions):
    """The Epps-Pulley integral over [-5, 5] by the trapezoid rule on 17 places, for each direction."""
    places = np.arange(-8, 9) * 0.625
    statistics = []
    for direction in directions.T:
        values = rows @ (direction / np.sqrt((direction**2).sum()))
        empirical = np.array([np.exp(1j * t * values).mean() for t in places])
        integrand = np.abs(empirical - np.exp(-(places**2) / 2)) ** 2 * np.exp(-(places**2) / 2)
        statistics.append(len(rows) * 0.625 * (integrand.sum() - (integrand[0] + integrand[-1]) / 2))
    return np.mean(statistics)


@pytest.fixture(scope="module")
def embeddings():
    random = np.random.default_rng(0)
    return 0.7 * random.normal(size=(ROWS, WIDTH)) @ random.normal(size=(WIDTH, WIDTH)) + 3


def test_variance_and_covariance(embeddings):
    found = variance_and_covariance(np.float32(embeddings))
    np.testing.assert_allclose(found, vicreg_reference(embeddings), rtol=1e-4)
    found = variance_and_covariance(np.float32(embeddings), SOME)
    np.testing.assert_allclose(found, vicreg_reference(embeddings[SOME]), rtol=1e-4)
    assert min(found) > 0


def test_sigreg(embeddings):
    key = jax.random.key(3)
    directions = np.float64(jax.random.normal(key, (WIDTH, SLICES)))
    rows = (embeddings - 3) / 2
    assert sigreg(key, np.float32(rows), SLICES) == pytest.approx(sigreg_reference(rows, directions), rel=1e-4)
    found = sigreg(key, np.float32(rows), SLICES, SOME)
    assert found == pytest.approx(sigreg_reference(rows[SOME], directions), rel=1e-4)


def test_a_standard_normal_is_what_both_want():
    random = np.random.default_rng(1)
    normal = random.normal(size=(4_000, WIDTH)).astype(np.float32)
    one_direction = normal[:, :1] * np.ones(WIDTH, np.float32)
    collapsed = np.zeros_like(normal)
    key = jax.random.key(0)
    assert sigreg(key, normal, 64) < 2 < sigreg(key, one_direction, 64) < sigreg(key, collapsed, 64)
    assert sum(variance_and_covariance(normal)) < 0.05
    assert variance_and_covariance(one_direction)[1] == pytest.approx(WIDTH - 1, rel=0.1)
    assert variance_and_covariance(collapsed)[0] == pytest.approx(0.99)


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_rows_give_no_nan(embeddings, number):
    present = np.arange(ROWS) < number

    def total(x):
        return sum(variance_and_covariance(x, present)) + (0 if number else sigreg(jax.random.key(0), x, 2, present))

    loss, gradient = jax.value_and_grad(total)(np.float32(embeddings))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_collapsed_rows_are_pushed_apart_with_finite_gradients(embeddings):
    near = np.float32(1e-3 * embeddings)
    gradient = jax.grad(lambda x: variance_and_covariance(x)[0])(near)
    assert np.isfinite(gradient).all()
    assert np.sum(gradient * (near - near.mean(0))) < 0  # Growing spread lowers the loss.
    same = jax.grad(lambda x: sum(variance_and_covariance(x)) + sigreg(jax.random.key(0), x, 4))(np.zeros_like(near))
    assert np.isfinite(same).all()
