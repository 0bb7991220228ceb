"""Fields that are right by themselves and do not go together; and that the schema's choices are the code's."""

from functools import partial
from pathlib import Path
from typing import get_args

import jax
import pytest

from avshare_jax import schema
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.models.avbert import MODALITIES, WHOLE
from avshare_jax.models.classification import HEADS
from avshare_jax.models.convolution import REMATERIALIZATION
from avshare_jax.models.factorized import ORTHOGONAL_MAPS, SHARING
from avshare_jax.models.transformer import TRANSFORMERS
from avshare_jax.objectives.classification import LOSSES
from avshare_jax.objectives.negatives import LOG_WEIGHTS
from avshare_jax.schema import base, groups, training
from avshare_jax.settings import load_config_file
from avshare_jax.training.classification import Classification
from avshare_jax.training.mesh import AXES
from avshare_jax.training.optimizer import DECAYS
from avshare_jax.training.plan import abstract_batch
from avshare_jax.training.pretraining import Pretraining

CONFIGS = Path(__file__).parent.parent.parent / "configs"
TOKENS = {"task.heads": ("clips", "tokens")}


def mistakes(name, **changes):
    """What the door says of a config with these fields."""
    config = load_config_file(str(CONFIGS / name))
    with config.unlocked(), config.ignore_type():
        for field, value in changes.items():
            *path, leaf = field.split(".")
            group = config
            for part in path:
                group = group[part]
            group[leaf] = value
    return schema.find_mistakes(config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.heads": 5}, "config.model.heads=5 must divide config.model.hidden=96."),
        ({"model.rank": None}, "config.model.rank=None leaves no factors to share: set config.model.layer_sharing"),
        ({"model.visual_cnn.stage_sizes": (1, 1)}, "temporal_kernels=(1, 1, 3) must be as many numbers"),
        ({"model.visual_cnn.temporal_kernels": (1, 2, 3)}, "holds 2, which must be an odd number."),
        ({"model.positions": 8}, "config.model.positions=8 is too small for config.data.num_clips=8 and BOS: use at l"),
        ({"batch_size": 1}, "config.batch_size=1 and config.data.num_clips=8 must both be at least 2"),
        ({"data.num_clips": 1}, "config.batch_size=16 and config.data.num_clips=1 must both be at least 2"),
        ({"objectives.num_negatives": 128}, "config.objectives.num_negatives=128 must be between 1 and 127"),
        ({"objectives.negative_groups": 3}, "config.objectives.negative_groups=3 must divide config.batch_size=16:"),
        ({"memory.accumulation_steps": 3}, "config.memory.accumulation_steps=3 must divide config.batch_size=16."),
        ({"memory.accumulation_steps": 32}, "config.memory.accumulation_steps=32 must divide config.batch_size=16."),
        ({"memory.clip_chunks": 3}, "config.memory.clip_chunks=3 must divide config.data.num_clips=8."),
        ({"norm_groups": 3}, "config.norm_groups=3 must divide the 16 videos that BatchNorm sees at a time"),
        (
            {"norm_groups": 16, "memory.accumulation_steps": 2},
            "the 8 videos that BatchNorm sees at a time (config.batch_size=16 / config.memory.accumulation_steps=2).",
        ),
        ({"data.crop": 43}, "config.data.crop=43 must be at most config.data.min_short_side=42, and that at most"),
        ({"data.min_short_side": 47}, "config.data.min_short_side=47, and that at most config.data.max_short_side=46."),
        ({"data.frontend.win_length": 1001}, "win_length=1001 must be at most config.data.frontend.n_fft=1000, or 0"),
        ({"data.name": "a+b+a"}, "config.data.name='a+b+a' names a data set twice: use config.data.weights."),
        ({"data.weights": (1.0, 2.0)}, "must have one number for each of the 1 data sets in config.data.name='demo'"),
        ({"mesh.data": -1, "mesh.fsdp": -1}, "must have at most one -1, for the devices that are left."),
        ({"mesh.clip": 0}, "must have no 0: an axis has at least 1 device, or -1 for those that are left."),
        ({"sharding.clip": ("fsdp",)}, "config.sharding splits both batch and clip over fsdp: use each axis once."),
        ({"sharding.batch": ("data", "data")}, "config.sharding splits 'batch' over ('data', 'data'): use each axis"),
        ({"sharding.parameters": (("kernel", ("fsdp", "fsdp")),)}, "config.sharding splits 'kernel' over"),
        ({"sharding.parameters": (("(", ()),)}, "config.sharding.parameters has '(', which is no regular expression:"),
    ],
)
def test_in_pretraining(changes, sentence):
    (mistake,) = mistakes("pretrain.py:demo", **changes)
    assert sentence in mistake


