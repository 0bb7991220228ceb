"""The visual, audio and multimodal Transformer, which share weights across layers and with each other."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from avshare_jax.models.factorized import Stacks, Weights, apply_linear, fold, init_linear, make_stacks, select

# Which Transformers there are, by where image and sound meet.
TRANSFORMERS = {
    "early": ("multimodal",),
    "mid": ("visual", "audio", "multimodal"),
    "late": ("visual", "audio"),
}


def layer_norm(dtype: jnp.dtype, **options: Any) -> nn.LayerNorm:
    """LayerNorm with BERT's epsilon; two-pass variance, because with so small an epsilon cancellation would show."""
    return nn.LayerNorm(epsilon=1e-12, dtype=dtype, use_fast_variance=False, **options)


class SharedTransformer(nn.Module):
    """Post-norm BERT encoders of the same size, one per modality and one for both, that share weights (paper, sec. 3).

    In the paper all layers share one set of weights; the six weights of a layer are factorized, so that each
    Transformer keeps only its private parts. Biases and LayerNorms are shared as U is.

    Attributes:
      transformers: their names.
      hidden: width D of the tokens.
      mlp: width of the feed-forward layer.
      heads: attention heads.
      layers: layers of each Transformer.
      rank: rank O of the factorization; None for full weights.
      layer_sharing: "none", "all" or "factorized", see `make_stacks`.
      transformer_sharing: the same.
      orthogonal_map: "expm" or "cayley".
      dropout: rate on attention weights and after attention.
      dtype: dtype of the computation; softmax, normalization and parameters are float32.
    """

    transformers: tuple[str, ...]
    hidden: int
    mlp: int
    heads: int
    layers: int
    rank: int | None
    layer_sharing: str
    transformer_sharing: str
    orthogonal_map: str
    dropout: float
    dtype: jnp.dtype

    def setup(self) -> None:
        """Creates all weights and folds them, once for all uses in a step.

        Raises:
          ValueError: the sharing schemes do not go together with each other or with `rank`.
        """
        if self.rank is None and "factorized" in (self.layer_sharing, self.transformer_sharing):
            raise ValueError("Only a factorized network (rank is a number) can share one of its factors.")
        stacks = make_stacks(self.layers, len(self.transformers), self.layer_sharing, self.transformer_sharing)
        sizes = {
            "query": (self.hidden, self.hidden),
            "key": (self.hidden, self.hidden),
            "value": (self.hidden, self.hidden),
            "attention_output": (self.hidden, self.hidden),
            "mlp_in": (self.hidden, self.mlp),
            "mlp_out": (self.mlp, self.hidden),
        }
        linears = {name: self.param(name, init_linear, *size, self.rank, stacks) for name, size in sizes.items()}
        norms = {name: self.param(name, self.init_norm, stacks) for name in ("attention_norm", "output_norm")}
        self.weights = fold(linears, self.orthogonal_map) | norms
        self.attention_dropout = nn.Dropout(self.dropout)

    def init_norm(self, key: jax.Array, stacks: Stacks) -> Weights:
        """Returns LayerNorm parameters `scale` and `bias`, both (*shared, D)."""
        del key
        shape = (*stacks.shared, self.hidden)
        return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}

    def __call__(self, tokens: jax.Array, transformer: str, train: bool, visible: jax.Array | None = None) -> jax.Array:
        """Encodes tokens (B, N, D) with one of the Transformers; returns (B, N, D).

        Args:
          tokens: input.
          transformer: its name.
          train: whether dropout is active.
          visible: (B, N) bool, false for tokens that no token may attend to; None: all are visible.
        """
        index = self.transformers.index(transformer)
        for layer in range(self.layers):
            weights = jax.tree.map(partial(select, layer=layer, transformer=index), dict(self.weights))
            tokens = self.apply_layer(tokens, weights, train, visible)
        return tokens

    def apply_layer(
        self, tokens: jax.Array, weights: Mapping[str, Weights], train: bool, visible: jax.Array | None
    ) -> jax.Array:
        """Applies one layer to tokens (B, N, D): x = LN(x + Drop(Attn(x))), then x = LN(x + MLP(x))."""

        def linear(name: str, x: jax.Array) -> jax.Array:
            return apply_linear(weights[name], x, self.dtype)

        def split_heads(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:-1], self.heads, -1)

        def norm(name: str, x: jax.Array) -> jax.Array:
            return layer_norm(self.dtype, parent=None).apply({"params": weights[name]}, x)

        attended = nn.dot_product_attention(
            *(split_heads(linear(name, tokens)) for name in ("query", "key", "value")),
            mask=None if visible is None else visible[:, None, None, :],
            dropout_rng=self.make_rng("dropout") if train and self.dropout else None,
            dropout_rate=self.dropout,
            broadcast_dropout=False,
            deterministic=not train,
            force_fp32_for_softmax=True,
        )
        attended = linear("attention_output", attended.reshape(tokens.shape))
        tokens = norm("attention_norm", tokens + self.attention_dropout(attended, deterministic=not train))
        mlp = linear("mlp_out", nn.gelu(linear("mlp_in", tokens), approximate=False))
        return norm("output_norm", tokens + mlp)


class TokenEmbedding(nn.Module):
    """Adds position (and modality) embeddings to one Transformer's input, then LayerNorm and dropout.

    Positions restart at 0 for each modality, so that synchronous clips share a position.

    Attributes:
      positions: rows of the position table; at least S + 1.
      modalities: names of those that this Transformer tells apart; empty for a Transformer of one modality.
      dropout: dropout rate.
      dtype: dtype of the result.
    """

    positions: int
    modalities: tuple[str, ...]
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, sequences: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """Embeds one (B, S + 1, D) array per modality and concatenates them along the tokens."""
        hidden = next(iter(sequences.values())).shape[-1]
        init = nn.initializers.normal(stddev=0.02)
        position = self.param("position", init, (self.positions, hidden))
        embedded = {name: x.astype(jnp.float32) + position[: x.shape[1]] for name, x in sequences.items()}
        if self.modalities:
            modality = self.param("modality", init, (len(self.modalities), hidden))
            embedded = {name: x + modality[self.modalities.index(name)] for name, x in embedded.items()}
        tokens = layer_norm(self.dtype, name="norm")(jnp.concatenate(list(embedded.values()), axis=1))
        return nn.Dropout(self.dropout)(tokens, deterministic=not train)
