"""Configs of training runs: what all have, and what pretraining and classification add."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from avshare_jax.schema.base import AsTuple, Count, Group, Pool, Seconds, Seed, Share, Size, Text, Views, Weight
from avshare_jax.schema.groups import Augment, Data, Memory, Mesh, Model, Optimizer, Sharding, Width

Modality = Literal["visual", "audio"]
# `avshare_jax.models.AVBert` has these parts, and "network" stands for all.
Part = Literal[
    "network",
    *("visual_cnn", "audio_cnn", "visual_projection", "audio_projection", "visual_norm", "audio_norm"),
    *("visual_bos", "audio_bos", "visual_embedding", "audio_embedding", "multimodal_embedding", "transformer"),
]


class Run(Group):
    """What every training run has."""

    name: Text
    seed: Seed
    batch_size: Size
    data: Data
    augment: Augment
    model: Model
    norm_groups: Count = 1
    memory: Memory = Memory()
    mesh: Mesh
    sharding: Sharding = Sharding()
    log_every: Count
    checkpoint_every: Count
    checkpoints_kept: Count
    max_nonfinite_steps: Count
    peer_timeout_seconds: Seconds = 100

    @property
    def videos_at_a_time(self) -> int:
        """Videos of a batch that meet in a step: those of different accumulation steps never do."""
        return self.batch_size // self.memory.accumulation_steps

    @property
    def batch_in_parts(self) -> str:
        """How sentences write that number."""
        parts = self.memory.accumulation_steps
        divided = f" / config.memory.accumulation_steps={parts}" if parts > 1 else ""
        return f"config.batch_size={self.batch_size}{divided}"

    def broken_rules(self) -> Iterator[str]:
        """Batch and clips divide into the parts that they are taken in."""
        steps, chunks = self.memory.accumulation_steps, self.memory.clip_chunks
        if self.batch_size % steps:
            yield f"config.memory.accumulation_steps={steps} must divide config.batch_size={self.batch_size}."
        elif self.videos_at_a_time % self.norm_groups:
            yield (
                f"config.norm_groups={self.norm_groups} must divide the {self.videos_at_a_time} videos that BatchNorm "
                f"sees at a time ({self.batch_in_parts})."
            )
        if self.data.num_clips % chunks:
            yield f"config.memory.clip_chunks={chunks} must divide config.data.num_clips={self.data.num_clips}."


class Demo(Group):
    """The demo's generated videos."""

    videos_dir: Text
    num_train: Count
    num_test: Count
    seed: Seed


class Objectives(Group):
    """Masked embedding prediction, correct pair prediction, and the options on clips beside them."""

    mask_fraction: Share
    num_negatives: Size
    negative_sampling: Literal["similar", "dissimilar", "uniform", "current_sequence"]
    negative_groups: Count = 1
    masked_weight: Weight = 1.0
    multimodal_weight: Weight
    pair_weight: Weight
    contrast_weight: Weight = 0.0
    contrast_unit: Literal["clips", "videos"] = "clips"
    contrast_same_video: Weight = 0.0
    within_weight: Weight = 0.0
    variance_weight: Weight = 0.0
    covariance_weight: Weight = 0.0
    sigreg_weight: Weight = 0.0
    sigreg_slices: Size = 256
    projector_hidden: Width = 512
    projector_width: Width = 128


class PretrainingOptimizer(Optimizer):
    """AMSGrad with decoupled weight decay."""

    grad_clip: Annotated[float, Field(gt=0, allow_inf_nan=True)]


