"""Weights shared by layers and Transformers, in full or through the factors of W = U Sigma V^T (paper, section 3).

The weights of one linear map N -> M of every layer and every Transformer are stacked on two leading axes (layers,
Transformers). An axis of length 1 says that all layers, or all Transformers, share what is in the array.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

Weights = dict[str, jax.Array]

SHARING = ("none", "all", "factorized")

# No initialization is published. The normalized hidden vector has length 1, so a standard deviation of 0.5 maps it to
# outputs of about the size of an unfactorized BERT layer's (0.02 * sqrt(768) = 0.55); with 0.02 attention starts 25
# times too weak, and little is learned in the first thousand steps.
U_STDDEV = 0.5
WEIGHT_STDDEV = 0.02  # BERT's

MOST_SQUARINGS = 12  # for norms up to 2,048; entries of about 1 give 100 at the paper's rank


class Stacks(NamedTuple):
    """How many layers and Transformers have weights of their own.

    Attributes:
      shared: (layers, Transformers) of U, biases and LayerNorms, and of weights that are not factorized.
      private: (layers, Transformers) of Sigma and V.
    """

    shared: tuple[int, int]
    private: tuple[int, int]


def make_stacks(layers: int, transformers: int, layer_sharing: str, transformer_sharing: str) -> Stacks:
    """Turns two sharing schemes into stack sizes.

    Args:
      layers: of each Transformer.
      transformers: their number.
      layer_sharing: "none": each layer has weights of its own; "all": all layers share all; "factorized": they share U
        and have Sigma and V of their own.
      transformer_sharing: the same for Transformers.

    Raises:
      ValueError: a scheme is none of these.
    """
    for scheme in (layer_sharing, transformer_sharing):
        if scheme not in SHARING:
            raise ValueError(f"A sharing scheme is none, all or factorized, and not {scheme!r}.")
    sizes = ((layers, layer_sharing), (transformers, transformer_sharing))
    shared = tuple(size if scheme == "none" else 1 for size, scheme in sizes)
    private = tuple(1 if scheme == "all" else size for size, scheme in sizes)
    return Stacks(shared, private)


def init_linear(key: jax.Array, inputs: int, outputs: int, rank: int | None, stacks: Stacks) -> Weights:
    """Initializes one linear map N -> M of every layer and Transformer, in float32.

    Args:
      key: random key.
      inputs: N.
      outputs: M.
      rank: O; None for full weights.
      stacks: leading axes of the arrays.

    Returns:
      `kernel` (*shared, N, M) and `bias` (*shared, M); factorized, `u` (*shared, O, M), `bias`, `v` (*private, N, O)
      and `a` (*private, O, O), from which the orthogonal Sigma is made.
    """
    bias = jnp.zeros((*stacks.shared, outputs))
    normal, u_normal = nn.initializers.normal(WEIGHT_STDDEV), nn.initializers.normal(U_STDDEV)
    if rank is None:
        return {"kernel": normal(key, (*stacks.shared, inputs, outputs)), "bias": bias}
    u_key, v_key, a_key = jax.random.split(key, 3)
    return {
        "u": u_normal(u_key, (*stacks.shared, rank, outputs)),
        "bias": bias,
        "v": normal(v_key, (*stacks.private, inputs, rank)),
        "a": block_rotations(a_key, (*stacks.private, rank, rank)),
    }


def fold(linears: Mapping[str, Weights], orthogonal_map: str) -> dict[str, Weights]:
    """Multiplies every Sigma into its U, so that applying a layer takes two matrix products.

    All Sigma are made together, once a step: one batched matrix function instead of one per use.

    Args:
      linears: by name, as from `init_linear`; all factorized with the same rank, or none.
      orthogonal_map: "expm" or "cayley".

    Returns:
      By name, `down` (*private, N, O), `up` = Sigma U^T (*stack, O, M) and `bias`; weights not factorized as they are.
    """
    if any("kernel" in weights for weights in linears.values()):
        return dict(linears)
    sigmas = ORTHOGONAL_MAPS[orthogonal_map](jnp.stack([weights["a"] for weights in linears.values()]))
    return {
        name: {
            "down": weights["v"],
            "up": jnp.matmul(sigma, weights["u"], precision="highest"),
            "bias": weights["bias"],
        }
        for (name, weights), sigma in zip(linears.items(), sigmas, strict=True)
    }


def select(stack: jax.Array, layer: int, transformer: int) -> jax.Array:
    """Takes the array of one layer and one Transformer from a stack (1 or layers, 1 or Transformers, ...)."""
    return stack[min(layer, stack.shape[0] - 1), min(transformer, stack.shape[1] - 1)]


def apply_linear(weights: Weights, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Maps x (..., N) to (..., M): W x + b, or U Sigma normalize(V^T x) + b with the normalization in float32.

    Args:
      weights: of one layer and Transformer: `kernel` (N, M), or `down` (N, O) and `up` (O, M); and `bias` (M,).
      x: input.
      dtype: of the matrix products and of the result.
    """
    if "kernel" in weights:
        return x.astype(dtype) @ weights["kernel"].astype(dtype) + weights["bias"].astype(dtype)
    hidden = (x.astype(dtype) @ weights["down"].astype(dtype)).astype(jnp.float32)
    # The square root has no gradient at zero, so the floor of the norm, 1e-12, is applied to its square.
    hidden = hidden * jax.lax.rsqrt(jnp.maximum(jnp.sum(hidden**2, axis=-1, keepdims=True), 1e-24))
    return hidden.astype(dtype) @ weights["up"].astype(dtype) + weights["bias"].astype(dtype)


