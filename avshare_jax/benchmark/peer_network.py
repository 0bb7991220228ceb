"""The released network once more, in PyTorch, to measure ours against: same layers, same parameter names.

It is written as one would write it in PyTorch today and shares no code with `avshare_jax.models`. It takes clips in
PyTorch's layouts, channels before axes and frequency before time.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional

TRANSFORMERS = ("visual", "audio", "multimodal")
COPIES = ("single_visual_transformer", "single_audio_transformer", "multi_transformer")
LAYER_NORM_EPSILON = 1e-12


class Folded(NamedTuple):
    """A factorized weight of one Transformer, with Σ multiplied into U.

    Attributes:
      down: (O, N), V^T.
      up: (M, O), U Σ as PyTorch's row vectors want it.
      bias: (M,).
    """

    down: Tensor
    up: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (..., N) to (..., M)."""
        hidden = functional.normalize(functional.linear(x, self.down), dim=-1, eps=1e-12)
        return functional.linear(hidden, self.up, self.bias)


class PeerNetwork(nn.Module):
    """CNNs, factorized Transformers shared by all layers, and fusion in the middle.

    A state dict of `interop.released_names.to_torch` loads strictly.
    """

    def __init__(self, config: ConfigDict):
        """Makes the network of a model config of the released kind; all weights are PyTorch's initial ones."""
        super().__init__()
        visual, audio, hidden = config.visual_cnn, config.audio_cnn, config.hidden
        self.dropout = config.dropout
        self.visual_conv = visual_cnn(visual)
        self.audio_conv = audio_cnn(audio)
        self.visual_fc = nn.Linear(visual.width * 4 * 2 ** (len(visual.stage_sizes) - 1), hidden)
        self.visual_norm = nn.LayerNorm(hidden, LAYER_NORM_EPSILON)
        self.audio_fc = nn.Linear(audio.width * 4 * 2 ** (len(audio.stage_sizes) - 1), hidden)
        self.audio_norm = nn.LayerNorm(hidden, LAYER_NORM_EPSILON)
        self.summary_encoding = nn.ModuleDict({"bos_embeddings": nn.Embedding(2, hidden)})
        self.single_visual_embeddings = TokenEmbedding(config.positions, 0, hidden, config.dropout)
        self.single_audio_embeddings = TokenEmbedding(config.positions, 0, hidden, config.dropout)
        self.multi_embeddings = TokenEmbedding(config.positions, 2, hidden, config.dropout)
        self.transformer = SharedTransformer(config)
        for name in COPIES:
            self.add_module(name, self.transformer)

    def forward(self, visual: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Encodes normalized frames (B, S, 3, T, H, W) and spectrograms (B, S, 1, mels, time).

        Returns `visual_tokens` and `audio_tokens` (B, S + 1, D), and `multimodal_tokens` (B, 2 (S + 1), D).
        """
        videos, clips = visual.shape[:2]
        bos = self.summary_encoding["bos_embeddings"].weight

        def tokens(features: Tensor, projection: nn.Linear, norm: nn.LayerNorm, first: Tensor) -> Tensor:
            embedded = norm(projection(features)).reshape(videos, clips, -1)
            return torch.cat([first.to(embedded.dtype).expand(videos, 1, -1), embedded], dim=1)

        seen = self.visual_conv(visual.flatten(0, 1)).mean((2, 3, 4))
        heard = self.audio_conv(audio.flatten(0, 1)).mean((2, 3))
        seen = self.single_visual_embeddings(tokens(seen, self.visual_fc, self.visual_norm, bos[0]))
        heard = self.single_audio_embeddings(tokens(heard, self.audio_fc, self.audio_norm, bos[1]))

        weights = self.transformer.fold()
        seen = self.transformer(seen, weights["visual"])
        heard = self.transformer(heard, weights["audio"])
        both = self.transformer(self.multi_embeddings(seen, heard), weights["multimodal"])
        return {"visual_tokens": seen, "audio_tokens": heard, "multimodal_tokens": both}


def visual_cnn(config: ConfigDict) -> nn.Sequential:
    """The 3D ResNet; maps (N, 3, T, H, W) to feature maps."""
    width, kernel = config.width, tuple(config.stem_kernel)
    stem = nn.Sequential(
        OrderedDict(
            conv=nn.Conv3d(3, width, kernel, tuple(config.stem_strides), [size // 2 for size in kernel], bias=False),
            bn=nn.BatchNorm3d(width),
            relu=nn.ReLU(inplace=True),
            pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
    )
    stages, inputs = OrderedDict(s1=nn.Sequential(OrderedDict(pathway0_stem=stem))), width
    for number, (blocks, temporal_kernel) in enumerate(zip(config.stage_sizes, config.temporal_kernels, strict=True)):
        inner, stage = width * 2**number, OrderedDict()
        for block in range(blocks):
            stride = 2 if number and not block else 1
            stage[f"pathway0_res{block}"] = visual_bottleneck(inputs, inner, temporal_kernel, stride)
            inputs = 4 * inner
        stages[f"s{number + 2}"] = nn.Sequential(stage)
    return nn.Sequential(stages)


def audio_cnn(config: ConfigDict) -> nn.Sequential:
    """The 2D ResNet; maps (N, 1, mels, time) to feature maps."""
    width, size = config.width, config.stem_kernel
    stem = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, width, (size, 1), padding=(size // 2, 0), bias=False),
            bn1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(width, width, (1, size), padding=(0, size // 2), bias=False),
            bn2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(inplace=True),
        )
    )
    stages, inputs = OrderedDict(s1=nn.Sequential(OrderedDict(stem=stem))), width
    for number, blocks in enumerate(config.stage_sizes):
        inner, stage = width * 2**number, OrderedDict()
        for block in range(blocks):
            separable = number < config.separable_stages
            stage[f"res{block}"] = audio_bottleneck(inputs, inner, 1 if block else 2, separable)
            inputs = 4 * inner
        stages[f"s{number + 2}"] = nn.Sequential(stage)
    return nn.Sequential(stages)


class Bottleneck(nn.Module):
    """A residual block; `branch1` is its projection shortcut, where the shape changes."""

    def __init__(self, branch2: nn.Sequential, shortcut: nn.Module | None, norm: nn.Module | None):
        """Takes the branch, and the shortcut's convolution and BatchNorm, or None for the identity."""
        super().__init__()
        self.branch1, self.branch1_bn, self.branch2 = shortcut, norm, branch2

    def forward(self, x: Tensor) -> Tensor:
        """Adds branch and shortcut."""
        shortcut = x if self.branch1 is None else self.branch1_bn(self.branch1(x))
        return functional.relu(shortcut + self.branch2(x), inplace=True)


def visual_bottleneck(inputs: int, inner: int, temporal_kernel: int, stride: int) -> Bottleneck:
    """(temporal, 1, 1), then (1, 3, 3) with the stride, then (1, 1, 1)."""
    strides = (1, stride, stride)
    kernel, padding = (temporal_kernel, 1, 1), (temporal_kernel // 2, 0, 0)
    branch = OrderedDict(
        a=nn.Conv3d(inputs, inner, kernel, padding=padding, bias=False),
        a_bn=nn.BatchNorm3d(inner),
        a_relu=nn.ReLU(inplace=True),
        b=nn.Conv3d(inner, inner, (1, 3, 3), strides, (0, 1, 1), bias=False),
        b_bn=nn.BatchNorm3d(inner),
        b_relu=nn.ReLU(inplace=True),
        c=nn.Conv3d(inner, 4 * inner, 1, bias=False),
        c_bn=nn.BatchNorm3d(4 * inner),
    )
    if stride == 1 and inputs == 4 * inner:
        return Bottleneck(nn.Sequential(branch), None, None)
    shortcut = nn.Conv3d(inputs, 4 * inner, 1, strides, bias=False)
    return Bottleneck(nn.Sequential(branch), shortcut, nn.BatchNorm3d(4 * inner))


def audio_bottleneck(inputs: int, inner: int, stride: int, separable: bool) -> Bottleneck:
    """1 x 1, then 3 x 3 with the stride, which is split into frequency and time if `separable`, then 1 x 1."""
    branch = OrderedDict(
        a=nn.Conv2d(inputs, inner, 1, bias=False), a_bn=nn.BatchNorm2d(inner), a_relu=nn.ReLU(inplace=True)
    )
    if separable:
        branch |= OrderedDict(
            b1=nn.Conv2d(inner, inner, (3, 1), (stride, 1), (1, 0), bias=False),
            b1_bn=nn.BatchNorm2d(inner),
            b1_relu=nn.ReLU(inplace=True),
            b2=nn.Conv2d(inner, inner, (1, 3), (1, stride), (0, 1), bias=False),
            b2_bn=nn.BatchNorm2d(inner),
            b2_relu=nn.ReLU(inplace=True),
        )
    else:
        branch |= OrderedDict(
            b=nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            b_bn=nn.BatchNorm2d(inner),
            b_relu=nn.ReLU(inplace=True),
        )
    branch |= OrderedDict(c=nn.Conv2d(inner, 4 * inner, 1, bias=False), c_bn=nn.BatchNorm2d(4 * inner))
    if stride == 1 and inputs == 4 * inner:
        return Bottleneck(nn.Sequential(branch), None, None)
    shortcut = nn.Conv2d(inputs, 4 * inner, 1, stride, bias=False)
    return Bottleneck(nn.Sequential(branch), shortcut, nn.BatchNorm2d(4 * inner))


class TokenEmbedding(nn.Module):
    """Adds position (and modality) embeddings, then LayerNorm and dropout; positions restart in each modality."""

    def __init__(self, positions: int, modalities: int, hidden: int, dropout: float):
        """Makes tables of so many rows; 0 modalities: none are told apart."""
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, hidden)
        self.token_type_embeddings = nn.Embedding(modalities, hidden) if modalities else None
        self.LayerNorm = nn.LayerNorm(hidden, LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, *sequences: Tensor) -> Tensor:
        """Embeds one (B, S + 1, D) tensor per modality and concatenates them along the tokens."""
        embedded = [tokens + self.position_embeddings.weight[: tokens.shape[1]] for tokens in sequences]
        if self.token_type_embeddings is not None:
            embedded = [x + row for x, row in zip(embedded, self.token_type_embeddings.weight, strict=True)]
        return self.dropout(self.LayerNorm(torch.cat(embedded, dim=1)))


class FactorizedLinear(nn.Module):
    """W = U Σ V^T: U and bias for all Transformers, Σ and V for each."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        """Makes the factors of an N -> M map of that rank."""
        super().__init__()
        self.s_linear = nn.Linear(rank, outputs)
        for number in range(len(TRANSFORMERS)):
            self.add_module(f"ms{number}_linear", nn.Linear(inputs, rank, bias=False))
            self.add_module(f"orthogonal_ms{number}_linear", Orthogonal(rank))

    def angles(self) -> Tensor:
        """The A of each Transformer, (3, O, O)."""
        return torch.stack([self.get_submodule(f"orthogonal_ms{number}_linear").A for number in range(3)])

    def fold(self, sigmas: Tensor) -> list[Folded]:
        """The weights of each Transformer, for its Σ in (3, O, O)."""
        downs = [self.get_submodule(f"ms{number}_linear").weight for number in range(3)]
        ups = self.s_linear.weight @ sigmas.mT
        return [Folded(down, up, self.s_linear.bias) for down, up in zip(downs, ups, strict=True)]


class Orthogonal(nn.Module):
    """Holds A of an orthogonal matrix. `base` is the identity that it starts from, here for its name alone."""

    def __init__(self, rank: int):
        """Makes an A of zeros, for the identity."""
        super().__init__()
        self.A = nn.Parameter(torch.zeros(rank, rank))
        self.register_buffer("base", torch.eye(rank))


class SharedTransformer(nn.Module):
    """One layer that every layer of every Transformer is; it lies where ALBERT keeps its only layer."""

    def __init__(self, config: ConfigDict):
        """Makes the layer by `hidden`, `mlp`, `heads`, `layers`, `rank` and `dropout`."""
        super().__init__()
        hidden, mlp, rank = config.hidden, config.mlp, config.rank
        self.heads, self.layers, self.dropout = config.heads, config.layers, config.dropout
        attention = {f"factor_{name}": FactorizedLinear(hidden, hidden, rank) for name in ATTENTION}
        layer = nn.ModuleDict(
            {
                "attention": nn.ModuleDict(attention | {"LayerNorm": nn.LayerNorm(hidden, LAYER_NORM_EPSILON)}),
                "factor_ffn": FactorizedLinear(hidden, mlp, rank),
                "factor_ffn_output": FactorizedLinear(mlp, hidden, rank),
                "full_layer_layer_norm": nn.LayerNorm(hidden, LAYER_NORM_EPSILON),
            }
        )
        group = nn.ModuleDict({"albert_layers": nn.ModuleList([layer])})
        self.encoder = nn.ModuleDict({"albert_layer_groups": nn.ModuleList([group])})

    @property
    def layer(self) -> nn.ModuleDict:
        """The only layer."""
        return self.encoder["albert_layer_groups"][0]["albert_layers"][0]

    def fold(self) -> dict[str, dict[str, Folded]]:
        """The six weights by name for each Transformer by name, all Σ made together, in float32."""
        attention = self.layer["attention"]
        linears = {name: attention[f"factor_{name}"] for name in ATTENTION}
        linears |= {"ffn": self.layer["factor_ffn"], "ffn_output": self.layer["factor_ffn_output"]}
        with torch.autocast(attention["LayerNorm"].weight.device.type, enabled=False):
            upper = torch.stack([linear.angles() for linear in linears.values()]).triu(1)
            sigmas = torch.matrix_exp(upper - upper.mT)
            folded = {name: linear.fold(sigma) for (name, linear), sigma in zip(linears.items(), sigmas, strict=True)}
        return {
            transformer: {name: weights[number] for name, weights in folded.items()}
            for number, transformer in enumerate(TRANSFORMERS)
        }

    def forward(self, tokens: Tensor, weights: dict[str, Folded]) -> Tensor:
        """Encodes (B, N, D) with the weights of one Transformer."""
        rate = self.dropout if self.training else 0.0

        def split_heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        for _ in range(self.layers):
            query, key, value = (split_heads(weights[name](tokens)) for name in ATTENTION[:3])
            attended = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate)
            attended = weights["dense"](attended.transpose(1, 2).flatten(2))
            attended = functional.dropout(attended, self.dropout, self.training)
            tokens = self.layer["attention"]["LayerNorm"](tokens + attended)
            mlp = weights["ffn_output"](functional.gelu(weights["ffn"](tokens)))
            tokens = self.layer["full_layer_layer_norm"](tokens + mlp)
        return tokens


ATTENTION = ("query", "key", "value", "dense")
