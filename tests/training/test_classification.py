"""The classification task: what training changes, and what it leaves as it is, bit by bit."""

from functools import partial

import jax
import numpy as np
import pytest

from avshare_jax.recipes import classification
from avshare_jax.training.classification import Classification
from avshare_jax.training.optimizer import make_finetuning_optimizer
from avshare_jax.training.step import create_state, train_step
from tests import transfer

VIDEOS, CLIPS, STEPS = 4, 2, 3


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return {
        "frames": random.integers(0, 256, (VIDEOS, CLIPS, 2, 16, 16, 3), np.uint8),
        "log_mel": random.normal(size=(VIDEOS, CLIPS, 12, 10)).astype(np.float32),
        "label": np.array([0, 1, 2, 1], np.int32),
    }


def make_task(**changes):
    config = classification("finetune_test", transfer.FRONTEND, ("visual", "audio"))
    transfer.reduce_model(config)
    config.task.update(class_names=("a", "b", "c"), heads=("clips",), **changes)
    return Classification(config)


@pytest.fixture(scope="module")
def take_steps(batch, random_variables):
    """Returns a function from a task to the states before and after some steps, and the metrics of each step."""

    def run(task, batch=batch, **options):
        optimizer = make_finetuning_optimizer(task.config.optimizer, total_steps=STEPS)
        create = partial(create_state, task, optimizer, is_trained=task.is_trained)
        shapes = jax.eval_shape(create, jax.random.key(0), batch)
        variables = random_variables(lambda key: task.init(key, batch))
        state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes).replace(**variables)
        options |= {"task": task, "optimizer": optimizer, "seed": 0, "is_trained": task.is_trained}
        step = jax.jit(partial(train_step, **options))
        first, metrics = state, []
        for _ in range(STEPS):
            state, found = step(state, batch)
            metrics.append(jax.tree.map(float, found))
        return jax.tree.map(np.asarray, (first, state)), metrics

    return run


def changed(before, after):
    """Whether each array changed, by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): not np.array_equal(old, new)
        for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    }


@pytest.mark.parametrize("frozen", [(), ("audio_cnn",), ("network",)])
def test_what_is_frozen_stays_bit_by_bit(take_steps, frozen):
    (before, after), metrics = take_steps(make_task(frozen=frozen))
    of_params, of_stats = changed(before.params, after.params), changed(before.batch_stats, after.batch_stats)
    moving = {"clip_head", *({"visual_cnn", "audio_cnn"} - set(frozen) if frozen != ("network",) else ())}
    for path, moved in (of_params | of_stats).items():
        part = path.split("/")[1] if path.startswith("network/") else path.split("/")[0]
        assert moved == (part in moving), path
    # The optimizer keeps two moments of what is trained, and nothing of the rest.
    kept = [path for path in changed(after.opt_state, after.opt_state) if "kernel" in path]
    trained = [path for path in of_params if task_part(path) in moving and path.endswith("kernel")]
    assert sorted(path.split("/", 2)[2] for path in kept) == sorted(2 * trained)
    assert all(np.isfinite(found["loss"]) and found["grad_norm"] > 0 for found in metrics)


def test_frozen_statistics_stay_bit_by_bit_in_five_parts(take_steps, batch):
    """The sum of five equal numbers, divided by five, is not always that number."""
    batch = {name: x[[0, 1, 2, 3, 0]] for name, x in batch.items()}
    (before, after), _ = take_steps(make_task(frozen=("audio_cnn",)), batch, accumulation_steps=5)
    for path, moved in changed(before.batch_stats, after.batch_stats).items():
        assert moved == (task_part(path) == "visual_cnn"), path


def test_only_what_heads_and_modalities_reach_is_trained():
    task = make_task()
    for modalities in (("visual",), ("audio",), ("visual", "audio")):
        task.config.task.modalities = modalities
        for heads in (("clips",), ("tokens",)):
            task.config.task.heads = heads
            trained = {name for name in ("visual", "audio") if task.is_trained(f"network/{name}_bos")}
            assert trained == (set(modalities) if heads == ("tokens",) else set())


def task_part(path):
    return path.split("/")[1] if path.startswith("network/") else path.split("/")[0]


def test_the_loss_falls(take_steps):
    task = make_task(dropout=0.0)
    task.config.augment.flip = 0.0
    _, metrics = take_steps(task)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