class Pretraining(Run):
    """Configs of `configs/pretrain.py`."""

    may_lack: ClassVar[tuple[str, ...]] = ("demo",)
    total_steps: Count
    objectives: Objectives
    optimizer: PretrainingOptimizer
    demo: Demo = Field(default=None)

    def broken_rules(self) -> Iterator[str]:
        """The batch has the clips and negatives that the objectives ask for, and the network a position for each."""
        yield from super().broken_rules()
        clips, videos, groups = self.data.num_clips, self.videos_at_a_time, self.objectives.negative_groups
        if self.model.positions <= clips:
            yield (
                f"config.model.positions={self.model.positions} is too small for config.data.num_clips={clips} and "
                f"BOS: use at least {clips + 1}."
            )
        if self.batch_size % self.memory.accumulation_steps:
            return  # As said above.
        if videos < 2 or clips < 2:
            yield (
                f"{self.batch_in_parts} and config.data.num_clips={clips} must both be at least 2: wrong pairs need "
                "another video, masked clips a visible one."
            )
        elif videos % groups:
            yield (
                f"config.objectives.negative_groups={groups} must divide {self.batch_in_parts}: negatives come from "
                "equal parts of the videos that are taken at a time."
            )
        elif self.objectives.num_negatives > (others := videos // groups * clips - 1):
            yield (
                f"config.objectives.num_negatives={self.objectives.num_negatives} must be between 1 and {others}, the "
                f"other clips of {videos // groups} videos of {clips} ({self.batch_in_parts}, "
                f"config.objectives.negative_groups={groups})."
            )


class Loss(Group):
    """The loss of classification."""

    may_lack: ClassVar[tuple[str, ...]] = ("margin",)
    name: Literal["cross_entropy", "multi_margin", "binary_cross_entropy"]
    margin: Weight | None = None

    def broken_rules(self) -> Iterator[str]:
        """One loss has a margin."""
        if self.name == "multi_margin" and self.margin is None:
            yield "config.task.loss.name='multi_margin' needs a number as config.task.loss.margin."
        if self.name != "multi_margin" and "margin" in self.model_fields_set:
            yield f"config.task.loss.margin={self.margin}: only the loss multi_margin has a margin, not {self.name}."


class Task(Group):
    """What is classified, by which heads."""

    modalities: Annotated[tuple[Modality, ...], AsTuple, Field(min_length=1)]
    heads: Annotated[tuple[Literal["clips", "tokens"], ...], AsTuple, Field(min_length=1)]
    loss: Loss
    dropout: Share
    frozen: Annotated[tuple[Part, ...], AsTuple]
    class_names: Annotated[tuple[str, ...], AsTuple]

    def broken_rules(self) -> Iterator[str]:
        """Image comes before sound."""
        if self.modalities not in (("visual", "audio"), ("visual",), ("audio",)):
            yield f"config.task.modalities={self.modalities} must be ('visual', 'audio') or one of the two."


class Test(Group):
    """The views of a video in tests."""

    temporal_views: Views
    spatial_views: Views
    short_side: Size
    crop: Size
    pool: Pool

    def broken_rules(self) -> Iterator[str]:
        """Crops lie inside frames."""
        if self.crop > self.short_side:
            yield f"config.test.crop={self.crop} must be at most config.test.short_side={self.short_side}."


class ClassificationOptimizer(Optimizer):
    """Adam with two rates, of which one is given in parts of the other."""

    learning_rate: Annotated[float, Field(ge=1e-30)]
    network_learning_rate: Weight


class Classification(Run):
    """Configs of downstream tasks, made by `recipes.classification`."""

    init_from: Text | None
    split: Count
    num_splits: Count
    epochs: Annotated[float, Field(gt=0, le=1e9)]
    total_steps: Count | None
    task: Task
    optimizer: ClassificationOptimizer
    test: Test

    def broken_rules(self) -> Iterator[str]:
        """The split is one of them; a single modality is not dropped; a new network has a position for each clip."""
        yield from super().broken_rules()
        if self.split > self.num_splits:
            yield f"config.split={self.split} must be between 1 and config.num_splits={self.num_splits}."
        if len(self.task.modalities) == 1 and self.augment.modality_dropout:
            yield (
                f"config.augment.modality_dropout={self.augment.modality_dropout} takes one of two modalities, but the "
                "task has one: use 0."
            )
        # Otherwise the network is that of `init_from`, which is read later.
        new = self.init_from is None and "tokens" in self.task.heads
        if new and self.model.positions <= self.data.num_clips:
            yield (
                f"config.data.num_clips={self.data.num_clips} is too many: the network has "
                f"config.model.positions={self.model.positions}, one of them for BOS."
            )


class RecordedData(Data):
    """As `Data`; imported weights have no data set."""

    name: Text | None


class RecordedPretraining(Pretraining):
    """As `Pretraining`, in WORKDIR/config.json; imported weights have no steps and no data set."""

    total_steps: Annotated[int, Field(ge=0)]
    data: RecordedData
