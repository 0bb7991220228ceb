"""The network with heads that classify videos: on the CNNs' features, and on the Transformers' outputs.

Shapes: B videos, S clips, D hidden width, C classes.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from avshare_jax.models.avbert import INPUTS, MODALITIES, PLAIN_CNNS, AVBert, CNNOptions, presence
from avshare_jax.models.transformer import layer_norm

HEADS = ("clips", "tokens")
Present = Mapping[str, jax.Array]


class ClipHead(nn.Module):
    """A linear layer on the concatenated CNN features of each clip."""

    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, features: Mapping[str, jax.Array], present: Present, train: bool) -> jax.Array:
        """Maps features (B, S, D_cnn) by modality, zeros where a video lacks one, to logits (B, S, C) float32."""
        parts = [hide_missing(features[name].astype(jnp.float32), present.get(name)) for name in features]
        joined = nn.Dropout(self.dropout, deterministic=not train)(jnp.concatenate(parts, axis=-1))
        return nn.Dense(self.num_classes, name="classes")(joined)


class TokenHead(nn.Module):
    """LayerNorm of the sum over modalities of fc[BOS; token], then a linear layer, for each clip."""

    num_classes: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, tokens: Mapping[str, jax.Array], present: Present, train: bool) -> jax.Array:
        """Maps tokens (B, S + 1, D) by modality, BOS first, to logits (B, S, C) float32; a missing modality adds 0."""
        parts = []
        for name, x in tokens.items():
            x = x.astype(jnp.float32)
            pairs = jnp.concatenate([jnp.broadcast_to(x[:, :1], x[:, 1:].shape), x[:, 1:]], axis=-1)
            parts.append(hide_missing(nn.Dense(self.hidden, name=f"{name}_pairs")(pairs), present.get(name)))
        joined = layer_norm(jnp.dtype(jnp.float32), name="norm")(sum(parts))
        joined = nn.Dropout(self.dropout, deterministic=not train)(joined)
        return nn.Dense(self.num_classes, name="classes")(joined)


class ClassificationNetwork(nn.Module):
    """AVBert with a head for each of `heads`; parts of AVBert that no head needs have no parameters.

    (Both BOS vectors are there in any case, and stay as they are where no head or modality needs them.)

    Attributes:
      config: as for `AVBert`.
      modalities: what it sees, "visual" or "audio" or both.
      heads: one or both of `HEADS`.
      num_classes: C.
      dropout: before the heads' linear layers.
      frozen: as for `AVBert`.
      cnn_options: as for `AVBert`.
    """

    config: ConfigDict
    modalities: tuple[str, ...]
    heads: tuple[str, ...]
    num_classes: int
    dropout: float
    frozen: tuple[str, ...] = ()
    cnn_options: CNNOptions = PLAIN_CNNS

    def setup(self) -> None:
        """Creates network and heads."""
        self.network = AVBert(self.config, self.cnn_options, self.frozen)
        if "clips" in self.heads:
            self.clip_head = ClipHead(self.num_classes, self.dropout)
        if "tokens" in self.heads:
            self.token_head = TokenHead(self.num_classes, self.config.hidden, self.dropout)

    def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Classifies each clip of a batch.

        Args:
          batch: `frames` (B, S, T, H, W, 3) and `log_mel` (B, S, time, mels), as far as the network sees them;
            `has_video` and `has_audio` (B,) bool where not all videos have both.
          train: whether what is not frozen uses BatchNorm's batch statistics and dropout.

        Returns:
          Logits (B, S, C) float32 of each head.
        """
        present = presence(batch)
        return self.classify(self.features(batch, present, train), present, train)

    def classify_alike(self, batch: Mapping[str, jax.Array], variants: Sequence[Present]) -> list[dict[str, jax.Array]]:
        """Classifies a batch once for each choice of what is present, as in evaluation; the CNNs run once."""
        features = self.features(batch, {}, train=False)
        return [self.classify(features, present, train=False) for present in variants]

    def features(self, batch: Mapping[str, jax.Array], present: Present, train: bool) -> dict[str, jax.Array]:
        """Runs the CNNs on each clip; returns (B, S, D_cnn) by modality."""
        return {
            name: self.network.clip_features(name, batch[INPUTS[name]], train, present.get(name))
            for name in self.modalities
        }

    def classify(self, features: Mapping[str, jax.Array], present: Present, train: bool) -> dict[str, jax.Array]:
        """Runs all heads on the CNNs' features; returns logits (B, S, C) of each."""
        logits = {}
        if "clips" in self.heads:
            logits["clips"] = self.clip_head(features, present, train)
        if "tokens" in self.heads:
            tokens = self.tokens(features, present, train)
            logits["tokens"] = self.token_head(tokens, present, train)
        return logits

    def tokens(self, features: Mapping[str, jax.Array], present: Present, train: bool) -> dict[str, jax.Array]:
        """Outputs (B, S + 1, D) by modality of the last Transformer that these modalities reach."""
        network = self.network
        embeddings = {
            name: getattr(network, f"{name}_norm")(getattr(network, f"{name}_projection")(x))
            for name, x in features.items()
        }
        tokens = network.encode(embeddings, train)
        if len(tokens) < len(MODALITIES) and self.config.fusion != "early":
            return tokens
        fused = network.fuse(tokens, train, present)
        return dict(zip(tokens, jnp.split(fused, len(tokens), axis=1), strict=True))


def hide_missing(x: jax.Array, present: jax.Array | None) -> jax.Array:
    """Zeros in the rows of (B, S, D) whose videos lack the modality."""
    return x if present is None else jnp.where(present[:, None, None], x, 0.0)
