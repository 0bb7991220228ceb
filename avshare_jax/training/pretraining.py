"""The pretraining task: one batch in, the sum of both objectives and their metrics out (paper, section 3)."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.models.placement import constrain
from avshare_jax.objectives import correct_pair, masked_embedding, masking, negatives
from avshare_jax.training.augmentation import augment
from avshare_jax.training.clip_objectives import clip_objectives, projection_of

Batch = dict[str, jax.Array]
Variables = dict[str, Any]


class Pretraining:
    """Masked embedding prediction and correct pair prediction with content-aware negatives.

    Attributes:
      config: the whole run's config; its `model`, `augment` and `objectives` are read, and in training `norm_groups`
        and `memory`.
      network: the Flax module.
    """

    def __init__(self, config: ConfigDict):
        """Builds the network of `config.model`."""
        self.config = config
        self.network = models.build_pretraining(config.model, projection=projection_of(config.objectives))

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Initializes `params` and `batch_stats` for batches shaped like `batch`."""
        batch_size, num_clips = batch["frames"].shape[:2]
        mask = jnp.zeros((batch_size, num_clips), bool)
        masks = {name: mask for name in models.MODALITIES}
        return self.network.init(key, batch, masks, jnp.arange(batch_size), train=False)

    def loss(
        self, variables: Variables, batch: Batch, key: jax.Array, train: bool
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """Computes L = MEP_visual + MEP_audio + alpha * MEP_multimodal + beta * CPP on the global batch.

        Videos that lack a modality count where they can: MEP of the other modality, and no pair. Objectives on clips
        are added where the config has weights for them, see `clip_objectives`.

        Args:
          variables: `params` and `batch_stats`.
          batch: `frames` (B, S, T, H, W, 3) uint8, `log_mel` (B, S, time, mels) float32; `has_video` and `has_audio`
            (B,) bool where not every video has both.
          key: the only source of randomness: augmentation, masks, negatives, pairs, dropout.
          train: with augmentation, dropout and batch statistics, or without.

        Returns:
          The scalar loss, and (metrics, new `batch_stats`). Metrics are scalars: both objectives' losses, MEP top-1
          per head against its negatives and against the whole batch beside chance, CPP accuracy per head.
        """
        keys = dict(
            zip(("augment", "visual", "audio", "pairs", "step", "dropout"), jax.random.split(key, 6), strict=True)
        )
        if train:
            batch = augment(keys["augment"], batch, **self.config.augment)
        present = models.presence(batch)
        batch_size, num_clips = batch["frames"].shape[:2]
        count = masking.masked_count(num_clips, self.config.objectives.mask_fraction)
        positions, masks = {}, {}
        for modality in models.MODALITIES:
            mask_key, keys[modality] = jax.random.split(keys[modality])
            positions[modality] = masking.sample_masked_positions(mask_key, batch_size, num_clips, count)
            masks[modality] = masking.positions_to_mask(positions[modality], num_clips)
        wrong_audio = correct_pair.sample_derangement(keys["pairs"], batch_size)
        outputs, updates = (self.training_network() if train else self.network).apply(
            variables,
            batch,
            masks,
            wrong_audio,
            train=train,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        mep_loss, mep_metrics = self.masked_embedding(outputs, positions, present, keys)
        cpp_loss, cpp_metrics = self.correct_pair(outputs, wrong_audio, present, keys["step"])
        options = self.config.objectives
        loss = options.masked_weight * mep_loss + options.pair_weight * cpp_loss
        metrics = {"mep/loss": mep_loss, "cpp/loss": cpp_loss, **mep_metrics, **cpp_metrics}
        if "projections" in outputs:
            # The next after the keys above, which stay what they are without these objectives.
            clip_key = jax.random.fold_in(key, len(keys))
            clip_loss, clip_metrics = clip_objectives(
                options, outputs["projections"], outputs["log_scales"], present, clip_key
            )
            loss, metrics = loss + clip_loss, metrics | clip_metrics
        metrics["loss"] = loss
        return loss, (metrics, updates.get("batch_stats", variables.get("batch_stats")))

    def training_network(self) -> models.PretrainingNetwork:
        """The network with the config's choices for training, which change neither parameters nor evaluation."""
        memory = self.config.memory
        options = models.CNNOptions(self.config.norm_groups, memory.clip_chunks, memory.remat)
        return models.build_pretraining(self.config.model, options, self.network.projection)

    def masked_embedding(
        self,
        outputs: Variables,
        positions: dict[str, jax.Array],
        present: dict[str, jax.Array],
        keys: dict[str, jax.Array],
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Weighted sum of L_NCE over all heads, and their metrics; a modality's heads share its negatives."""
        options = self.config.objectives
        total, metrics, chances, batch_chances = 0.0, {}, [], []
        for modality in models.MODALITIES:
            targets, has_it = outputs["targets"][modality], present.get(modality)
            drawn, valid = negatives.sample_negatives(
                keys[modality],
                # Every device compares its masked clips with all clips: their embeddings are small.
                constrain(jax.lax.stop_gradient(targets), ()),
                positions[modality],
                options.num_negatives,
                negatives.LOG_WEIGHTS[options.negative_sampling],
                present=has_it,
                groups=options.negative_groups,
            )
            chances.append(masked_embedding.chance(valid, has_it))
            batch_chances.append(masked_embedding.chance_of_batch(*targets.shape[:2], has_it))
            for head, weight in ((modality, 1.0), (f"multimodal_{modality}", options.multimodal_weight)):
                if head not in outputs["predictions"]:  # Not every kind of fusion has every Transformer.
                    continue
                scores, own = masked_embedding.masked_embedding_scores(
                    outputs["predictions"][head], targets, positions[modality]
                )
                loss, top1 = masked_embedding.noise_contrastive_loss(scores, own, drawn, valid, has_it)
                total += weight * loss
                metrics[f"mep/{head}_loss"] = loss
                metrics[f"mep/{head}_top1"] = top1
                metrics[f"mep/{head}_top1_of_batch"] = masked_embedding.top1_of_batch(scores, own, has_it)
        metrics["mep/chance"] = jnp.mean(jnp.stack(chances))
        metrics["mep/chance_of_batch"] = jnp.mean(jnp.stack(batch_chances))
        return total, metrics

    def correct_pair(
        self, outputs: Variables, wrong_audio: jax.Array, present: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Sum of both pair losses (BOS outputs; outputs at one random time step per pair), and their metrics."""
        right, wrong = outputs["right_pairs"], outputs["wrong_pairs"]
        flags = (
            (present["visual"] & present["audio"], present["visual"] & present["audio"][wrong_audio]) if present else ()
        )
        steps = jax.random.randint(key, (2, right["step"].shape[0], 1), 0, right["step"].shape[1])
        right_step = jnp.take_along_axis(right["step"], steps[0], axis=1)[:, 0]
        wrong_step = jnp.take_along_axis(wrong["step"], steps[1], axis=1)[:, 0]
        bos_loss, bos_accuracy = correct_pair.pair_loss(right["bos"], wrong["bos"], *flags)
        step_loss, step_accuracy = correct_pair.pair_loss(right_step, wrong_step, *flags)
        return bos_loss + step_loss, {
            "cpp/bos_loss": bos_loss,
            "cpp/step_loss": step_loss,
            "cpp/bos_accuracy": bos_accuracy,
            "cpp/step_accuracy": step_accuracy,
        }
