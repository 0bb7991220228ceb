"""Reads the weights of the authors' released AVBERT (PyTorch) into this network."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.models import sizes
from avshare_jax.models.transformer import TRANSFORMERS

Path = tuple[str, ...]

# Buffers without meaning here, and the shared Transformer listed once more under each Transformer that uses it.
IGNORED = re.compile(r".*(_B|num_batches_tracked)|(single_visual|single_audio|multi)_transformer\..*")

BOS = "summary_encoding.bos_embeddings.weight"
LAYER = "transformer.encoder.albert_layer_groups.0.albert_layers.0"
PARTS = {
    "visual_projection": "visual_fc",
    "visual_norm": "visual_norm",
    "audio_projection": "audio_fc",
    "audio_norm": "audio_norm",
    "visual_bos": f"{BOS}[0]",
    "audio_bos": f"{BOS}[1]",
    "visual_embedding": "single_visual_embeddings",
    "audio_embedding": "single_audio_embeddings",
    "multimodal_embedding": "multi_embeddings",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
EMBEDDINGS = {"position": "position_embeddings.weight", "modality": "token_type_embeddings.weight"}
STEMS = {
    "stem": "conv",
    "stem_norm": "bn",
    "stem_frequency": "conv1",
    "stem_frequency_norm": "bn1",
    "stem_time": "conv2",
    "stem_time_norm": "bn2",
}
CONVOLUTIONS = {
    "a": "branch2.a",
    "b": "branch2.b",
    "b_frequency": "branch2.b1",
    "b_time": "branch2.b2",
    "c": "branch2.c",
    "shortcut": "branch1",
}
TRANSFORMER_MODULES = {
    "linear_query": "attention.factor_query",
    "linear_key": "attention.factor_key",
    "linear_value": "attention.factor_value",
    "linear_attention_output": "attention.factor_dense",
    "linear_mlp_in": "factor_ffn",
    "linear_mlp_out": "factor_ffn_output",
    "attention_norm": "attention.LayerNorm",
    "output_norm": "full_layer_layer_norm",
}
FACTORS = {"shared_u": "s_linear.weight", "shared_bias": "s_linear.bias"}
for _index, _name in enumerate(TRANSFORMERS):
    FACTORS[f"private_v_{_name}"] = f"ms{_index}_linear.weight"
    FACTORS[f"private_a_{_name}"] = f"orthogonal_ms{_index}_linear.A"


def from_torch(
    state_dict: Mapping[str, np.ndarray], *, heads: int = 12, layers: int = 6
) -> tuple[ConfigDict, dict[str, Any]]:
    """Maps the released network's tensors onto `models.build`.

    The kernels and the depths of the CNNs are the paper's; all widths are read off the tensors' shapes.

    Args:
      state_dict: arrays by PyTorch name. Left out: names that end in `_B` or `num_batches_tracked`, and the copies of
        the shared Transformer under `single_visual_transformer.`, `single_audio_transformer.`, `multi_transformer.`.
      heads: attention heads, which no shape tells.
      layers: how often the shared layer is applied, which no shape tells either.

    Returns:
      The model config, in float32, and `{"params": ..., "batch_stats": ...}` with float32 arrays.

    Raises:
      ValueError: naming every tensor that is missing, unknown or of another shape than the others imply, and every
        `base` of an orthogonal matrix that is not the identity, which this network takes it to be.
    """
    tensors = {name: np.asarray(value) for name, value in state_dict.items() if not IGNORED.fullmatch(name)}
    bases = {name: tensors.pop(name) for name in list(tensors) if name.endswith("_linear.base")}
    problems = [f"{name} is not the identity" for name, base in bases.items() if not is_identity(base)]
    tensors |= {f"{BOS}[{row}]": vector for row, vector in enumerate(tensors.pop(BOS, ()))}

    config = infer_sizes(tensors)
    config.heads, config.layers = heads, layers
    if config.hidden % heads:
        raise ValueError(f"{heads} heads do not divide the hidden width {config.hidden}.")
    variables = {}
    for path, expected in variable_shapes(config).items():
        name, axes = torch_name(path), torch_axes(path, len(expected.shape))
        shape = tuple(expected.shape[axes.index(axis)] for axis in range(len(axes)))
        value = tensors.pop(name, None)
        if value is None:
            problems.append(f"{name} {shape} is missing")
        elif value.shape != shape:
            problems.append(f"{name} has shape {value.shape}, not {shape}")
        else:
            variables[path] = value.transpose(axes).astype(np.float32)
    problems += [f"{name} is unknown" for name in tensors]
    if problems:
        raise ValueError("These tensors do not fit the AVBERT network: " + "; ".join(problems) + ".")
    return config, traverse_util.unflatten_dict(variables)


def is_identity(matrix: np.ndarray) -> bool:
    """Tells whether an array is an identity matrix."""
    return matrix.ndim == 2 and np.array_equal(matrix, np.eye(len(matrix)))


def infer_sizes(tensors: Mapping[str, np.ndarray]) -> ConfigDict:
    """Reads the widths off one tensor each; where it is missing, the paper's width stays."""

    def length(name: str, default: int) -> int:
        return len(tensors[name]) if name in tensors and tensors[name].ndim else default

    config = sizes.base()
    config.dtype = "float32"
    config.visual_cnn.width = length("visual_conv.s1.pathway0_stem.bn.bias", config.visual_cnn.width)
    config.audio_cnn.width = length("audio_conv.s1.stem.bn1.bias", config.audio_cnn.width)
    config.hidden = length("visual_fc.bias", config.hidden)
    config.mlp = length(f"{LAYER}.factor_ffn.s_linear.bias", config.mlp)
    config.rank = length(f"{LAYER}.attention.factor_query.orthogonal_ms0_linear.A", config.rank)
    config.positions = length("single_visual_embeddings.position_embeddings.weight", config.positions)
    return config


