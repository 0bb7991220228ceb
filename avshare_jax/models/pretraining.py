"""The network with what only pretraining needs: mask vectors and the heads of both objectives."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from avshare_jax.models.avbert import AVBert

MEP_HEADS = ("visual", "audio", "multimodal_visual", "multimodal_audio")


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
        return hidden.astype(jnp.float32) @ bilinear


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


class PretrainingNetwork(nn.Module):
    """AVBert with mask vectors, four predictors (masked embedding) and two pair classifiers (correct pair)."""

    config: ConfigDict

    def setup(self) -> None:
        """Creates network, mask vectors and heads."""
        hidden, dtype = self.config.hidden, jnp.dtype(self.config.dtype)
        self.network = AVBert(self.config)
        init = nn.initializers.normal(stddev=0.02)
        self.visual_mask_vector = self.param("visual_mask_vector", init, (hidden,))
        self.audio_mask_vector = self.param("audio_mask_vector", init, (hidden,))
        self.predictors = {name: Predictor(hidden, dtype) for name in MEP_HEADS}
        self.bos_classifier = PairClassifier(hidden, dtype)
        self.step_classifier = PairClassifier(hidden, dtype)

    def __call__(
        self,
        batch: Mapping[str, jax.Array],
        visual_mask: jax.Array,
        audio_mask: jax.Array,
        wrong_audio: jax.Array,
        train: bool,
    ) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Encodes a batch with masked clips, and once more each video with another video's audio.

        Args:
          batch: `frames` and `log_mel` as for `AVBert`.
          visual_mask: (B, S) bool, true where the visual clip is hidden from the Transformers.
          audio_mask: (B, S) bool, the same for audio.
          wrong_audio: (B,) int, for each video the row whose audio it is paired with as a negative.
          train: as for `AVBert`.

        Returns:
          `targets`: `visual` and `audio`, (B, S, D) float32; `predictions`: one (B, S, D) per head of `MEP_HEADS`;
          `right_pairs` and `wrong_pairs`: logits `bos` (B,) and `step` (B, S).
        """
        embedded = self.network.embed(batch, train)
        visual, audio = embedded["visual_embeddings"], embedded["audio_embeddings"]
        tokens = self.network.contextualize(
            jnp.where(visual_mask[..., None], self.visual_mask_vector.astype(visual.dtype), visual),
            jnp.where(audio_mask[..., None], self.audio_mask_vector.astype(audio.dtype), audio),
            train,
        )
        visual_part, audio_part = jnp.split(tokens["multimodal_tokens"], 2, axis=1)
        outputs = {
            "visual": tokens["visual_tokens"],
            "audio": tokens["audio_tokens"],
            "multimodal_visual": visual_part,
            "multimodal_audio": audio_part,
        }
        wrong = self.network.fuse(tokens["visual_tokens"], tokens["audio_tokens"][wrong_audio], train)
        return {
            "targets": {"visual": visual.astype(jnp.float32), "audio": audio.astype(jnp.float32)},
            "predictions": {name: self.predictors[name](outputs[name][:, 1:]) for name in MEP_HEADS},
            "right_pairs": self.classify_pairs(tokens["multimodal_tokens"]),
            "wrong_pairs": self.classify_pairs(wrong),
        }

    def classify_pairs(self, multimodal_tokens: jax.Array) -> dict[str, jax.Array]:
        """Logits that audio and image belong together, from (B, 2 (S + 1), D): `bos` (B,) and `step` (B, S)."""
        visual, audio = jnp.split(multimodal_tokens, 2, axis=1)
        return {
            "bos": self.bos_classifier(visual[:, 0], audio[:, 0]),
            "step": self.step_classifier(visual[:, 1:], audio[:, 1:]),
        }

    def pair_logits(self, visual_tokens: jax.Array, audio_tokens: jax.Array) -> dict[str, jax.Array]:
        """Pair logits of unimodal tokens, each (B, S + 1, D), row by row, in evaluation mode."""
        return self.classify_pairs(self.network.fuse(visual_tokens, audio_tokens, train=False))
