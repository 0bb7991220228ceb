"""Every config file with every variant: its numbers fit together, and a training step of it runs."""

import inspect
import json
import runpy
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from avshare_jax import models
from avshare_jax.data import demo
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.training.classification import Classification
from avshare_jax.training.metrics import console_line
from avshare_jax.training.optimizer import make_finetuning_optimizer
from avshare_jax.training.plan import abstract_batch
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.run import SHOWN_METRICS
from avshare_jax.training.step import create_state, train_step

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
PRETRAIN = next(path for path in FILES if path.stem == "pretrain")


def variants(path):
    """The variants that a config file says it has."""
    get_config = runpy.run_path(str(path))["get_config"]
    if not inspect.signature(get_config).parameters:
        return [None]
    with pytest.raises(ValueError, match="no variant 'nonsense'") as error:
        get_config("nonsense")
    _, _, names = str(error.value).partition("There are: ")
    changes = names.split(", ") if names else []
    if path != PRETRAIN:
        return ["", *changes]
    # Every recipe by itself, and every ablation of the demo, whose data are here; "" is the paper's recipe.
    return ["", "10s", "16khz", "demo"] + [
        f"demo,{change}" for change in changes if change not in ("10s", "16khz", "demo")
    ]


def load(path, variant):
    return runpy.run_path(str(path))["get_config"](*([] if variant is None else [variant]))


CONFIGS = {
    path.stem + (f":{variant}" if variant else ""): load(path, variant) for path in FILES for variant in variants(path)
}
PRETRAINING = [name for name in CONFIGS if name.startswith("pretrain")]
DOWNSTREAM = [name for name in CONFIGS if "task" in CONFIGS[name]]


def test_the_configs_are_there():
    assert {
        "pretrain",
        "pretrain:10s",
        "pretrain:demo",
        "pretrain:demo,long",
        "pretrain:demo,late_fusion",
        "eval",
        "finetune_ucf101",
        "linear_esc50",
        "finetune_kinetics_sounds",
        "finetune_kinetics_sounds:demo",
        "finetune_charades",
    } <= set(CONFIGS)
    assert {"eval", *PRETRAINING, *DOWNSTREAM} == set(CONFIGS)
    names = [CONFIGS[name].name for name in PRETRAINING]
    assert len(set(names)) == len(names)