@pytest.mark.parametrize(
    ("steps", "changes", "sentence"),
    [
        (4, {"num_negatives": 31}, None),
        (4, {"num_negatives": 32}, "between 1 and 31, the other clips of 4 videos of 8"),
        (2, {"num_negatives": 31, "negative_groups": 2}, None),
        (2, {"num_negatives": 32, "negative_groups": 2}, "between 1 and 31, the other clips of 4 videos of 8"),
        (2, {"negative_groups": 16}, "must divide config.batch_size=16 / config.memory.accumulation_steps=2"),
        (16, {"num_negatives": 7}, "accumulation_steps=16 and config.data.num_clips=8 must both be at least 2"),
    ],
)
def test_what_relates_videos_must_fit_the_part_of_a_batch_that_is_taken_at_a_time(steps, changes, sentence):
    changes = {f"objectives.{name}": value for name, value in changes.items()}
    found = mistakes("pretrain.py:demo", **{"memory.accumulation_steps": steps}, **changes)
    assert sentence in found[0] if sentence else not found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"split": 4}, "config.split=4 must be between 1 and config.num_splits=3."),
        ({"task.modalities": ("audio", "visual")}, "must be ('visual', 'audio') or one of the two."),
        ({"task.modalities": ("visual", "visual")}, "must be ('visual', 'audio') or one of the two."),
        ({"augment.modality_dropout": 0.5}, "config.augment.modality_dropout=0.5 takes one of two modalities, but"),
        ({"test.crop": 129}, "config.test.crop=129 must be at most config.test.short_side=128."),
        ({"task.loss": {"name": "multi_margin"}}, "needs a number as config.task.loss.margin."),
        ({"task.loss": {"name": "cross_entropy", "margin": 0.1}}, "config.task.loss.margin=0.1: only the loss multi_m"),
        ({"task.loss": {"name": "cross_entropy", "margin": None}}, "only the loss multi_margin has a margin"),
        ({**TOKENS, "data.num_clips": 31}, "config.data.num_clips=31 is too many: the network has config.model.posit"),
        ({"model.heads": 5}, "config.model.heads=5 must divide config.model.hidden=768."),
        ({"task.frozen": ("vissual_cnn",)}, "the nearest is 'visual_cnn'."),
    ],
)
def test_in_classification(changes, sentence):
    (mistake,) = mistakes("finetune_ucf101.py", **changes)
    assert sentence in mistake


def test_positions_of_a_network_that_is_not_new_are_its_own():
    assert not mistakes("finetune_ucf101.py", **TOKENS, **{"data.num_clips": 31, "init_from": "runs/long"})


def test_mistakes_of_several_groups_are_told_together():
    found = mistakes("pretrain.py:demo", **{"model.heads": 5, "data.crop": 50, "mesh.clip": 0})
    assert [mistake.split("=")[0] for mistake in found] == ["config.data.crop", "config.model.heads", "config.mesh"]


def choices(group, field):
    """The choices of a field, or of the elements of a tuple."""
    kind = group.model_fields[field].annotation
    return get_args(get_args(kind)[0] if get_args(kind)[1:] == (...,) else kind)


def test_the_choices_are_those_of_the_code():
    assert choices(groups.Model, "fusion") == tuple(TRANSFORMERS)
    assert choices(groups.Model, "layer_sharing") == choices(groups.Model, "transformer_sharing") == SHARING
    assert choices(groups.Model, "orthogonal_map") == tuple(ORTHOGONAL_MAPS)
    assert choices(groups.Memory, "remat") == REMATERIALIZATION
    assert choices(groups.Optimizer, "decay") == tuple(DECAYS)
    assert choices(training.Objectives, "negative_sampling") == tuple(LOG_WEIGHTS)
    assert choices(training.Loss, "name") == tuple(LOSSES)
    assert choices(training.Task, "heads") == HEADS
    assert choices(training.Task, "modalities") == MODALITIES
    assert tuple(groups.Mesh.model_fields) == AXES == get_args(groups.Axis)
    assert set(groups.FrontEnd.model_fields) == set(FrontEnd.__dataclass_fields__)


def test_the_parts_that_can_be_frozen_are_those_of_the_network():
    config = load_config_file(str(CONFIGS / "finetune_kinetics_sounds.py:demo"))
    config.task.class_names = ("a", "b")
    config.model.update(layers=1)
    config.model.visual_cnn.update(stage_sizes=(1,), temporal_kernels=(1,))
    config.model.audio_cnn.update(stage_sizes=(1,))
    parts = jax.eval_shape(Classification(config).init, jax.random.key(0), abstract_batch(config))["params"][WHOLE]
    assert set(choices(training.Task, "frozen")) == {WHOLE, *parts}


def test_the_smallest_sizes_and_lists_that_the_schema_allows_can_be_trained():
    config = load_config_file(str(CONFIGS / "pretrain.py:demo"))
    with config.unlocked(), config.ignore_type():
        config.batch_size = 2
        config.data.update(num_clips=2, crop=1, frames_per_clip=1, mel_frames=1)
        config.data.frontend.mels = 1
        config.model.update(hidden=1, mlp=1, heads=1, layers=1, rank=1, positions=3)
        visual = {"stage_sizes": [1], "temporal_kernels": [255], "stem_kernel": [2, 4, 6], "stem_strides": [3, 5, 1]}
        config.model.visual_cnn.update(visual, width=1)
        config.model.audio_cnn.update(stage_sizes=[1], stem_kernel=2, separable_stages=10, width=1)
        config.objectives.update(num_negatives=3, mask_fraction=1.0)
        config.augment.update(dict.fromkeys(config.augment, 1.0))
        config.memory.update(clip_chunks=2, remat="stages")
        config.norm_groups = 2
    assert not schema.find_mistakes(config)
    task, batch = Pretraining(config), abstract_batch(config)
    variables = jax.eval_shape(task.init, jax.random.key(config.seed), batch)
    loss, _ = jax.eval_shape(partial(task.loss, train=True), variables, batch, jax.random.key(0))
    assert loss.shape == ()


def test_numbers_that_the_code_can_take_end_at_what_it_counts_in():
    assert jax.random.key(base.LARGEST_INT64) is not None
    with pytest.raises(OverflowError):
        jax.random.key(base.LARGEST_INT64 + 1)
