"""Convolution and normalization blocks shared by the visual and the audio CNN, and what their backward pass keeps."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from avshare_jax.models.placement import platform

# What the backward pass finds in memory and does not compute again. "none" rematerializes nothing. "convolutions": the
# outputs of convolutions, so that normalization and ReLU are done again, which costs no matrix product. "blocks": the
# inputs of the bottlenecks, for one more forward pass. "stages": the inputs of the stages (and, while one stage is
# differentiated, of its bottlenecks), for two more.
REMATERIALIZATION = ("none", "convolutions", "blocks", "stages")
MOMENTUM, EPSILON = 0.9, 1e-5  # 0.9 of the old running statistics

Part = TypeVar("Part", bound=Callable[..., Any])


class Counted(NamedTuple):
    """Which of N clips BatchNorm's statistics are taken over.

    Attributes:
      present: (N,) bool, false for clips of videos without the modality; None: all count.
      groups: (G, N) bool, which clips are normalized together, each in one group; None: all of them.
    """

    present: jax.Array | None = None
    groups: jax.Array | None = None


class Convolution(nn.Module):
    """A bias-free convolution over 2 or 3 axes, channels last, padded by half the kernel on each side.

    Except on TPU, it is applied in the fewest dimensions, with the same result in float32: a kernel of size 1 in all is
    a matrix product, one of size 1 in space is a convolution over time alone, and any other over 3 axes is a 2D
    convolution whose input channels are those of all the times that the kernel meets. On CPU native 3D convolutions
    are several times slower, above all their weights' gradients. On TPU they are taken as they are: the compiler then
    joins them with the normalization before and after, and need not change layouts. On GPU neither was measured.

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
        y = convolve(x, kernel, self.strides) if platform() == "tpu" else self.convolve_folded(x, kernel)
        return checkpoint_name(y, "convolution")

    def convolve_folded(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Applies the kernel in the fewest dimensions."""
        if all(size == 1 for size in self.kernel_size):
            x = x[(slice(None), *(slice(None, None, stride) for stride in self.strides))]
            return multiply(x, kernel.reshape(kernel.shape[-2:]))
        if len(self.kernel_size) == 2:
            return convolve(x, kernel, self.strides)
        if self.kernel_size[1:] == (1, 1):
            return convolve_time(x[:, :, :: self.strides[1], :: self.strides[2]], kernel[:, 0, 0], self.strides[0])
        x = jnp.concatenate(times_met(x, self.kernel_size[0], self.strides[0]), -1)
        kernel = jnp.concatenate(list(kernel), -2)
        y = convolve(x.reshape(-1, *x.shape[2:]), kernel, self.strides[1:])
        return y.reshape(*x.shape[:2], *y.shape[1:])


def convolve_time(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves (N, T, H, W, channels) over time with (size, channels, features), padded by half of it on each side."""
    size, channels, features = kernel.shape
    if platform() != "cpu":
        y = convolve(x.reshape(*x.shape[:2], -1, channels), kernel[:, None], (stride, 1))
        return y.reshape(*y.shape[:2], *x.shape[2:4], features)
    # One matrix product for all places of the kernel: on CPU its weights' gradient takes a third to a half of the time.
    products = multiply(x, kernel.swapaxes(0, 1).reshape(channels, -1)).reshape(*x.shape[:-1], size, features)
    return sum(met[..., place, :] for place, met in enumerate(times_met(products, size, stride)))


def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies the channels of (..., channels) with (channels, features).

    It is written as a product of two matrices: with more axes, XLA on CPU makes a transposed copy of the whole output's
    gradient before the product that gives the kernel's.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def times_met(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """What each place of a kernel over time meets in x (N, T, ...), padded by half of it: each (N, T / stride, ...)."""
    half = size // 2
    padded = jnp.pad(x, ((0, 0), (half, half), *[(0, 0)] * (x.ndim - 2)))
    stop = padded.shape[1] - size + 1
    return [jax.lax.slice_in_dim(padded, place, place + stop, stride, axis=1) for place in range(size)]


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


class BatchNorm(nn.Module):
    """BatchNorm over the clips that count, of the global batch, with the paper's constants.

    Written as x times a factor plus a shift, so that the backward pass needs nothing but x, where Flax's module also
    has it keep x minus its mean. Means are taken clip by clip first: what then goes through groups, and from device to
    device, is small.

    Attributes:
      train: whether to normalize by the batch's statistics (and move the running ones towards them, or towards the mean
        of the groups' statistics) or by the running ones.
      dtype: dtype of the result; statistics and parameters are float32.
    """

    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, counted: Counted, pool: Callable[[jax.Array], jax.Array] | None = None
    ) -> jax.Array:
        """Normalizes (N, ..., C), and pools it.

        Args:
          x: clips.
          counted: which of them count in training.
          pool: max-pools (N, ..., C). It is applied before the normalization, with the same result: in fewer places is
            then something to normalize, and to keep for the backward pass.

        Returns:
          An array of the shape of x, or of the shape that `pool` makes of it, in `dtype`.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        sign = 1.0
        if pool is not None:
            # The largest before must be the largest after: channels that a negative scale turns over are turned first.
            sign = jnp.where(scale < 0, -1.0, 1.0)
            x, scale = x * sign.astype(x.dtype), scale * sign
        if self.train:
            mean, variance = statistics(x, counted)
            if not self.is_initializing():
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean.mean(0) * sign
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * variance.mean(0)
        else:
            mean, variance = running_mean.value[None] * sign, running_var.value[None]
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        shift = bias - mean * factor
        if len(factor) > 1:  # one row for each group
            of_clip = counted.groups.astype(jnp.float32).T
            factor, shift = (jnp.matmul(of_clip, each, precision="highest") for each in (factor, shift))
        factor, shift = (each.reshape(-1, *[1] * (x.ndim - 2), *channels) for each in (factor, shift))
        x = x if pool is None else pool(x)
        return (at_least_float32(x) * factor + shift).astype(self.dtype)


def statistics(x: jax.Array, counted: Counted) -> tuple[jax.Array, jax.Array]:
    """Mean and variance, each (G, C), of each group's clips of (N, ..., C); G is 1 where there are no groups.

    They are float32, or float64 where x is. In a group without present clips, all count: no mean is NaN.
    """
    members = jnp.ones((1, x.shape[0]), bool) if counted.groups is None else counted.groups
    if counted.present is not None:
        present = members & counted.present
        members = jnp.where(present.any(1, keepdims=True), present, members)
    weights = members / jnp.sum(members, 1, keepdims=True, dtype=jnp.float32)
    x, inner = at_least_float32(x), tuple(range(1, x.ndim - 1))
    mean, square = (
        jnp.matmul(weights, of_clip, precision="highest") for of_clip in (x.mean(inner), (x**2).mean(inner))
    )
    return mean, jnp.maximum(square - mean**2, 0.0)


def at_least_float32(x: jax.Array) -> jax.Array:
    """The same numbers in float32, or in their own dtype where that is more exact."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def rematerialized(part: Part, remat: str) -> Part:
    """Lets the backward pass of a bottleneck, or of a stem, keep only what `remat` says, see `REMATERIALIZATION`.

    Args:
      part: a module class called as `(x, train, counted)`, or a function called as `(module, x, train, counted)`.
      remat: how.

    Raises:
      ValueError: `remat` is unknown.
    """
    if remat not in REMATERIALIZATION:
        raise ValueError(f"The rematerialization is one of {', '.join(REMATERIALIZATION)}, and not {remat!r}.")
    if remat == "none":
        return part
    kept = jax.checkpoint_policies.save_only_these_names("convolution") if remat == "convolutions" else None
    return nn.remat(part, policy=kept, static_argnums=(2,))


def rematerialized_stage(stage: Part, remat: str) -> Part:
    """Lets the backward pass of a stage, a function as for `rematerialized`, keep its input where `remat` says so."""
    return nn.remat(stage, static_argnums=(2,)) if remat == "stages" else stage