def test_fields_can_be_set_in_the_variant():
    config = load(PRETRAIN, "demo,late_fusion,optimizer.learning_rate=1e-2,model.rank=8,data.name=mine")
    assert (config.name, config.model.fusion, config.optimizer.learning_rate) == ("demo_late_fusion", "late", 1e-2)
    assert (config.model.rank, config.data.name) == (8, "mine")


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("optimizer.learning=1", "no field 'optimizer.learning'; the nearest is 'optimizer.learning_rate'"),
        ("demo,total_steps=many", "total_steps=many does not fit"),
    ],
)
def test_what_cannot_be_set_is_a_sentence(variant, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(PRETRAIN, variant)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_survives_json(name):
    # WORKDIR/config.json is what evaluation and a resumed run read.
    text = CONFIGS[name].to_json()
    assert json.dumps(json.loads(text)) == text


@pytest.mark.parametrize("name", PRETRAINING + DOWNSTREAM)
def test_numbers_fit_together(name):
    config = CONFIGS[name]
    data, model = config.data, config.model
    assert data.crop <= data.min_short_side <= data.max_short_side <= data.frontend.short_side
    clip_seconds = data.frames_per_clip * data.frame_stride / data.frontend.fps
    assert data.mel_frames == pytest.approx(clip_seconds * data.frontend.sample_rate / data.frontend.hop_length, abs=1)
    assert model.positions > data.num_clips
    assert model.hidden % model.heads == 0
    assert len(model.visual_cnn.stage_sizes) == len(model.visual_cnn.temporal_kernels)
    if name in DOWNSTREAM:
        assert config.test.crop <= config.test.short_side <= data.frontend.short_side
        return
    # Negatives come from the part of the batch that remains when the outer 5 % of distances are cut.
    assert config.objectives.num_negatives < 0.95 * config.batch_size * data.num_clips - 1
    assert config.total_steps >= config.checkpoint_every >= config.log_every


def test_paper_uses_the_default_front_end():
    assert FrontEnd(**CONFIGS["pretrain"].data.frontend) == FrontEnd()


@pytest.mark.parametrize("name", [name for name in PRETRAINING if "demo" in CONFIGS[name]])
def test_demo_fits_its_videos(name):
    data = CONFIGS[name].data
    assert data.num_clips * data.frames_per_clip * data.frame_stride / data.frontend.fps <= demo.SECONDS
    assert data.frontend.fps == demo.FPS
    assert data.frontend.sample_rate <= demo.SAMPLE_RATE
    assert data.frontend.short_side <= demo.PIXELS
    assert min(CONFIGS[name].demo.num_train, CONFIGS[name].demo.num_test) >= 10 * len(demo.CLASSES)


def reduced(name):
    """The same parts with few channels, one block a stage, one layer and two short clips.

    Ablations and downstream tasks leave the CNNs as they are: theirs keep the first stage only, which compiles sooner.
    """
    config = CONFIGS[name].copy_and_resolve_references()
    stages = 1 if "," in name or name in DOWNSTREAM else None
    visual, audio = config.model.visual_cnn, config.model.audio_cnn
    visual.update(temporal_kernels=visual.temporal_kernels[:stages])
    for cnn in (visual, audio):
        cnn.update(width=2, stage_sizes=(1,) * len(cnn.stage_sizes[:stages]))
    config.model.update(hidden=2 * config.model.heads, mlp=16, rank=config.model.rank and 4, layers=1)
    config.data.update(num_clips=min(2, config.data.num_clips), frames_per_clip=2, mel_frames=16, crop=32)
    if name in PRETRAINING:
        config.objectives.num_negatives = 2
    else:  # Full weights shared by all compile soonest.
        config.model.update(rank=None, transformer_sharing="all")
    return config


@pytest.fixture(scope="module")
def take_step(random_variables):
    """Returns a function from a reduced config to loss, metrics and gradients; equal ones are computed once."""
    results = {}

    def take_step(config):
        key = json.dumps([config[part].to_json() for part in ("model", "data", "objectives", "augment")])
        if key not in results:
            random, data = np.random.default_rng(0), config.data
            frames = random.integers(
                0, 256, (2, data.num_clips, data.frames_per_clip, data.crop, data.crop, 3), np.uint8
            )
            log_mel = random.normal(-5, 3, (2, data.num_clips, data.mel_frames, data.frontend.mels)).astype(np.float32)
            batch = {"frames": frames, "log_mel": log_mel}
            task = Pretraining(config)
            variables = random_variables(lambda key: task.init(key, batch))

            def loss(params, key):
                return task.loss(variables | {"params": params}, batch, key, train=True)

            step = jax.jit(jax.value_and_grad(loss, has_aux=True))
            results[key] = jax.tree.map(np.asarray, step(variables["params"], jax.random.key(0)))
        return results[key]

    return take_step


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINING)
def test_one_training_step(take_step, name):
    (loss, (metrics, batch_stats)), gradients = take_step(reduced(name))
    assert np.isfinite(loss)
    speed = {"clips_per_second": 1.0, "data_wait_share": 0.0, "eta_seconds": 0.0}
    assert console_line(1, 2, metrics | speed, SHOWN_METRICS).startswith(f"step 1/2  loss {loss:.3f}  mep/loss")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((metrics, batch_stats, gradients)))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {np.dtype("float32")}
    parts = {**gradients["network"], **{part: gradients[part] for part in gradients if part != "network"}}
    heads = {f"predictors_{head}" for head in models.MEP_HEADS[CONFIGS[name].model.fusion]}
    assert {"visual_cnn", "audio_cnn", "transformer", "visual_bos", "bos_classifier", *heads} <= set(parts)
    unused = set()
    if not CONFIGS[name].objectives.masked_weight:
        unused |= heads
    if not CONFIGS[name].objectives.pair_weight:
        unused |= {"bos_classifier", "step_classifier"}
    for part, gradient in parts.items():
        assert (max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0) == (part not in unused), part


@pytest.mark.slow
@pytest.mark.parametrize("name", DOWNSTREAM)
def test_one_downstream_step(name, random_variables):
    config = reduced(name)
    config.batch_size = 3
    config.task.class_names = ("a", "b", "c")
    task, random = Classification(config), np.random.default_rng(0)
    batch = jax.tree.map(lambda x: random.uniform(-9, 255, x.shape).astype(x.dtype), abstract_batch(config))
    # Each video its own class, so that not all can be right with the margin to spare.
    batch |= {name: np.eye(3) if name == "labels" else np.arange(3) for name in batch if name.startswith("label")}
    optimizer = make_finetuning_optimizer(config.optimizer, total_steps=5)
    create = partial(create_state, task, optimizer, is_trained=task.is_trained)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(create, jax.random.key(0), batch))
    before = zeros.replace(**random_variables(lambda key: task.init(key, batch)))
    step = partial(train_step, task=task, optimizer=optimizer, seed=0, is_trained=task.is_trained)
    after, metrics = jax.jit(step)(before, batch)
    assert np.isfinite(metrics["loss"]) and 0 <= metrics["top1"] <= 1 and metrics["skipped"] == 0
    moved = {
        path[0].key if path[0].key != "network" else path[1].key
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before.params), jax.tree.leaves(after.params), strict=True
        )
        if not np.array_equal(old, new)
    }
    heads = {"clips": "clip_head", "tokens": "token_head"}
    expected = {heads[head] for head in config.task.heads}
    if not config.task.frozen:
        expected |= {f"{modality}_cnn" for modality in config.task.modalities}
    if "tokens" in config.task.heads:
        expected |= {"transformer", "visual_bos", "audio_bos", "multimodal_embedding"}
    assert expected <= moved and (not config.task.frozen or moved == expected)
