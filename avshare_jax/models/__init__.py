"""The network: factorized Transformers, CNNs, fusion and heads. Knows neither data nor optimizer."""

from ml_collections import ConfigDict

from avshare_jax.models.avbert import MODALITIES, PLAIN_CNNS, AVBert, CNNOptions, presence
from avshare_jax.models.budget import parameter_counts, unshared_transformer_parameters
from avshare_jax.models.classification import ClassificationNetwork
from avshare_jax.models.pretraining import MEP_HEADS, PretrainingNetwork, Projection

__all__ = [
    "MEP_HEADS",
    "MODALITIES",
    "AVBert",
    "CNNOptions",
    "ClassificationNetwork",
    "PretrainingNetwork",
    "Projection",
    "build",
    "build_pretraining",
    "parameter_counts",
    "presence",
    "unshared_transformer_parameters",
]


def build(model_config: ConfigDict) -> AVBert:
    """Builds the network of a model config; see `AVBert.__call__` for what it takes and returns."""
    return AVBert(model_config)


def build_pretraining(
    model_config: ConfigDict, cnn_options: CNNOptions = PLAIN_CNNS, projection: Projection | None = None
) -> PretrainingNetwork:
    """Builds the network with mask vectors and pretraining heads; the network's own params are under `network`."""
    return PretrainingNetwork(model_config, cnn_options, projection)