def expm_rotation(a: jax.Array) -> jax.Array:
    """Returns expm(X), X = triu(A, 1) - triu(A, 1)^T: an orthogonal matrix for any A; both (..., O, O)."""
    with jax.default_matmul_precision("highest"):
        return orthonormalize(expm(skew(a)))


def expm(x: jax.Array) -> jax.Array:
    """Matrix exponentials of X (..., O, O) by scaling, a Taylor polynomial of degree 8, and squaring.

    SciPy's way, a Pade approximant, solves linear systems, which neither CPUs nor TPUs do fast for many small matrices,
    and JAX squares 16 times whatever the norm. Here all is products, and only as many as the largest norm needs. The
    polynomial is exact to the rounding of float32, but not of float64.

    Where the largest absolute row sum is above 0.5 * 2**`MOST_SQUARINGS`, all entries of a matrix are NaN.
    """
    norm = jnp.max(jnp.sum(jnp.abs(jax.lax.stop_gradient(x)), -1), -1)[..., None, None]
    squarings = jnp.ceil(jnp.log2(jnp.maximum(norm, 0.5) / 0.5))
    x *= jnp.where(squarings > MOST_SQUARINGS, jnp.nan, jnp.exp2(-squarings))
    identity, x2 = jnp.eye(x.shape[-1], dtype=x.dtype), x @ x
    x4 = x2 @ x2
    even = identity + x2 / 2 + x4 / 24 + x4 @ (x2 / 720 + x4 / 40320)
    odd = x @ (identity + x2 / 6 + x4 @ (identity / 120 + x2 / 5040))

    def square(y: jax.Array, done: jax.Array) -> tuple[jax.Array, None]:
        goes_on = done < squarings
        return jax.lax.cond(jnp.any(goes_on), lambda y: jnp.where(goes_on, y @ y, y), lambda y: y, y), None

    return jax.lax.scan(square, even + odd, jnp.arange(MOST_SQUARINGS))[0]


def cayley_rotation(a: jax.Array) -> jax.Array:
    """Returns (I + X)^-1 (I - X), X = triu(A, 1) - triu(A, 1)^T: orthogonal for any A; both (..., O, O)."""
    x, identity = skew(a), jnp.eye(a.shape[-1], dtype=a.dtype)
    with jax.default_matmul_precision("highest"):
        return orthonormalize(jnp.linalg.solve(identity + x, identity - x))


ORTHOGONAL_MAPS = {"expm": expm_rotation, "cayley": cayley_rotation}


def skew(a: jax.Array) -> jax.Array:
    """Returns the skew-symmetric matrices with the strict upper triangles of A; both (..., O, O)."""
    upper = jnp.triu(a, 1)
    return upper - upper.mT


def orthonormalize(q: jax.Array) -> jax.Array:
    """One Newton-Schulz step to the nearest orthogonal matrices of nearly orthogonal ones; both (..., O, O).

    Rounding in repeated squaring adds up: ||Q^T Q - I|| (Frobenius, O = 128, entries of A around 1) is 2e-5 without
    this step and 4e-6 with it.
    """
    return q @ (1.5 * jnp.eye(q.shape[-1], dtype=q.dtype) - 0.5 * q.mT @ q)


def block_rotations(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Initializes A (..., O, O) with 2x2 rotations along the diagonal (Lezcano-Casado & Martinez-Rubio 2019, sec. 5).

    The first super-diagonal's even entries are -sqrt((1 - cos t) / (1 + cos t)) with t uniform in [0, pi/2).
    """
    rows = 2 * jnp.arange(shape[-1] // 2)
    angles = jax.random.uniform(key, (*shape[:-2], len(rows)), maxval=jnp.pi / 2)
    values = -jnp.sqrt((1 - jnp.cos(angles)) / (1 + jnp.cos(angles)))
    return jnp.zeros(shape).at[..., rows, rows + 1].set(values)
