"""Low-rank weights shared by Transformers: W = U Sigma V^T with U shared, Sigma and V private (paper, section 3)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class FoldedWeights(NamedTuple):
    """What one Transformer needs to apply a factorized linear map: V (N, O), Sigma U^T (O, M) and the bias (M,)."""

    down: jax.Array
    up: jax.Array
    bias: jax.Array


class FactorizedLinear(nn.Module):
    """A linear map N -> M whose low-rank factors are shared by several Transformers.

    With rank O: U (M, O) and the bias (M,) are shared; each Transformer m owns V_m (N, O) and the square matrix A_m
    (O, O) from which its orthogonal Sigma_m is made. Parameter names tell the two kinds apart: `shared_*`, `private_*`.

    Attributes:
      inputs: N.
      outputs: M.
      rank: O.
      transformers: names of the Transformers that share U.
    """

    inputs: int
    outputs: int
    rank: int
    transformers: Sequence[str]

    def setup(self) -> None:
        """Creates the shared and the private parameters, all in float32."""
        # No initialization is published. The normalized hidden vector has length 1, so a standard deviation of 0.5 maps
        # it to outputs of about the size of an unfactorized BERT layer's (0.02 * sqrt(768) = 0.55); with 0.02 attention
        # starts 25 times too weak, and little is learned in the first thousand steps.
        self.shared_u = self.param("shared_u", nn.initializers.normal(stddev=0.5), (self.rank, self.outputs))
        self.shared_bias = self.param("shared_bias", nn.initializers.zeros, (self.outputs,))
        self.private_v = {
            name: self.param(f"private_v_{name}", nn.initializers.normal(stddev=0.02), (self.inputs, self.rank))
            for name in self.transformers
        }
        self.private_a = {
            name: self.param(f"private_a_{name}", cayley_rotations, (self.rank, self.rank))
            for name in self.transformers
        }

    def __call__(self, transformer: str) -> FoldedWeights:
        """Returns one Transformer's weights with Sigma folded into U, so that it is made once, not once per layer."""
        sigma = orthogonal(self.private_a[transformer])
        return FoldedWeights(self.private_v[transformer], sigma @ self.shared_u, self.shared_bias)


def apply_folded(weights: FoldedWeights, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Computes U Sigma normalize(V^T x) + b for x (..., N); the normalization over the rank axis runs in float32."""
    hidden = (x.astype(dtype) @ weights.down.astype(dtype)).astype(jnp.float32)
    # The square root has no gradient at zero, so the floor of the norm, 1e-12, is applied to its square.
    hidden = hidden * jax.lax.rsqrt(jnp.maximum(jnp.sum(hidden**2, axis=-1, keepdims=True), 1e-24))
    return hidden.astype(dtype) @ weights.up.astype(dtype) + weights.bias.astype(dtype)


def orthogonal(a: jax.Array) -> jax.Array:
    """Returns expm(triu(A, 1) - triu(A, 1)^T), an orthogonal (O, O) matrix, for any square A (O, O)."""
    upper = jnp.triu(a, 1)
    return jax.scipy.linalg.expm(upper - upper.T)


def cayley_rotations(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Initializes A (O, O) with 2x2 rotations along the diagonal (Lezcano-Casado & Martinez-Rubio 2019, section 5).

    The first super-diagonal's even entries are -sqrt((1 - cos t) / (1 + cos t)) with t uniform in [0, pi/2).
    """
    angles = jax.random.uniform(key, (shape[0] // 2,), dtype, 0.0, jnp.pi / 2)
    rows = 2 * jnp.arange(shape[0] // 2)
    values = -jnp.sqrt((1 - jnp.cos(angles)) / (1 + jnp.cos(angles)))
    return jnp.zeros(shape, dtype).at[rows, rows + 1].set(values)
