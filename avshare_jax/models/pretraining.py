"""The network with what only pretraining needs: mask vectors and the heads of both objectives."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from avshare_jax.models.avbert import MODALITIES, PLAIN_CNNS, AVBert, CNNOptions, presence
from avshare_jax.models.placement import constrain

# Masked embedding prediction runs on the outputs of every Transformer that there is.
MEP_HEADS = {
    "early": ("multimodal_visual", "multimodal_audio"),
    "mid": ("visual", "audio", "multimodal_visual", "multimodal_audio"),
    "late": ("visual", "audio"),
}


class Predictor(nn.Module):
    """FFN(o)^T W_I of masked embedding prediction: a two-layer network, then the bilinear form with the target."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps Transformer outputs (B, S, D) to predictions (B, S, D), to be compared by dot product; float32."""
        hidden = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name="ffn_in")(tokens), approximate=False)
        hidden = nn.Dense(self.hidden, dtype=self.dtype, name="ffn_out")(hidden)
        # Targets are layer-normalized, so their squared length is D: a standard deviation of 1/D keeps scores near 1.
        bilinear = self.param("bilinear", nn.initializers.normal(1 / self.hidden), (self.hidden, self.hidden))
        return jnp.matmul(hidden.astype(jnp.float32), bilinear, precision="highest")


class PairClassifier(nn.Module):
    """Two-layer binary head of correct pair prediction."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, visual: jax.Array, audio: jax.Array) -> jax.Array:
        """Maps a visual and an audio token (..., D) to the logit (...,) that they belong together; float32."""
        pair = jnp.concatenate([visual, audio], axis=-1)
        hidden = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name="ffn_in")(pair), approximate=False)
        return nn.Dense(1, dtype=jnp.float32, name="ffn_out")(hidden)[..., 0]


class Projection(NamedTuple):
    """What the objectives on clips need beside the paper's network.

    Attributes:
      hidden: width of the projector's inner layer.
      width: of the projections.
      temperatures: names of the objectives that learn one.
    """

    hidden: int
    width: int
    temperatures: tuple[str, ...] = ()


class Projector(nn.Module):
    """A two-layer network from a CNN's clip features to what clips are compared by (Chen et al. 2020, section 2.1)."""

    hidden: int
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps clip features (B, S, F) to projections (B, S, P); float32."""
        hidden = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name="ffn_in")(features), approximate=False)
        return nn.Dense(self.width, dtype=jnp.float32, name="ffn_out")(hidden)


class Temperature(nn.Module):
    """A learned temperature, which starts at 0.1."""

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the logarithm of what cosines are multiplied by, () float32."""
        return self.param("scale", nn.initializers.constant(math.log(10)), ())


