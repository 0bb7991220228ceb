"""The three Transformers: one set of factorized layer weights, shared by all layers and all modalities."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from avshare_jax.models.factorized import FactorizedLinear, FoldedWeights, apply_folded

TRANSFORMERS = ("visual", "audio", "multimodal")


def layer_norm(dtype: jnp.dtype, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with BERT's epsilon; two-pass variance, because with so small an epsilon cancellation would show."""
    return nn.LayerNorm(epsilon=1e-12, dtype=dtype, use_fast_variance=False, name=name)


class SharedTransformer(nn.Module):
    """Post-norm BERT encoder used by the visual, audio and multimodal Transformer alike (paper, section 3).

    All layers share one set of weights; the six weights of a layer are factorized, so that each Transformer keeps only
    its private parts. Biases and LayerNorms are shared.

    Attributes:
      hidden: width D of the tokens.
      mlp: width of the feed-forward layer.
      heads: attention heads.
      layers: how many times the layer is applied.
      rank: rank O of the factorization.
      dropout: rate on attention weights and after attention.
      dtype: dtype of the computation; softmax, normalization and parameters are float32.
    """

    hidden: int
    mlp: int
    heads: int
    layers: int
    rank: int
    dropout: float
    dtype: jnp.dtype

    def setup(self) -> None:
        """Creates the weights of the one layer."""
        sizes = {
            "query": (self.hidden, self.hidden),
            "key": (self.hidden, self.hidden),
            "value": (self.hidden, self.hidden),
            "attention_output": (self.hidden, self.hidden),
            "mlp_in": (self.hidden, self.mlp),
            "mlp_out": (self.mlp, self.hidden),
        }
        self.linear = {
            name: FactorizedLinear(inputs, outputs, self.rank, TRANSFORMERS)
            for name, (inputs, outputs) in sizes.items()
        }
        self.attention_norm = layer_norm(self.dtype)
        self.output_norm = layer_norm(self.dtype)
        self.attention_dropout = nn.Dropout(self.dropout)

    def __call__(self, tokens: jax.Array, transformer: str, train: bool) -> jax.Array:
        """Encodes tokens (B, N, D) with the weights of one of `TRANSFORMERS`; returns (B, N, D)."""
        weights = {name: linear(transformer) for name, linear in self.linear.items()}
        for _ in range(self.layers):
            tokens = self.apply_layer(tokens, weights, train)
        return tokens

    def apply_layer(self, tokens: jax.Array, weights: Mapping[str, FoldedWeights], train: bool) -> jax.Array:
        """Applies the layer once to tokens (B, N, D): x = LN(x + Drop(Attn(x))), then x = LN(x + MLP(x))."""

        def linear(name: str, x: jax.Array) -> jax.Array:
            return apply_folded(weights[name], x, self.dtype)

        def split_heads(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:-1], self.heads, -1)

        attended = nn.dot_product_attention(
            *(split_heads(linear(name, tokens)) for name in ("query", "key", "value")),
            dropout_rng=self.make_rng("dropout") if train and self.dropout else None,
            dropout_rate=self.dropout,
            broadcast_dropout=False,
            deterministic=not train,
            force_fp32_for_softmax=True,
        )
        attended = linear("attention_output", attended.reshape(tokens.shape))
        tokens = self.attention_norm(tokens + self.attention_dropout(attended, deterministic=not train))
        mlp = linear("mlp_out", nn.gelu(linear("mlp_in", tokens), approximate=False))
        return self.output_norm(tokens + mlp)


class TokenEmbedding(nn.Module):
    """Adds position (and modality) embeddings to one Transformer's input, then LayerNorm and dropout.

    Positions restart at 0 for each modality, so that synchronous clips share a position.

    Attributes:
      positions: rows of the position table; at least S + 1.
      modalities: 1, or 2 for the multimodal Transformer, which tells visual (0) from audio (1) tokens.
      dropout: dropout rate.
      dtype: dtype of the result.
    """

    positions: int
    modalities: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, sequences: tuple[jax.Array, ...], train: bool) -> jax.Array:
        """Embeds one (B, S + 1, D) array per modality and concatenates them along the tokens."""
        hidden = sequences[0].shape[-1]
        init = nn.initializers.normal(stddev=0.02)
        position = self.param("position", init, (self.positions, hidden))
        embedded = [tokens.astype(jnp.float32) + position[: tokens.shape[1]] for tokens in sequences]
        if self.modalities > 1:
            modality = self.param("modality", init, (self.modalities, hidden))
            embedded = [tokens + modality[index] for index, tokens in enumerate(embedded)]
        tokens = jnp.concatenate(embedded, axis=1)
        tokens = layer_norm(self.dtype, name="norm")(tokens)
        return nn.Dropout(self.dropout)(tokens, deterministic=not train)
