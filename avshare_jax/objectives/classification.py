"""Losses of classification, and how logits become scores: clips of a video share its labels.

Shapes: B videos, S clips, C classes. Labels are (B,) int32, or (B, C) of zeros and ones where a video has several.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy in nats; the mean over clips of logits (B, S, C)."""
    labels = jnp.broadcast_to(labels[:, None], logits.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def multi_margin(logits: jax.Array, labels: jax.Array, margin: float) -> jax.Array:
    """Sum over wrong classes j of max(0, margin - x_label + x_j), divided by C; the mean over clips of (B, S, C)."""
    num_classes = logits.shape[-1]
    right = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype)[:, None]
    own = jnp.sum(logits * right, axis=-1, keepdims=True)
    return jnp.mean(jnp.sum(jnp.maximum(margin - own + logits, 0) * (1 - right), axis=-1) / num_classes)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy in nats of each class by itself; the mean over clips and classes of (B, S, C)."""
    labels = jnp.broadcast_to(labels[:, None], logits.shape).astype(logits.dtype)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "cross_entropy": cross_entropy,
    "multi_margin": multi_margin,
    "binary_cross_entropy": binary_cross_entropy,
}
MULTI_LABEL = ("binary_cross_entropy",)
"""Losses for videos that may have several labels."""


def scores(logits: dict[str, jax.Array], multi_label: bool) -> jax.Array:
    """Turns the logits (B, S, C) of all heads into scores (B, C) of videos from 0 to 1.

    They are softmax, or sigmoid with several labels, averaged over clips and heads.
    """
    squash = jax.nn.sigmoid if multi_label else jax.nn.softmax
    return jnp.mean(jnp.stack([squash(x.astype(jnp.float32)).mean(1) for x in logits.values()]), axis=0)


def loss_function(options: dict[str, Any]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The loss that `config.task.loss` describes: its `name`, and what else it takes."""
    rest = {name: value for name, value in options.items() if name != "name"}
    return lambda logits, labels: LOSSES[options["name"]](logits, labels, **rest)