class PretrainingNetwork(nn.Module):
    """AVBert with mask vectors, predictors (masked embedding) and two pair classifiers (correct pair).

    Attributes:
      config: as for `AVBert`.
      cnn_options: as for `AVBert`.
      projection: for objectives on clips beside the paper's; None: there are none.
    """

    config: ConfigDict
    cnn_options: CNNOptions = PLAIN_CNNS
    projection: Projection | None = None

    def setup(self) -> None:
        """Creates network, mask vectors and heads."""
        hidden, dtype = self.config.hidden, jnp.dtype(self.config.dtype)
        self.network = AVBert(self.config, self.cnn_options)
        init = nn.initializers.normal(stddev=0.02)
        self.visual_mask_vector = self.param("visual_mask_vector", init, (hidden,))
        self.audio_mask_vector = self.param("audio_mask_vector", init, (hidden,))
        self.predictors = {head: Predictor(hidden, dtype) for head in MEP_HEADS[self.config.fusion]}
        self.bos_classifier = PairClassifier(hidden, dtype)
        self.step_classifier = PairClassifier(hidden, dtype)
        if self.projection:
            sizes = (self.projection.hidden, self.projection.width, dtype)
            self.visual_projector, self.audio_projector = Projector(*sizes), Projector(*sizes)
            self.temperatures = {name: Temperature() for name in self.projection.temperatures}

    def __call__(
        self,
        batch: Mapping[str, jax.Array],
        masks: Mapping[str, jax.Array],
        wrong_audio: jax.Array,
        train: bool,
    ) -> dict[str, dict[str, jax.Array]]:
        """Encodes a batch with masked clips, and once more each video with another video's audio.

        Args:
          batch: as for `AVBert`, with both modalities.
          masks: (B, S) bool by modality, true where the clip is hidden from the Transformers.
          wrong_audio: (B,) int, for each video the row whose audio it is paired with as a negative.
          train: as for `AVBert`.

        Returns:
          `targets`: `visual` and `audio`, (B, S, D) float32; `predictions`: one (B, S, D) per head of `MEP_HEADS`;
          `right_pairs` and `wrong_pairs`: logits `bos` (B,) and `step` (B, S). With a `projection`, also `projections`:
          `visual` and `audio`, (B, S, P) float32; and `log_scales`: one () of each of its temperatures.
        """
        embedded = self.network.embed(batch, train)
        embeddings = {name: embedded[f"{name}_embeddings"] for name in MODALITIES}
        tokens = self.network.encode(
            {name: self.hide(x, masks[name], getattr(self, f"{name}_mask_vector")) for name, x in embeddings.items()},
            train,
        )
        # Right and wrong pairs in one pass. They alternate along the batch, which leaves a sharded batch where it is.
        present = presence(batch)
        fused = self.network.fuse(
            {"visual": jnp.repeat(tokens["visual"], 2, axis=0), "audio": alternate(tokens["audio"], wrong_audio)},
            train,
            present and {"visual": jnp.repeat(present["visual"], 2), "audio": alternate(present["audio"], wrong_audio)},
        )
        right, wrong = fused[0::2], fused[1::2]
        visual_part, audio_part = jnp.split(right, 2, axis=1)
        outputs = tokens | {"multimodal_visual": visual_part, "multimodal_audio": audio_part}
        return {
            "targets": {name: x.astype(jnp.float32) for name, x in embeddings.items()},
            "predictions": {head: predictor(outputs[head][:, 1:]) for head, predictor in self.predictors.items()},
            "right_pairs": self.classify_pairs(right),
            "wrong_pairs": self.classify_pairs(wrong),
            **self.project(embedded),
        }

    def project(self, embedded: Mapping[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
        """The `projections` of `*_features` (B, S, F) from `AVBert.embed`, and the `log_scales`; empty without any."""
        if not self.projection:
            return {}
        projections = {
            name: constrain(getattr(self, f"{name}_projector")(embedded[f"{name}_features"]), ("batch", None))
            for name in MODALITIES
        }
        return {
            "projections": projections,
            "log_scales": {name: temperature() for name, temperature in self.temperatures.items()},
        }

    def hide(self, embeddings: jax.Array, mask: jax.Array, mask_vector: jax.Array) -> jax.Array:
        """Replaces the clip embeddings (B, S, D) by the mask vector (D,) where the mask (B, S) is true."""
        return jnp.where(mask[..., None], mask_vector.astype(embeddings.dtype), embeddings)

    def classify_pairs(self, fused: jax.Array) -> dict[str, jax.Array]:
        """Logits that audio and image belong together, from (B, 2 (S + 1), D): `bos` (B,) and `step` (B, S)."""
        visual, audio = jnp.split(fused, 2, axis=1)
        return {
            "bos": self.bos_classifier(visual[:, 0], audio[:, 0]),
            "step": self.step_classifier(visual[:, 1:], audio[:, 1:]),
        }

    def pair_logits(self, visual_tokens: jax.Array, audio_tokens: jax.Array) -> dict[str, jax.Array]:
        """Pair logits of tokens from `AVBert.encode`, each (B, S + 1, D), row by row, in evaluation mode."""
        tokens = {"visual": visual_tokens, "audio": audio_tokens}
        return self.classify_pairs(self.network.fuse(tokens, train=False, present={}))


def alternate(x: jax.Array, wrong: jax.Array) -> jax.Array:
    """Puts row `wrong[i]` of x (B, ...) behind each row i; returns (2 B, ...)."""
    return jnp.stack([x, x[wrong]], axis=1).reshape(-1, *x.shape[1:])