def variable_shapes(config: ConfigDict) -> dict[Path, jax.ShapeDtypeStruct]:
    """Returns the shape of each of the network's variables by path, computing nothing."""
    batch = {"frames": np.zeros((1, 1, 2, 32, 32, 3), np.float32), "log_mel": np.zeros((1, 1, 16, 16), np.float32)}
    model = models.build(config)
    return traverse_util.flatten_dict(jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False)))


def torch_name(path: Path) -> str:
    """Returns the released network's name of the variable at a path such as `("params", "audio_norm", "scale")`."""
    part, leaf = path[1], path[-1]
    if part in ("visual_cnn", "audio_cnn"):
        return f"{cnn_module(part, path[2:])}.{LEAVES[leaf]}"
    if part == "transformer":
        return f"{LAYER}.{TRANSFORMER_MODULES[path[2]]}.{(FACTORS | LEAVES)[leaf]}"
    if part.endswith("_embedding"):
        return f"{PARTS[part]}.{EMBEDDINGS.get(leaf) or 'LayerNorm.' + LEAVES[leaf]}"
    return PARTS[part] if leaf == part else f"{PARTS[part]}.{LEAVES[leaf]}"


def cnn_module(cnn: str, path: Path) -> str:
    """Returns the released name of a CNN's convolution or BatchNorm, for example `("stage1_block1", "a", "kernel")`."""
    root, prefix = ("visual_conv", "pathway0_") if cnn == "visual_cnn" else ("audio_conv", "")
    if path[0] in STEMS:
        return f"{root}.s1.{prefix}stem.{STEMS[path[0]]}"
    stage, block = map(int, re.fullmatch(r"stage(\d+)_block(\d+)", path[0]).groups())
    convolution = path[1].removesuffix("_norm")
    module = CONVOLUTIONS[convolution] + ("_bn" if path[1] != convolution else "")
    return f"{root}.s{stage + 1}.{prefix}res{block - 1}.{module}"


def torch_axes(path: Path, rank: int) -> tuple[int, ...]:
    """Returns the axes that transpose a released tensor into the variable at a path.

    PyTorch's weights are (out, in, *kernel), with frequency before time in the audio CNN; here they are (*kernel, in,
    out), with time before frequency.
    """
    if path[-1] in ("kernel", "shared_u") or path[-1].startswith("private_v"):
        return (2, 3, 4, 1, 0) if rank == 5 else tuple(reversed(range(rank)))
    return tuple(range(rank))
