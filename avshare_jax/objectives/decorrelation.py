"""What keeps embeddings from collapsing, beside the paper's objectives: VICReg's terms, or SIGReg.

Embeddings are (N, P) float32; `present` (N,) bool says which rows count, by default all.
"""

import jax
import jax.numpy as jnp

VARIANCE_FLOOR = 1e-4
"""Added to variances under a square root, whose gradient would be infinite at 0 (Bardes et al. 2022, section 4.1)."""

KNOTS, LARGEST_FREQUENCY = 17, 5.0
"""Where SIGReg compares characteristic functions: so many places from -5 to 5 (Balestriero and LeCun 2025)."""


def variance_and_covariance(embeddings: jax.Array, present: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """The variance and the covariance term of VICReg (Bardes, Ponce and LeCun 2022, equations 1 to 4).

    Args:
      embeddings: (N, P).
      present: see the top of this module.

    Returns:
      Two scalars, 0 where fewer than two rows count: the mean over dimensions of how far their standard deviation is
      below 1; and the sum of squared covariances of different dimensions, over P.
    """
    counted = _counted(embeddings, present)
    number = jnp.sum(counted)
    centered = (embeddings - _mean(embeddings, counted)) * counted
    covariance = jnp.matmul(centered.T, centered, precision="highest") / jnp.maximum(number - 1, 1)
    variances = jnp.diagonal(covariance)
    variance_loss = jnp.mean(jnp.maximum(0.0, 1.0 - jnp.sqrt(variances + VARIANCE_FLOOR)))
    covariance_loss = (jnp.sum(covariance**2) - jnp.sum(variances**2)) / embeddings.shape[1]
    enough = number > 1
    return jnp.where(enough, variance_loss, 0.0), jnp.where(enough, covariance_loss, 0.0)


def sigreg(key: jax.Array, embeddings: jax.Array, slices: int, present: jax.Array | None = None) -> jax.Array:
    """SIGReg: how far embeddings are from an isotropic standard normal (Balestriero and LeCun 2025, LeJEPA).

    Along random directions, the empirical characteristic function is compared with exp(-t²/2): the Epps-Pulley
    statistic, the integral of their squared distance times exp(-t²/2), times the number of rows.

    Args:
      key: random key of the directions.
      embeddings: (N, P).
      slices: number of directions.
      present: see the top of this module.

    Returns:
      The mean over directions, a scalar; 0 where nothing counts.
    """
    counted = _counted(embeddings, present)
    number = jnp.maximum(jnp.sum(counted), 1)
    directions = jax.random.normal(key, (embeddings.shape[1], slices))
    directions /= jnp.linalg.norm(directions, axis=0, keepdims=True)
    points = jnp.linspace(-LARGEST_FREQUENCY, LARGEST_FREQUENCY, KNOTS)
    normal = jnp.exp(-(points**2) / 2)
    angles = jnp.matmul(embeddings, directions, precision="highest")[..., None] * points  # (N, slices, knots)
    real, imaginary = (jnp.sum(wave(angles) * counted[..., None], axis=0) / number for wave in (jnp.cos, jnp.sin))
    distance = (real - normal) ** 2 + imaginary**2
    statistics = jnp.trapezoid(distance * normal, points, axis=-1) * number
    return jnp.where(jnp.any(counted), jnp.mean(statistics), 0.0)


def _counted(embeddings: jax.Array, present: jax.Array | None) -> jax.Array:
    """(N, 1) float32, 1 for rows that count."""
    counted = jnp.ones(embeddings.shape[0], bool) if present is None else present
    return counted.astype(embeddings.dtype)[:, None]


def _mean(embeddings: jax.Array, counted: jax.Array) -> jax.Array:
    return jnp.sum(embeddings * counted, axis=0) / jnp.maximum(jnp.sum(counted), 1)
