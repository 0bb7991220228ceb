"""Counts parameters by part and by kind, beside what the same Transformers would need without sharing."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from avshare_jax.models.transformer import TRANSFORMERS


class PartCount(NamedTuple):
    """Parameters of one part of the network: shared by the Transformers, private to one of them, or neither."""

    shared: int
    private: int
    other: int

    @property
    def total(self) -> int:
        """All parameters of the part."""
        return self.shared + self.private + self.other


def parameter_counts(params: Mapping[str, Any]) -> dict[str, PartCount]:
    """Counts the parameters of each top-level part of a network's `params` (arrays or `jax.ShapeDtypeStruct`).

    The Transformers' arrays have leading axes (layers, Transformers): what has one per Transformer is private.
    """
    counts: dict[str, PartCount] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        kind = "other"
        if names[0] == "transformer":
            kind = "private" if leaf.shape[1] > 1 else "shared"
        count = counts.get(names[0], PartCount(0, 0, 0))
        counts[names[0]] = count._replace(**{kind: getattr(count, kind) + math.prod(leaf.shape)})
    return counts


def unshared_transformer_parameters(model_config: ConfigDict) -> int:
    """Parameters of as many Transformers of the same size with full weights and nothing shared."""
    hidden, mlp = model_config.hidden, model_config.mlp
    attention = 4 * (hidden * hidden + hidden)
    feed_forward = 2 * hidden * mlp + mlp + hidden
    norms = 2 * 2 * hidden
    return len(TRANSFORMERS[model_config.fusion]) * model_config.layers * (attention + feed_forward + norms)
