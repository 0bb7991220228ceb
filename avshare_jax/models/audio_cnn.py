"""The audio CNN: a 2D ResNet with separable early layers that turns each clip's log-mel spectrogram into one vector."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from avshare_jax.models.convolution import Convolution, batch_norm, statistics_mask


class AudioBottleneck(nn.Module):
    """A residual bottleneck whose 3x3 convolution is split into frequency, then time, if `separable`."""

    inner: int
    stride: int
    separable: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Maps (N, time, frequency, C) to (N, time / stride, frequency / stride, 4 * inner)."""
        strides = (self.stride, self.stride)
        out = Convolution(self.inner, (1, 1), (1, 1), self.dtype, name="a")(x)
        out = nn.relu(batch_norm(train, self.dtype, "a_norm")(out, mask=mask))
        if self.separable:
            out = Convolution(self.inner, (1, 3), (1, self.stride), self.dtype, name="b_frequency")(out)
            out = nn.relu(batch_norm(train, self.dtype, "b_frequency_norm")(out, mask=mask))
            out = Convolution(self.inner, (3, 1), (self.stride, 1), self.dtype, name="b_time")(out)
            out = nn.relu(batch_norm(train, self.dtype, "b_time_norm")(out, mask=mask))
        else:
            out = Convolution(self.inner, (3, 3), strides, self.dtype, name="b")(out)
            out = nn.relu(batch_norm(train, self.dtype, "b_norm")(out, mask=mask))
        out = Convolution(4 * self.inner, (1, 1), (1, 1), self.dtype, name="c")(out)
        out = batch_norm(train, self.dtype, "c_norm")(out, mask=mask)
        if out.shape != x.shape:
            x = Convolution(4 * self.inner, (1, 1), strides, self.dtype, name="shortcut")(x)
            x = batch_norm(train, self.dtype, "shortcut_norm")(x, mask=mask)
        return nn.relu(x + out)


class AudioCNN(nn.Module):
    """2D ResNet over (time, frequency); the paper's is ResNet-50 with `width` 32 and two separable stages.

    Attributes:
      width: channels of the stem; stage i has inner width `width * 2**i` and 4 times as many outputs.
      stage_sizes: bottlenecks in each stage. Every stage halves time and frequency.
      separable_stages: number of early stages whose 3x3 convolutions are separable.
      stem_kernel: length of the stem's two one-dimensional kernels.
      dtype: dtype of the computation.
    """

    width: int
    stage_sizes: tuple[int, ...]
    separable_stages: int
    stem_kernel: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, log_mel: jax.Array, train: bool, present: jax.Array | None = None) -> jax.Array:
        """Maps spectrograms (N, time, frequency) to feature maps (N, time', frequency', channels).

        Clips whose `present` (N,) is false do not count in BatchNorm's statistics.
        """
        mask = None if present is None else statistics_mask(present, 4)
        x = Convolution(self.width, (1, self.stem_kernel), (1, 1), self.dtype, name="stem_frequency")(
            log_mel[..., None]
        )
        x = nn.relu(batch_norm(train, self.dtype, "stem_frequency_norm")(x, mask=mask))
        x = Convolution(self.width, (self.stem_kernel, 1), (1, 1), self.dtype, name="stem_time")(x)
        x = nn.relu(batch_norm(train, self.dtype, "stem_time_norm")(x, mask=mask))
        for stage, size in enumerate(self.stage_sizes):
            for block in range(size):
                stride = 2 if block == 0 else 1
                separable = stage < self.separable_stages
                name = f"stage{stage + 1}_block{block + 1}"
                x = AudioBottleneck(self.width * 2**stage, stride, separable, self.dtype, name=name)(x, train, mask)
        return x
