"""The visual CNN: a "slow" 3D ResNet that turns each clip of frames into one vector."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from avshare_jax.models.convolution import (
    BatchNorm,
    Convolution,
    Counted,
    rematerialized,
    rematerialized_stage,
)
from avshare_jax.models.placement import platform


class VisualBottleneck(nn.Module):
    """A residual bottleneck: (temporal, 1, 1), then (1, 3, 3) with the stride, then (1, 1, 1)."""

    inner: int
    temporal_kernel: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, counted: Counted) -> jax.Array:
        """Maps (N, T, H, W, C) to (N, T, H / stride, W / stride, 4 * inner)."""
        strides = (1, self.stride, self.stride)
        out = Convolution(self.inner, (self.temporal_kernel, 1, 1), (1, 1, 1), self.dtype, name="a")(x)
        out = nn.relu(BatchNorm(train, self.dtype, name="a_norm")(out, counted))
        out = Convolution(self.inner, (1, 3, 3), strides, self.dtype, name="b")(out)
        out = nn.relu(BatchNorm(train, self.dtype, name="b_norm")(out, counted))
        out = Convolution(4 * self.inner, (1, 1, 1), (1, 1, 1), self.dtype, name="c")(out)
        out = BatchNorm(train, self.dtype, name="c_norm")(out, counted)
        if out.shape != x.shape:
            x = Convolution(4 * self.inner, (1, 1, 1), strides, self.dtype, name="shortcut")(x)
            x = BatchNorm(train, self.dtype, name="shortcut_norm")(x, counted)
        return nn.relu(x + out)


class VisualCNN(nn.Module):
    """3D ResNet of bottlenecks; the paper's is ResNet-50 with `width` 64 (method: "slow" pathway).

    Attributes:
      width: channels of the stem; stage i has inner width `width * 2**i` and 4 times as many outputs.
      stage_sizes: bottlenecks in each stage. Every stage but the first halves height and width.
      temporal_kernels: temporal kernel of each stage's first convolution.
      stem_kernel: (time, height, width) of the stem's kernel.
      stem_strides: its strides.
      dtype: dtype of the computation.
      remat: what the backward pass keeps, see `REMATERIALIZATION`.
    """

    width: int
    stage_sizes: tuple[int, ...]
    temporal_kernels: tuple[int, ...]
    stem_kernel: tuple[int, int, int]
    stem_strides: tuple[int, int, int]
    dtype: jnp.dtype
    remat: str = "none"

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool, counted: Counted) -> jax.Array:
        """Maps normalized clips (N, T, H, W, 3) to feature maps (N, T', H', W', channels).

        `counted` says which clips' statistics BatchNorm takes in training.
        """
        block_class = rematerialized(VisualBottleneck, self.remat)

        def stem(cnn: nn.Module, x: jax.Array, train: bool, counted: Counted) -> jax.Array:
            x = Convolution(cnn.width, cnn.stem_kernel, cnn.stem_strides, cnn.dtype, name="stem")(x)
            return nn.relu(BatchNorm(train, cnn.dtype, name="stem_norm")(x, counted, pool=max_pool))

        def run_stage(number: int, cnn: nn.Module, x: jax.Array, train: bool, counted: Counted) -> jax.Array:
            for block in range(cnn.stage_sizes[number]):
                stride = 2 if number > 0 and block == 0 else 1
                inner, temporal_kernel = cnn.width * 2**number, cnn.temporal_kernels[number]
                name = f"stage{number + 1}_block{block + 1}"
                x = block_class(inner, temporal_kernel, stride, cnn.dtype, name=name)(x, train, counted)
            return x

        x = rematerialized(stem, self.remat)(self, frames, train, counted)
        for number, _ in enumerate(zip(self.stage_sizes, self.temporal_kernels, strict=True)):
            x = rematerialized_stage(partial(run_stage, number), self.remat)(self, x, train, counted)
        return x


def max_pool(x: jax.Array) -> jax.Array:
    """Max-pools (N, T, H, W, C) over windows of 3 x 3 pixels, stride 2, padding 1."""
    if platform() == "tpu":
        return nn.max_pool(x, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1)))
    return max_pool_axis(max_pool_axis(x, axis=2), axis=3)


def max_pool_axis(x: jax.Array, axis: int) -> jax.Array:
    """Max-pools one axis with window 3, stride 2, padding 1.

    Written as a maximum of three strided slices: on CPU, the gradient of XLA's window reduction is four times slower.
    On TPU it is the slices that move more than twice the bytes.
    """
    padding = [(1, 1) if index == axis else (0, 0) for index in range(x.ndim)]
    padded, length = jnp.pad(x, padding, constant_values=-jnp.inf), x.shape[axis]
    stop = 2 * ((length - 1) // 2) + 1
    first, second, third = (jax.lax.slice_in_dim(padded, k, k + stop, 2, axis) for k in range(3))
    return jnp.maximum(jnp.maximum(first, second), third)
