"""The whole network: two CNNs, BOS tokens and embeddings, three weight-sharing Transformers with mid fusion.

Shapes: B videos, S clips, T frames, H x W pixels, D hidden width. Tokens hold BOS first, so a modality has S + 1.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from avshare_jax.models.audio_cnn import AudioCNN
from avshare_jax.models.transformer import SharedTransformer, TokenEmbedding, layer_norm
from avshare_jax.models.visual_cnn import VisualCNN

PIXEL_MEAN, PIXEL_STD = 0.45, 0.225


class AVBert(nn.Module):
    """Audio-visual BERT (Lee et al., ICLR 2021) with mid fusion.

    Attributes:
      config: sizes as in `avshare_jax.models.sizes`.
    """

    config: ConfigDict

    def setup(self) -> None:
        """Creates the parts by the sizes in the config."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.visual_cnn = VisualCNN(**c.visual_cnn, dtype=dtype)
        self.audio_cnn = AudioCNN(**c.audio_cnn, dtype=dtype)
        self.visual_projection = nn.Dense(c.hidden, dtype=dtype)
        self.visual_norm = layer_norm(dtype)
        self.audio_projection = nn.Dense(c.hidden, dtype=dtype)
        self.audio_norm = layer_norm(dtype)
        bos_init = nn.initializers.normal(stddev=0.02)
        self.visual_bos = self.param("visual_bos", bos_init, (c.hidden,))
        self.audio_bos = self.param("audio_bos", bos_init, (c.hidden,))
        self.visual_embedding = TokenEmbedding(c.positions, 1, c.dropout, dtype)
        self.audio_embedding = TokenEmbedding(c.positions, 1, c.dropout, dtype)
        self.multimodal_embedding = TokenEmbedding(c.positions, 2, c.dropout, dtype)
        self.transformer = SharedTransformer(c.hidden, c.mlp, c.heads, c.layers, c.rank, c.dropout, dtype)

    def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Encodes a batch of videos.

        Args:
          batch: `frames` (B, S, T, H, W, 3), uint8 or already normalized float; `log_mel` (B, S, time, mels), float.
          train: whether BatchNorm uses (and updates) batch statistics and dropout is active.

        Returns:
          `visual_features` (B, S, Dv) and `audio_features` (B, S, Da), the pooled outputs of the CNNs;
          `visual_embeddings` and `audio_embeddings` (B, S, D), the same after projection and LayerNorm;
          `visual_tokens` and `audio_tokens` (B, S + 1, D), the unimodal Transformers' outputs;
          `multimodal_tokens` (B, 2 (S + 1), D), ordered BOS, visual clips, BOS, audio clips.
        """
        embedded = self.embed(batch, train)
        return embedded | self.contextualize(embedded["visual_embeddings"], embedded["audio_embeddings"], train)

    def embed(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Runs the CNNs on each clip; returns the `*_features` and `*_embeddings` of `__call__`."""
        frames, log_mel = batch["frames"], batch["log_mel"]
        clips = frames.shape[:2]
        if frames.dtype == jnp.uint8:
            frames = (frames.astype(jnp.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
        visual = self.visual_cnn(frames.reshape(-1, *frames.shape[2:]), train)
        visual = visual.mean((1, 2, 3)).reshape(*clips, -1)
        audio = self.audio_cnn(log_mel.reshape(-1, *log_mel.shape[2:]), train)
        audio = audio.mean((1, 2)).reshape(*clips, -1)
        return {
            "visual_features": visual,
            "audio_features": audio,
            "visual_embeddings": self.visual_norm(self.visual_projection(visual)),
            "audio_embeddings": self.audio_norm(self.audio_projection(audio)),
        }

    def contextualize(self, visual: jax.Array, audio: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Runs the Transformers on clip embeddings (B, S, D); returns the `*_tokens` of `__call__`."""
        visual = self.visual_embedding((prepend(self.visual_bos, visual),), train)
        audio = self.audio_embedding((prepend(self.audio_bos, audio),), train)
        visual = self.transformer(visual, "visual", train)
        audio = self.transformer(audio, "audio", train)
        return {
            "visual_tokens": visual,
            "audio_tokens": audio,
            "multimodal_tokens": self.fuse(visual, audio, train),
        }

    def fuse(self, visual_tokens: jax.Array, audio_tokens: jax.Array, train: bool) -> jax.Array:
        """Runs the multimodal Transformer on unimodal tokens, each (B, S + 1, D); returns (B, 2 (S + 1), D)."""
        tokens = self.multimodal_embedding((visual_tokens, audio_tokens), train)
        return self.transformer(tokens, "multimodal", train)


def prepend(vector: jax.Array, tokens: jax.Array) -> jax.Array:
    """Puts one (D,) vector before each sequence of (B, S, D) tokens; returns (B, S + 1, D)."""
    vector = jnp.broadcast_to(vector.astype(tokens.dtype), (tokens.shape[0], 1, tokens.shape[2]))
    return jnp.concatenate([vector, tokens], axis=1)
