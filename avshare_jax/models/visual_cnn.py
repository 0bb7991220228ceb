"""The visual CNN: a "slow" 3D ResNet that turns each clip of frames into one vector."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from avshare_jax.models.convolution import BatchNorm, Convolution


class VisualBottleneck(nn.Module):
    """A residual bottleneck: (temporal, 1, 1), then (1, 3, 3) with the stride, then (1, 1, 1)."""

    inner: int
    temporal_kernel: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (N, T, H, W, C) to (N, T, H / stride, W / stride, 4 * inner)."""
        strides = (1, self.stride, self.stride)
        out = Convolution(self.inner, (self.temporal_kernel, 1, 1), (1, 1, 1), self.dtype, name="a")(x)
        out = nn.relu(BatchNorm(self.dtype, name="a_norm")(out, train))
        out = Convolution(self.inner, (1, 3, 3), strides, self.dtype, name="b")(out)
        out = nn.relu(BatchNorm(self.dtype, name="b_norm")(out, train))
        out = Convolution(4 * self.inner, (1, 1, 1), (1, 1, 1), self.dtype, name="c")(out)
        out = BatchNorm(self.dtype, name="c_norm")(out, train)
        if out.shape != x.shape:
            x = Convolution(4 * self.inner, (1, 1, 1), strides, self.dtype, name="shortcut")(x)
            x = BatchNorm(self.dtype, name="shortcut_norm")(x, train)
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
    def __call__(self, frames: jax.Array, train: bool) -> jax.Array:
        """Maps normalized clips (N, T, H, W, 3) to feature maps (N, T', H', W', channels)."""
        x = Convolution(self.width, self.stem_kernel, self.stem_strides, self.dtype, name="stem")(frames)
        x = nn.relu(BatchNorm(self.dtype, name="stem_norm")(x, train))
        x = nn.max_pool(x, (1, 3, 3), strides=(1, 2, 2), padding=((0, 0), (1, 1), (1, 1)))
        for stage, (size, temporal_kernel) in enumerate(zip(self.stage_sizes, self.temporal_kernels, strict=True)):
            for block in range(size):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = VisualBottleneck(self.width * 2**stage, temporal_kernel, stride, self.dtype, name=name)(x, train)
        return x
