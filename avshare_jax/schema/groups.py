"""Groups of fields that several kinds of config have: data, augmentation, network, memory, devices."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from avshare_jax.schema.base import (
    LARGEST_INT64,
    AsTuple,
    Count,
    FrameRate,
    Group,
    Positive,
    Share,
    ShortSide,
    Size,
    Text,
    Weight,
    WindowLength,
    Workers,
)

Axis = Literal["data", "fsdp", "clip"]
Axes = Annotated[tuple[Axis, ...], AsTuple]
AxisSize = Annotated[int, Field(ge=-1, le=2**20)]
Sharing = Literal["none", "all", "factorized"]
Kernel = Annotated[int, Field(ge=1, le=255)]
Space = Annotated[tuple[Kernel, ...], AsTuple, Field(min_length=3, max_length=3)]
Blocks = Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], AsTuple, Field(min_length=1, max_length=10)]
Width = Annotated[int, Field(ge=1, le=2**14)]


def _odd(kernel: int) -> int:
    # Padded by half of itself on each side, an even one makes clips longer, and they no longer fit their shortcut.
    if kernel % 2 == 0:
        raise PydanticCustomError("even", "an odd number")
    return kernel


class FrontEnd(Group):
    """What the data set must have been prepared with; see `avshare_jax.data.frontend.FrontEnd`."""

    fps: FrameRate
    short_side: ShortSide
    sample_rate: Size
    n_fft: Size
    win_length: WindowLength = 0
    hop_length: Size
    mels: Size

    def broken_rules(self) -> Iterator[str]:
        """The window has to fit into the spectrum."""
        if self.win_length > self.n_fft:
            yield (
                f"config.data.frontend.win_length={self.win_length} must be at most "
                f"config.data.frontend.n_fft={self.n_fft}, or 0 for as long."
            )


class Data(Group):
    """Which data sets a run reads, and how clips are cut from their records."""

    name: Text
    data_dir: Text
    weights: Annotated[tuple[Positive, ...], AsTuple] = ()
    train_split: Text
    eval_split: Text
    frontend: FrontEnd
    keep_incomplete: bool = False
    max_unreadable_share: Share = 0.01
    num_clips: Size
    frames_per_clip: Size
    frame_stride: Size
    mel_frames: Size
    min_short_side: Size
    max_short_side: Size
    crop: Size
    num_workers: Workers
    prefetch: Annotated[int, Field(ge=0, le=4096)]

    def broken_rules(self) -> Iterator[str]:
        """Crops lie inside frames, and each data set has its weight."""
        if not self.crop <= self.min_short_side <= self.max_short_side:
            yield (
                f"config.data.crop={self.crop} must be at most config.data.min_short_side={self.min_short_side}, and "
                f"that at most config.data.max_short_side={self.max_short_side}."
            )
        names = self.name.split("+") if self.name else []
        if len(set(names)) < len(names):
            yield f"config.data.name={self.name!r} names a data set twice: use config.data.weights."
        if self.weights and names and len(self.weights) != len(names):
            yield (
                f"config.data.weights={self.weights} must have one number for each of the {len(names)} data sets in "
                f"config.data.name={self.name!r}, or none for shares in proportion to their numbers of videos."
            )


class Augment(Group):
    """Augmentation of the batches."""

    flip: Share
    frequency_mask: Share
    time_mask: Share
    modality_dropout: Share = 0.0


class VisualCNN(Group):
    """Sizes of the visual CNN."""

    width: Width
    stage_sizes: Blocks
    temporal_kernels: Annotated[tuple[Annotated[Kernel, AfterValidator(_odd)], ...], AsTuple]
    stem_kernel: Space
    stem_strides: Space

    def broken_rules(self) -> Iterator[str]:
        """Each stage has its temporal kernel."""
        if len(self.stage_sizes) != len(self.temporal_kernels):
            yield (
                f"config.model.visual_cnn.stage_sizes={self.stage_sizes} and config.model.visual_cnn.temporal_kernels="
                f"{self.temporal_kernels} must be as many numbers: one for each stage."
            )


class AudioCNN(Group):
    """Sizes of the audio CNN; without stages, it is its stem."""

    width: Width
    stage_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], AsTuple, Field(max_length=10)]
    separable_stages: Annotated[int, Field(ge=0, le=10)]
    stem_kernel: Kernel


class Model(Group):
    """Sizes of the network, and what its Transformers share."""

    visual_cnn: VisualCNN
    audio_cnn: AudioCNN
    hidden: Size
    mlp: Size
    heads: Size
    layers: Annotated[int, Field(ge=1, le=1000)]
    rank: Size | None
    fusion: Literal["early", "mid", "late"] = "mid"
    layer_sharing: Sharing = "all"
    transformer_sharing: Sharing = "factorized"
    orthogonal_map: Literal["expm", "cayley"] = "expm"
    dropout: Annotated[float, Field(ge=0, lt=1)]
    positions: Size
    dtype: Literal["float32", "bfloat16"]

    def broken_rules(self) -> Iterator[str]:
        """Heads divide the width, and what has no factors shares none."""
        if self.hidden % self.heads:
            yield f"config.model.heads={self.heads} must divide config.model.hidden={self.hidden}."
        if self.rank is None and "factorized" in (self.layer_sharing, self.transformer_sharing):
            yield (
                "config.model.rank=None leaves no factors to share: set config.model.layer_sharing and "
                "config.model.transformer_sharing to none or all."
            )


class Optimizer(Group):
    """What both optimizers have."""

    learning_rate: Weight
    warmup_fraction: Share
    decay: Literal["linear", "cosine"] = "linear"
    b1: Annotated[float, Field(ge=0, lt=1)]
    b2: Annotated[float, Field(ge=0, lt=1)]
    eps: Positive
    weight_decay: Weight


class Memory(Group):
    """What memory a step takes; docs/sharding.md."""

    remat: Literal["none", "convolutions", "blocks", "stages"] = "none"
    clip_chunks: Count = 1
    accumulation_steps: Count = 1


class Mesh(Group):
    """Sizes of the mesh's axes."""

    data: AxisSize
    fsdp: AxisSize = 1
    clip: AxisSize = 1

    def broken_rules(self) -> Iterator[str]:
        """An axis has devices, and at most one takes what is left."""
        sizes = {name: getattr(self, name) for name in type(self).model_fields}
        if 0 in sizes.values():
            yield f"config.mesh={sizes} must have no 0: an axis has at least 1 device, or -1 for those that are left."
        if list(sizes.values()).count(-1) > 1:
            yield f"config.mesh={sizes} must have at most one -1, for the devices that are left."


class Sharding(Group):
    """What is split over which axes of the mesh; docs/sharding.md."""

    batch: Axes = ("data", "fsdp")
    clip: Axes = ("clip",)
    parameters: Annotated[tuple[Annotated[tuple[str, Axes], AsTuple], ...], AsTuple] = ()
    smallest: Annotated[int, Field(ge=0, le=LARGEST_INT64)] = 16_384

    def broken_rules(self) -> Iterator[str]:
        """Each axis splits an array once, and patterns are regular expressions."""
        if both := set(self.batch) & set(self.clip):
            yield f"config.sharding splits both batch and clip over {', '.join(sorted(both))}: use each axis once."
        for name, axes in (("batch", self.batch), ("clip", self.clip), *self.parameters):
            if len(set(axes)) < len(axes):
                yield f"config.sharding splits {name!r} over {axes}: use each axis once."
        for pattern, _ in self.parameters:
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"config.sharding.parameters has {pattern!r}, which is no regular expression: {error}."
