"""Convolution and normalization blocks shared by the visual and the audio CNN."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Convolution(nn.Module):
    """A bias-free convolution over 2 or 3 axes, channels last, padded by half the kernel on each side.

    Kernels that do not mix all axes are exactly lower-dimensional: a kernel of size 1 in time is applied as a 2D
    convolution with time folded into the batch, one of size 1 in space as a convolution over time alone, and one of
    size 1 everywhere as a matrix product. On CPU the native 3D convolution is several times slower.

    Attributes:
      features: number of output channels.
      kernel_size: one size per convolved axis, for example `(3, 1, 1)` for (time, height, width).
      strides: one stride per convolved axis.
      dtype: dtype of the computation; the kernel is kept in float32.
    """

    features: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, *axes, channels) to (N, *axes / strides, features)."""
        kernel = self.param(
            "kernel", nn.initializers.he_normal(), (*self.kernel_size, x.shape[-1], self.features), jnp.float32
        )
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if all(size == 1 for size in self.kernel_size):
            x = x[(slice(None), *(slice(None, None, stride) for stride in self.strides))]
            return x @ kernel.reshape(kernel.shape[-2:])
        if len(self.kernel_size) == 3 and self.kernel_size[0] == 1:
            x = x[:, :: self.strides[0]]
            folded = convolve(x.reshape(-1, *x.shape[2:]), kernel[0], self.strides[1:])
            return folded.reshape(*x.shape[:2], *folded.shape[1:])
        if len(self.kernel_size) == 3 and self.kernel_size[1:] == (1, 1):
            x = x[:, :, :: self.strides[1], :: self.strides[2]]
            folded = convolve(x.reshape(*x.shape[:2], -1, x.shape[-1]), kernel[:, 0], (self.strides[0], 1))
            return folded.reshape(folded.shape[0], folded.shape[1], *x.shape[2:4], self.features)
        return convolve(x, kernel, self.strides)


def convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    """Convolves (N, *axes, channels) with a kernel (*sizes, channels, features), padded by half of it on each side."""
    axes = "DHW"[-len(strides) :]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=[(size // 2, size // 2) for size in kernel.shape[:-2]],
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def batch_norm(train: bool, dtype: jnp.dtype, name: str) -> nn.BatchNorm:
    """BatchNorm over the global batch with the paper's constants: eps 1e-5, momentum 0.1 of the new value.

    Args:
      train: whether to normalize by the batch's statistics (and update the running ones) or by the running ones.
      dtype: dtype of the result; statistics and parameters are float32.
      name: name of the module.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


def statistics_mask(present: jax.Array, rank: int) -> jax.Array:
    """Shapes (N,) bool for BatchNorm over arrays of that rank. Where nothing is present, all counts: no mean is NaN."""
    return (present | ~jnp.any(present)).reshape(-1, *[1] * (rank - 1))
