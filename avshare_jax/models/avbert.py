"""The whole network: two CNNs, BOS tokens and embeddings, and Transformers that share weights; three kinds of fusion.

Shapes: B videos, S clips, T frames, H x W pixels, D hidden width. Tokens hold BOS first, so a modality has S + 1.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from avshare_jax.models.audio_cnn import AudioCNN
from avshare_jax.models.convolution import Counted
from avshare_jax.models.placement import constrain, fold_clips, join_axis, split_axis, unfold_clips
from avshare_jax.models.transformer import TRANSFORMERS, SharedTransformer, TokenEmbedding, layer_norm
from avshare_jax.models.visual_cnn import VisualCNN

MODALITIES = ("visual", "audio")
INPUTS = {"visual": "frames", "audio": "log_mel"}
PRESENCE = {"visual": "has_video", "audio": "has_audio"}
PIXEL_MEAN, PIXEL_STD = 0.45, 0.225
WHOLE = "network"
"""Stands for all parts of the network where parts are named that stay as they are."""

ByModality = Mapping[str, jax.Array]


class CNNOptions(NamedTuple):
    """How the CNNs run in training; parameters and evaluation stay as they are.

    Attributes:
      norm_groups: number of equal, consecutive parts of the batch whose videos BatchNorm normalizes together, as
        data-parallel training without synchronized BatchNorm does.
      clip_chunks: number of equal parts of each video's clips that the CNNs take one after the other; what the backward
        pass needs of a part is computed again. Each part has statistics of its own (and running statistics move once,
        towards their mean).
      remat: what the backward pass keeps, see `convolution.REMATERIALIZATION`.
    """

    norm_groups: int = 1
    clip_chunks: int = 1
    remat: str = "none"


PLAIN_CNNS = CNNOptions()


class AVBert(nn.Module):
    """Audio-visual BERT (Lee et al., ICLR 2021).

    Image and sound meet (`config.fusion`) "early": the clip embeddings of both go straight to one multimodal
    Transformer; "mid", the paper's choice: each goes through a Transformer of its own first; or "late": there is no
    multimodal Transformer.

    Attributes:
      config: sizes as in `avshare_jax.sizes`.
      cnn_options: for training.
      frozen: names of parts that run as in evaluation, also in training; `WHOLE`: all.
    """

    config: ConfigDict
    cnn_options: CNNOptions = PLAIN_CNNS
    frozen: tuple[str, ...] = ()

    def setup(self) -> None:
        """Creates the parts by the sizes in the config.

        Raises:
          ValueError: `config.fusion` is unknown, or the sharing schemes do not go together.
        """
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        if c.fusion not in TRANSFORMERS:
            raise ValueError(f"The fusion is one of {', '.join(TRANSFORMERS)}, and not {c.fusion!r}.")
        self.visual_cnn = VisualCNN(**c.visual_cnn, dtype=dtype, remat=self.cnn_options.remat)
        self.audio_cnn = AudioCNN(**c.audio_cnn, dtype=dtype, remat=self.cnn_options.remat)
        self.visual_projection = nn.Dense(c.hidden, dtype=dtype)
        self.visual_norm = layer_norm(dtype)
        self.audio_projection = nn.Dense(c.hidden, dtype=dtype)
        self.audio_norm = layer_norm(dtype)
        bos_init = nn.initializers.normal(stddev=0.02)
        self.visual_bos = self.param("visual_bos", bos_init, (c.hidden,))
        self.audio_bos = self.param("audio_bos", bos_init, (c.hidden,))
        if c.fusion != "early":
            self.visual_embedding = TokenEmbedding(c.positions, (), c.dropout, dtype)
            self.audio_embedding = TokenEmbedding(c.positions, (), c.dropout, dtype)
        if c.fusion != "late":
            self.multimodal_embedding = TokenEmbedding(c.positions, MODALITIES, c.dropout, dtype)
        self.transformer = SharedTransformer(
            TRANSFORMERS[c.fusion],
            c.hidden,
            c.mlp,
            c.heads,
            c.layers,
            c.rank,
            c.layer_sharing,
            c.transformer_sharing,
            c.orthogonal_map,
            c.dropout,
            dtype,
        )

    def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Encodes a batch of videos.

        Args:
          batch: `frames` (B, S, T, H, W, 3), uint8 or already normalized float; `log_mel` (B, S, time, mels), float.
            One of them may be missing. `has_video` and `has_audio` (B,) bool, both or neither, say which videos have
            which modality, where not all have both.
          train: whether BatchNorm uses (and updates) batch statistics and dropout is active.

        Returns:
          `visual_features` (B, S, Dv) and `audio_features` (B, S, Da), the pooled outputs of the CNNs;
          `visual_embeddings` and `audio_embeddings` (B, S, D), the same after projection and LayerNorm;
          `visual_tokens` and `audio_tokens` (B, S + 1, D), the unimodal Transformers' outputs; with early fusion, which
          has none, BOS and the embeddings;
          `multimodal_tokens` (B, 2 (S + 1), D), ordered BOS, visual clips, BOS, audio clips (early and mid fusion).
          Of a batch with one modality, only what that gives: early fusion gives `multimodal_tokens` (B, S + 1, D), mid
          fusion none.
        """
        outputs = self.embed(batch, train)
        embeddings = {name: outputs[f"{name}_embeddings"] for name in MODALITIES if f"{name}_embeddings" in outputs}
        tokens, fusion = self.encode(embeddings, train), self.config.fusion
        outputs |= {f"{name}_tokens": x for name, x in tokens.items()}
        if fusion == "early" or fusion == "mid" and len(tokens) == len(MODALITIES):
            outputs["multimodal_tokens"] = self.fuse(tokens, train, presence(batch))
        return outputs

    def embed(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Runs the CNNs on each clip; returns the `*_features` and `*_embeddings` of `__call__`."""
        outputs, present = {}, presence(batch)
        for name in (name for name in MODALITIES if INPUTS[name] in batch):
            features = self.clip_features(name, batch[INPUTS[name]], train, present.get(name))
            embeddings = getattr(self, f"{name}_norm")(getattr(self, f"{name}_projection")(features))
            # From here on, all clips of a video are needed together.
            outputs |= {f"{name}_features": features, f"{name}_embeddings": constrain(embeddings, ("batch", None))}
        return outputs

    def clip_features(self, name: str, inputs: jax.Array, train: bool, present: jax.Array | None) -> jax.Array:
        """Runs one CNN on the clips (B, S, ...) of a modality, in `clip_chunks` parts; returns (B, S, features).

        Args:
          name: of the modality.
          inputs: as in the batch.
          train: as for `__call__`.
          present: (B,) bool, which videos have the modality; None: all.

        Raises:
          ValueError: the clips cannot be divided into the chunks.
        """
        cnn, chunks = getattr(self, f"{name}_cnn"), self.cnn_options.clip_chunks
        train = train and self.moves(f"{name}_cnn")
        if not train or chunks == 1:
            return self.pooled_features(cnn, inputs, train, present)
        if inputs.shape[1] % chunks:
            raise ValueError(f"{inputs.shape[1]} clips cannot be divided into {chunks} equal chunks.")
        plain_cnn, variables = cnn.unbind()

        def run_chunk(variables: Mapping[str, Any], chunk: jax.Array) -> tuple[jax.Array, Any]:
            def run(bound: nn.Module) -> jax.Array:
                return self.pooled_features(bound, chunk, train, present)

            return nn.apply(run, plain_cnn, mutable=["batch_stats"])(variables)

        run_chunk = jax.checkpoint(run_chunk, prevent_cse=False)
        features, updates = jax.lax.map(partial(run_chunk, variables), split_axis(inputs, 1, chunks))
        if self.is_mutable_collection("batch_stats"):
            for module, statistics in updates["batch_stats"].items():
                cnn.put_variable("batch_stats", module, jax.tree.map(lambda x: x.mean(0), statistics))
        return join_axis(features, 1)

    def pooled_features(self, cnn: nn.Module, inputs: jax.Array, train: bool, present: jax.Array | None) -> jax.Array:
        """Runs a CNN on clips (B, S, ...) and takes the mean of each feature map; returns (B, S, features)."""
        counted = self.counted_clips(inputs.shape[:2], present) if train else Counted()
        if inputs.dtype == jnp.uint8:
            inputs = (inputs.astype(jnp.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
        features = cnn(fold_clips(inputs), train, counted)
        return unfold_clips(features.mean(range(1, features.ndim - 1)), inputs.shape[0])

    def counted_clips(self, shape: tuple[int, int], present: jax.Array | None) -> Counted:
        """Which of the (B, S) clips count in whose statistics: where their video has the modality, in its group.

        Raises:
          ValueError: the videos cannot be divided into the groups.
        """
        videos, groups = shape[0], self.cnn_options.norm_groups
        if videos % groups:
            raise ValueError(f"A batch of {videos} videos cannot be divided into {groups} equal BatchNorm groups.")

        def of_clips(of_videos: jax.Array) -> jax.Array:
            return fold_clips(jnp.broadcast_to(of_videos[:, None], shape))

        members = None
        if groups > 1:
            group = of_clips(jnp.arange(videos) // (videos // groups))
            members = group == jnp.arange(groups)[:, None]
        return Counted(None if present is None else of_clips(present), members)

    def encode(self, embeddings: ByModality, train: bool) -> dict[str, jax.Array]:
        """Turns clip embeddings (B, S, D) into the tokens (B, S + 1, D) that are then fused, each modality by itself.

        They are the outputs of the unimodal Transformers; with early fusion, BOS and the embeddings as they are.
        """
        tokens = {name: prepend(getattr(self, f"{name}_bos"), x) for name, x in embeddings.items()}
        if self.config.fusion == "early":
            return tokens
        return {name: self.transform({name: x}, name, train) for name, x in tokens.items()}

    def fuse(self, tokens: ByModality, train: bool, present: ByModality) -> jax.Array:
        """Runs the multimodal Transformer on tokens from `encode`; late fusion has none and leaves them as they are.

        Args:
          tokens: (B, S + 1, D) by modality.
          train: as for `__call__`.
          present: (B,) bool by modality, false where a video lacks it: its tokens are not attended to. Empty: all have
            both.

        Returns:
          The tokens of all modalities one after the other: (B, 2 (S + 1), D) for two.
        """
        if self.config.fusion == "late":
            return jnp.concatenate(list(tokens.values()), axis=1)
        visible = None
        if present:
            visible = jnp.concatenate(
                [jnp.broadcast_to(present[name][:, None], x.shape[:2]) for name, x in tokens.items()], 1
            )
        return self.transform(tokens, "multimodal", train, visible)

    def transform(
        self, tokens: ByModality, transformer: str, train: bool, visible: jax.Array | None = None
    ) -> jax.Array:
        """Runs one of the Transformers on tokens (B, S + 1, D) by modality, embedded as input; returns (B, N, D)."""
        embedding = f"{transformer}_embedding"
        embedded = getattr(self, embedding)(tokens, train and self.moves(embedding))
        return self.transformer(embedded, transformer, train and self.moves("transformer"), visible)

    def moves(self, part: str) -> bool:
        """Whether training changes a part."""
        return not {part, WHOLE} & set(self.frozen)


def presence(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Which videos have which modality, (B,) bool by modality; empty where the batch does not say: all have both."""
    return {name: batch[flag] for name, flag in PRESENCE.items() if flag in batch}


def prepend(vector: jax.Array, tokens: jax.Array) -> jax.Array:
    """Puts one (D,) vector before each sequence of (B, S, D) tokens; returns (B, S + 1, D)."""
    vector = jnp.broadcast_to(vector.astype(tokens.dtype), (tokens.shape[0], 1, tokens.shape[2]))
    return jnp.concatenate([vector, tokens], axis=1)
