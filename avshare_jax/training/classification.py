"""The classification task: fine-tuning and linear evaluation on labeled videos (docs/downstream.md)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.models.avbert import INPUTS, WHOLE
from avshare_jax.models.classification import ClassificationNetwork, Present
from avshare_jax.objectives.classification import MULTI_LABEL, loss_function, scores
from avshare_jax.training.augmentation import augment

Batch = dict[str, jax.Array]
Variables = dict[str, Any]


class Classification:
    """The sum of the losses of all heads.

    Attributes:
      config: the whole run's config, of which `model`, `task`, `augment` and `data` are read, and in training
        `norm_groups` and `memory`.
      network: the Flax module.
    """

    def __init__(self, config: ConfigDict):
        """Builds the network; `config.task.class_names` must be those of the data set."""
        self.config = config
        self.network = self.build(models.PLAIN_CNNS)

    def build(self, cnn_options: models.CNNOptions) -> ClassificationNetwork:
        """The network with options that change neither parameters nor evaluation."""
        task = self.config.task
        return ClassificationNetwork(
            self.config.model,
            tuple(task.modalities),
            tuple(task.heads),
            len(task.class_names),
            task.dropout,
            tuple(task.frozen),
            cnn_options,
        )

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.config.task.loss.name in MULTI_LABEL

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Initializes `params` and `batch_stats` for batches shaped like `batch`."""
        return self.network.init(key, inputs_of(batch), train=False)

    def is_trained(self, path: str) -> bool:
        """Whether training changes the parameter of that path: not those of frozen parts, nor of unused ones."""
        root, part, *_ = path.split("/")
        if root != WHOLE:
            return True
        task = self.config.task
        seen = task.modalities if "tokens" in task.heads else ()
        unused = part.endswith("_bos") and part.removesuffix("_bos") not in seen
        return not unused and not {part, WHOLE} & set(task.frozen)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """Computes the sum over heads of the loss.

        Args:
          variables: `params` and `batch_stats`.
          batch: `label` (B,) int32 or `labels` (B, C); `frames`, `log_mel`, `has_video` and `has_audio` as far as the
            task sees them.
          key: the only source of randomness: augmentation and dropout.
          train: with augmentation, dropout and batch statistics in what is not frozen, or without.

        Returns:
          The scalar loss, and (metrics, new `batch_stats`). Metrics are scalars: `loss`, and `top1`, the share of
          videos of which the highest score is that of a label.
        """
        augment_key, dropout_key = jax.random.split(key)
        labels = batch["labels" if self.multi_label else "label"]
        batch = inputs_of(batch)
        if train:
            batch = augment(augment_key, batch, **self.config.augment)
        memory = self.config.memory
        options = models.CNNOptions(self.config.norm_groups, memory.clip_chunks, memory.remat)
        logits, updates = (self.build(options) if train else self.network).apply(
            variables, batch, train=train, rngs={"dropout": dropout_key}, mutable=["batch_stats"]
        )
        loss_of = loss_function(self.config.task.loss)
        loss = sum(loss_of(x, labels) for x in logits.values())
        best = scores(logits, self.multi_label).argmax(-1)
        hits = jnp.take_along_axis(labels, best[:, None], 1)[:, 0] if self.multi_label else best == labels
        metrics = {"loss": loss, "top1": jnp.mean(hits.astype(jnp.float32))}
        return loss, (metrics, updates.get("batch_stats", variables.get("batch_stats")))

    def scores(self, variables: Variables, batch: Batch, variants: Sequence[Present]) -> list[jax.Array]:
        """Scores (B, C) float32, 0 to 1, of a batch as in evaluation, for each choice of what is present."""
        found = self.network.apply(variables, inputs_of(batch), variants, method="classify_alike")
        return [scores(logits, self.multi_label) for logits in found]


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of a batch the network takes."""
    return {name: x for name, x in batch.items() if name in (*INPUTS.values(), "has_video", "has_audio")}
