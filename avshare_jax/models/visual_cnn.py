"""The visual CNN: a "slow" 3D ResNet that turns each clip of frames into one vector."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from avshare_jax.models.convolution import Convolution, batch_norm, statistics_mask


class VisualBottleneck(nn.Module):
    """A residual bottleneck: (temporal, 1, 1), then (1, 3, 3) with the stride, then (1, 1, 1)."""

    inner: int
    temporal_kernel: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Maps (N, T, H, W, C) to (N, T, H / stride, W / stride, 4 * inner)."""
        strides = (1, self.stride, self.stride)
        out = Convolution(self.inner, (self.temporal_kernel, 1, 1), (1, 1, 1), self.dtype, name="a")(x)
        out = nn.relu(batch_norm(train, self.dtype, "a_norm")(out, mask=mask))
        out = Convolution(self.inner, (1, 3, 3), strides, self.dtype, name="b")(out)
        out = nn.relu(batch_norm(train, self.dtype, "b_norm")(out, mask=mask))
        out = Convolution(4 * self.inner, (1, 1, 1), (1, 1, 1), self.dtype, name="c")(out)
        out = batch_norm(train, self.dtype, "c_norm")(out, mask=mask)
        if out.shape != x.shape:
            x = Convolution(4 * self.inner, (1, 1, 1), strides, self.dtype, name="shortcut")(x)
            x = batch_norm(train, self.dtype, "shortcut_norm")(x, mask=mask)
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
    """

    width: int
    stage_sizes: tuple[int, ...]
    temporal_kernels: tuple[int, ...]
    stem_kernel: tuple[int, int, int]
    stem_strides: tuple[int, int, int]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool, present: jax.Array | None = None) -> jax.Array:
        """Maps normalized clips (N, T, H, W, 3) to feature maps (N, T', H', W', channels).

        Clips whose `present` (N,) is false do not count in BatchNorm's statistics.
        """
        mask = None if present is None else statistics_mask(present, 5)
        x = Convolution(self.width, self.stem_kernel, self.stem_strides, self.dtype, name="stem")(frames)
        x = nn.relu(batch_norm(train, self.dtype, "stem_norm")(x, mask=mask))
        x = max_pool_3_stride_2(max_pool_3_stride_2(x, axis=2), axis=3)
        for stage, (size, temporal_kernel) in enumerate(zip(self.stage_sizes, self.temporal_kernels, strict=True)):
            for block in range(size):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = VisualBottleneck(self.width * 2**stage, temporal_kernel, stride, self.dtype, name=name)(
                    x, train, mask
                )
        return x


def max_pool_3_stride_2(x: jax.Array, axis: int) -> jax.Array:
    """Max-pools one axis of non-negative values with window 3, stride 2, padding 1.

    Written as a maximum of three strided slices: the gradient of XLA's window reduction is four times slower on CPU.
    """
    padding = [(1, 1) if index == axis else (0, 0) for index in range(x.ndim)]
    padded, length = jnp.pad(x, padding), x.shape[axis]
    stop = 2 * ((length - 1) // 2) + 1
    first, second, third = (jax.lax.slice_in_dim(padded, k, k + stop, 2, axis) for k in range(3))
    return jnp.maximum(jnp.maximum(first, second), third)
