"""The audio CNN: a 2D ResNet with separable early layers that turns each clip's log-mel spectrogram into one vector."""

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


class AudioBottleneck(nn.Module):
    """A residual bottleneck whose 3x3 convolution is split into frequency, then time, if `separable`."""

    inner: int
    stride: int
    separable: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, counted: Counted) -> jax.Array:
        """Maps (N, time, frequency, C) to (N, time / stride, frequency / stride, 4 * inner)."""
        strides = (self.stride, self.stride)
        out = Convolution(self.inner, (1, 1), (1, 1), self.dtype, name="a")(x)
        out = nn.relu(BatchNorm(train, self.dtype, name="a_norm")(out, counted))
        if self.separable:
            out = Convolution(self.inner, (1, 3), (1, self.stride), self.dtype, name="b_frequency")(out)
            out = nn.relu(BatchNorm(train, self.dtype, name="b_frequency_norm")(out, counted))
            out = Convolution(self.inner, (3, 1), (self.stride, 1), self.dtype, name="b_time")(out)
            out = nn.relu(BatchNorm(train, self.dtype, name="b_time_norm")(out, counted))
        else:
            out = Convolution(self.inner, (3, 3), strides, self.dtype, name="b")(out)
            out = nn.relu(BatchNorm(train, self.dtype, name="b_norm")(out, counted))
        out = Convolution(4 * self.inner, (1, 1), (1, 1), self.dtype, name="c")(out)
        out = BatchNorm(train, self.dtype, name="c_norm")(out, counted)
        if out.shape != x.shape:
            x = Convolution(4 * self.inner, (1, 1), strides, self.dtype, name="shortcut")(x)
            x = BatchNorm(train, self.dtype, name="shortcut_norm")(x, counted)
        return nn.relu(x + out)


class AudioCNN(nn.Module):
    """2D ResNet over (time, frequency); the paper's is ResNet-50 with `width` 32 and two separable stages.

    Attributes:
      width: channels of the stem; stage i has inner width `width * 2**i` and 4 times as many outputs.
      stage_sizes: bottlenecks in each stage. Every stage halves time and frequency.
      separable_stages: number of early stages whose 3x3 convolutions are separable.
      stem_kernel: length of the stem's two one-dimensional kernels.
      dtype: dtype of the computation.
      remat: what the backward pass keeps, see `REMATERIALIZATION`.
    """

    width: int
    stage_sizes: tuple[int, ...]
    separable_stages: int
    stem_kernel: int
    dtype: jnp.dtype
    remat: str = "none"

    @nn.compact
    def __call__(self, log_mel: jax.Array, train: bool, counted: Counted) -> jax.Array:
        """Maps spectrograms (N, time, frequency) to feature maps (N, time', frequency', channels).

        `counted` says which clips' statistics BatchNorm takes in training.
        """
        block_class = rematerialized(AudioBottleneck, self.remat)

        def stem(cnn: nn.Module, x: jax.Array, train: bool, counted: Counted) -> jax.Array:
            x = Convolution(cnn.width, (1, cnn.stem_kernel), (1, 1), cnn.dtype, name="stem_frequency")(x)
            x = nn.relu(BatchNorm(train, cnn.dtype, name="stem_frequency_norm")(x, counted))
            x = Convolution(cnn.width, (cnn.stem_kernel, 1), (1, 1), cnn.dtype, name="stem_time")(x)
            return nn.relu(BatchNorm(train, cnn.dtype, name="stem_time_norm")(x, counted))

        def run_stage(number: int, cnn: nn.Module, x: jax.Array, train: bool, counted: Counted) -> jax.Array:
            for block in range(cnn.stage_sizes[number]):
                stride, separable = 2 if block == 0 else 1, number < cnn.separable_stages
                name = f"stage{number + 1}_block{block + 1}"
                x = block_class(cnn.width * 2**number, stride, separable, cnn.dtype, name=name)(x, train, counted)
            return x

        x = rematerialized(stem, self.remat)(self, log_mel[..., None], train, counted)
        for number in range(len(self.stage_sizes)):
            x = rematerialized_stage(partial(run_stage, number), self.remat)(self, x, train, counted)
        return x
