"""The names of the authors' released AVBERT (PyTorch): from its tensors to this network's variables and back."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from avshare_jax import sizes
from avshare_jax.interop import workdirs
from avshare_jax.models.transformer import TRANSFORMERS
from avshare_jax.settings import listed

VariablePath = tuple[str, ...]

COPIES = ("single_visual_transformer", "single_audio_transformer", "multi_transformer")
# Tensors that hold no weights of their own, by kind; a name belongs to the first kind that it matches.
IGNORED = {
    "caches of orthogonal matrices": re.compile(r".*_B"),
    "counts of BatchNorm's batches": re.compile(r".*\.num_batches_tracked"),
    "copies of the shared Transformer": re.compile(rf"({'|'.join(COPIES)})\..*"),
    "identities that orthogonal matrices start from": re.compile(r".*_linear\.base"),
}

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
MODULES = {name.partition(".")[0] for name in (*PARTS.values(), *COPIES, LAYER)} | {"visual_conv", "audio_conv"}
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
    "query": "attention.factor_query",
    "key": "attention.factor_key",
    "value": "attention.factor_value",
    "attention_output": "attention.factor_dense",
    "mlp_in": "factor_ffn",
    "mlp_out": "factor_ffn_output",
    "attention_norm": "attention.LayerNorm",
    "output_norm": "full_layer_layer_norm",
}
SHARED = {"u": "s_linear.weight", "bias": "s_linear.bias"}
# One tensor for each Transformer, numbered in the order of TRANSFORMERS["mid"].
PRIVATE = {"v": "ms{}_linear.weight", "a": "orthogonal_ms{}_linear.A"}


def from_torch(
    state_dict: Mapping[str, np.ndarray], *, heads: int = 12, layers: int = 6
) -> tuple[ConfigDict, dict[str, Any]]:
    """Maps the released network's tensors onto `models.build`.

    The kernels and the depths of the CNNs are the paper's; all widths are read off the tensors' shapes.

    Args:
      state_dict: arrays by PyTorch name. `ignored_tensors` tells which of them hold no weights of their own.
      heads: attention heads, which no shape tells.
      layers: how often the shared layer is applied, which no shape tells either.

    Returns:
      The model config, in float32, and `{"params": ..., "batch_stats": ...}` with float32 arrays.

    Raises:
      ValueError: the heads do not divide the width; or naming the first ten tensors, and counting the others, that are
        missing, unknown or of another shape than the others imply, or a `base` that is not the identity, which this
        network takes it to be.
    """
    left_out = {name for names in ignored_tensors(state_dict).values() for name in names}
    tensors = {name: np.asarray(value) for name, value in state_dict.items() if name not in left_out}
    tensors |= {f"{BOS}[{row}]": vector for row, vector in enumerate(np.atleast_1d(tensors.pop(BOS, ())))}

    config = infer_sizes(tensors)
    config.heads, config.layers = heads, layers
    if heads < 1 or config.hidden % heads:
        raise ValueError(
            f"{heads} heads do not divide the hidden width {config.hidden}: "
            "no shape tells their number, so say it (heads=N, on the command line --heads=N)."
        )
    problems, variables = [], {}
    for path, expected in variable_shapes(config).items():
        wanted = split(path, np.broadcast_to(np.float32(0), expected.shape))
        found = {name: tensors.pop(name, None) for name in wanted}
        wrong = [
            f"{name} {wanted[name].shape} is missing"
            if value is None
            else f"{name} has shape {value.shape}, not {wanted[name].shape}"
            for name, value in found.items()
            if value is None or value.shape != wanted[name].shape
        ]
        problems += wrong
        if not wrong:
            variables[path] = join(path, list(found.values())).astype(np.float32)
        problems += check_bases(wanted, state_dict)
    problems += [f"{name} is unknown" for name in tensors]
    if problems:
        raise ValueError("These tensors do not fit the AVBERT network: " + listed(problems, "; ") + ".")
    return config, traverse_util.unflatten_dict(variables)


def common_prefix(names: Iterable[str]) -> str:
    """Returns what wrappers such as `DataParallel` have put before all names, as `module.`; empty where there is none.

    Args:
      names: of all tensors of a file, which in the released network begin with one of several modules.
    """
    prefix = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1 or parts[0] in MODULES:
            break
        prefix.append(parts[0] + ".")
    return "".join(prefix)


def to_torch(model_config: ConfigDict, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Gives a network's weights the released names and layouts, as PyTorch's `load_state_dict(strict=True)` wants them.

    What `from_torch` ignores is there as well: the identities, the copies of the shared Transformer, and for each
    BatchNorm a count of batches, which is 0 because no such number is kept here (with a fixed momentum PyTorch does not
    use it). Left out are caches (`_B`), which a new PyTorch module does not have.

    Args:
      model_config: as for `models.build`; its numbers of heads and layers have no place in the result.
      variables: `params` and `batch_stats` of the network, without pretraining heads.

    Returns:
      float32 arrays by name, and int64 counts; `from_torch` gives back the same variables, bit by bit.

    Raises:
      ValueError: the network differs from the released one in more than its sizes, or the variables do not fit it.
    """
    check_released(model_config)
    flat = traverse_util.flatten_dict(dict(variables))
    expected = {path: leaf.shape for path, leaf in variable_shapes(model_config).items()}
    shapes = {path: np.shape(leaf) for path, leaf in flat.items()}
    if shapes != expected:
        wrong = sorted("/".join(path) for path, _ in shapes.items() ^ expected.items())
        raise ValueError(f"These variables do not fit the model config: {listed(list(dict.fromkeys(wrong)))}.")
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in flat.items():
        tensors |= split(path, np.asarray(leaf, np.float32))
    tensors[BOS] = np.stack([tensors.pop(f"{BOS}[{row}]") for row in range(2)])
    tensors |= {base_name(name): np.eye(len(x), dtype=np.float32) for name, x in tensors.items() if is_angle(name)}
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith(".running_mean")]
    tensors |= {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    shared = {name.removeprefix("transformer"): x for name, x in tensors.items() if name.startswith("transformer.")}
    return tensors | {copy + name: x for copy in COPIES for name, x in shared.items()}


def ignored_tensors(state_dict: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Lists the names that `from_torch` takes no weights from, by kind.

    Copies that are not equal to the tensor they should be a copy of are a kind of their own.
    """
    found: dict[str, list[str]] = {}
    for name, value in state_dict.items():
        kind = next((kind for kind, pattern in IGNORED.items() if pattern.fullmatch(name)), None)
        if kind == "copies of the shared Transformer":
            original = state_dict.get("transformer." + name.partition(".")[2])
            if original is None or not np.array_equal(original, value):
                kind = "under the names of copies of the shared Transformer, but not equal to it"
        if kind is not None:
            found.setdefault(kind, []).append(name)
    return found


def is_angle(name: str) -> bool:
    """Tells whether a released name is that of the A from which an orthogonal matrix is made."""
    return name.endswith("_linear.A")


def base_name(angle_name: str) -> str:
    """Returns the released name of the `base` that belongs to an A."""
    return angle_name.removesuffix("A") + "base"


def check_bases(wanted: Mapping[str, np.ndarray], state_dict: Mapping[str, np.ndarray]) -> list[str]:
    """Says of each A among the wanted tensors (O, O) if its `base` is missing or not the identity."""
    problems = []
    for name, x in wanted.items():
        base = base_name(name)
        if is_angle(name) and base not in state_dict:
            problems.append(f"{base} {x.shape} is missing")
        elif is_angle(name) and not np.array_equal(state_dict[base], np.eye(len(x))):
            problems.append(f"{base} is not the identity of shape {x.shape}")
    return problems


def check_released(model_config: ConfigDict) -> None:
    """Raises `ValueError` where a network differs from the released one in more than its sizes."""
    free = ("visual_cnn.width", "audio_cnn.width")
    free += ("hidden", "mlp", "heads", "layers", "rank", "dropout", "positions", "dtype")
    given, released = (traverse_util.flatten_dict(c.to_dict(), sep=".") for c in (model_config, sizes.base()))
    differences = [
        f"{name} is {given.get(name)} and not {value}"
        for name, value in released.items()
        if name not in free and given.get(name) != value
    ]
    if given["rank"] is None:
        differences.append("its weights are not factorized (rank is None)")
    if differences:
        raise ValueError(
            "Only a network that differs from the released one in nothing but sizes can be given its names; "
            f"of this one, {listed(differences, '; ')}."
        )


def infer_sizes(tensors: Mapping[str, np.ndarray]) -> ConfigDict:
    """Reads the widths off the tensors' first axes: what most of a few say, so that one wrong tensor does no harm.

    Where all of them are missing, the paper's width stays.
    """

    def length(default: int, *names: str) -> int:
        found = [len(tensors[name]) for name in names if name in tensors and tensors[name].ndim]
        return statistics.mode(found) if found else default

    norm = ("weight", "bias", "running_mean", "running_var")
    config = sizes.base()
    config.dtype = "float32"
    config.visual_cnn.width = length(
        config.visual_cnn.width, *(f"visual_conv.s1.pathway0_stem.bn.{leaf}" for leaf in norm)
    )
    config.audio_cnn.width = length(config.audio_cnn.width, *(f"audio_conv.s1.stem.bn1.{leaf}" for leaf in norm))
    config.hidden = length(
        config.hidden,
        *(f"{part}.{leaf}" for part in ("visual_fc", "visual_norm", "audio_fc", "audio_norm") for leaf in norm[:2]),
    )
    config.mlp = length(config.mlp, *(f"{LAYER}.factor_ffn.s_linear.{leaf}" for leaf in norm[:2]))
    angles = (f"{LAYER}.attention.factor_query.{PRIVATE['a'].format(index)}" for index in range(3))
    config.rank = length(config.rank, *angles)
    embeddings = (f"{PARTS[f'{name}_embedding']}.{EMBEDDINGS['position']}" for name in TRANSFORMERS["mid"])
    config.positions = length(config.positions, *embeddings)
    return config


def variable_shapes(model_config: ConfigDict) -> dict[VariablePath, jax.ShapeDtypeStruct]:
    """Returns the shape of each of the network's variables by path, computing nothing."""
    return traverse_util.flatten_dict(workdirs.abstract_network(model_config))


def split(path: VariablePath, variable: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the released tensors, by name, that a variable holds: one, or one for each Transformer."""
    # The Transformers' variables are stacked on (layers, Transformers), and in the released network all layers are one.
    parts = variable[0] if path[1] == "transformer" else variable[None]
    axes = np.argsort(torch_axes(path, parts.ndim - 1))
    return {torch_name(path, index): part.transpose(axes) for index, part in enumerate(parts)}


def join(path: VariablePath, tensors: Sequence[np.ndarray]) -> np.ndarray:
    """Makes a variable of its released tensors; undoes `split`."""
    stack = np.stack([tensor.transpose(torch_axes(path, tensor.ndim)) for tensor in tensors])
    return stack[None] if path[1] == "transformer" else stack[0]


def torch_name(path: VariablePath, transformer: int) -> str:
    """Returns the released network's name of the variable at a path such as `("params", "audio_norm", "scale")`.

    Args:
      path: of the variable.
      transformer: the number of the Transformer, where each has a tensor of its own.
    """
    part, leaf = path[1], path[-1]
    if part in ("visual_cnn", "audio_cnn"):
        return f"{cnn_module(part, path[2:])}.{LEAVES[leaf]}"
    if part == "transformer":
        names = LEAVES if path[2].endswith("_norm") else SHARED | PRIVATE
        return f"{LAYER}.{TRANSFORMER_MODULES[path[2]]}.{names[leaf].format(transformer)}"
    if part.endswith("_embedding"):
        return f"{PARTS[part]}.{EMBEDDINGS.get(leaf) or 'LayerNorm.' + LEAVES[leaf]}"
    return PARTS[part] if leaf == part else f"{PARTS[part]}.{LEAVES[leaf]}"


def cnn_module(cnn: str, path: VariablePath) -> str:
    """Returns the released name of a CNN's convolution or BatchNorm, for example `("stage1_block1", "a", "kernel")`."""
    root, prefix = ("visual_conv", "pathway0_") if cnn == "visual_cnn" else ("audio_conv", "")
    if path[0] in STEMS:
        return f"{root}.s1.{prefix}stem.{STEMS[path[0]]}"
    stage, block = map(int, re.fullmatch(r"stage(\d+)_block(\d+)", path[0]).groups())
    convolution = path[1].removesuffix("_norm")
    module = CONVOLUTIONS[convolution] + ("_bn" if path[1] != convolution else "")
    return f"{root}.s{stage + 1}.{prefix}res{block - 1}.{module}"


def torch_axes(path: VariablePath, rank: int) -> tuple[int, ...]:
    """Returns the axes that transpose a released tensor into the variable at a path.

    PyTorch's weights are (out, in, *kernel), with frequency before time in the audio CNN; here they are (*kernel, in,
    out), with time before frequency.
    """
    if path[-1] in ("kernel", "u", "v"):
        return (2, 3, 4, 1, 0) if rank == 5 else tuple(reversed(range(rank)))
    return tuple(range(rank))
