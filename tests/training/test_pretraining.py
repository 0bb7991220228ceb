"""The pretraining task: how the loss is put together, what is random, and where gradients go."""

import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from avshare_jax import recipes
from avshare_jax.objectives.negatives import LOG_WEIGHTS, sample_negatives
from avshare_jax.training import pretraining

VIDEOS, CLIPS, HIDDEN = 3, 4, 8
MEP_HEADS = ("visual", "audio", "multimodal_visual", "multimodal_audio")
ALPHA, BETA, GAMMA, NEGATIVES = 0.5, 0.25, 0.75, 5


@pytest.fixture(scope="module")
def task():
    return pretraining.Pretraining(
        ConfigDict(
            {
                "model": {
                    "visual_cnn": {
                        "width": 4,
                        "stage_sizes": (1, 1),
                        "temporal_kernels": (1, 3),
                        "stem_kernel": (1, 3, 3),
                        "stem_strides": (1, 2, 2),
                    },
                    "audio_cnn": {"width": 4, "stage_sizes": (1, 1), "separable_stages": 1, "stem_kernel": 3},
                    "hidden": HIDDEN,
                    "mlp": 12,
                    "heads": 2,
                    "layers": 1,
                    "rank": 4,
                    "fusion": "mid",
                    "layer_sharing": "all",
                    "transformer_sharing": "factorized",
                    "orthogonal_map": "expm",
                    "dropout": 0.0,
                    "positions": CLIPS + 1,
                    "dtype": "float32",
                },
                "augment": {"flip": 0.5, "frequency_mask": 0.1, "time_mask": 0.1, "modality_dropout": 0.0},
                "objectives": {
                    "mask_fraction": 0.5,
                    "num_negatives": NEGATIVES,
                    "negative_sampling": "similar",
                    "negative_groups": 1,
                    "masked_weight": GAMMA,
                    "multimodal_weight": ALPHA,
                    "pair_weight": BETA,
                    **recipes.clip_objectives(),
                },
                "norm_groups": 1,
                "memory": {"remat": "none", "clip_chunks": 1, "accumulation_steps": 1},
            }
        )
    )


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    colors, spectra = random.uniform(0, 205, (VIDEOS, CLIPS, 1, 1, 1, 3)), random.normal(-5, 3, (VIDEOS, CLIPS, 1, 10))
    return {
        "frames": (colors + random.uniform(0, 50, (VIDEOS, CLIPS, 2, 16, 16, 3))).astype(np.uint8),
        "log_mel": (spectra + random.normal(0, 1, (VIDEOS, CLIPS, 12, 10))).astype(np.float32),
    }


@pytest.fixture(scope="module")
def variables(task, batch, random_variables):
    return random_variables(lambda key: task.init(key, batch))


@pytest.fixture(scope="module")
def train(task, batch, variables):
    """Returns a function from (params, seed) to loss, metrics, new batch statistics and gradients in train mode."""

    def loss(params, key):
        return task.loss(variables | {"params": params}, batch, key, train=True)

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def train(params, seed):
        (value, (metrics, batch_stats)), gradients = compiled(params, jax.random.key(seed))
        return jax.tree.map(np.asarray, (value, metrics, batch_stats, gradients))

    return train


@pytest.fixture(scope="module")
def trained(train, variables):
    return train(variables["params"], 0)


@pytest.fixture(scope="module")
def evaluate(task, batch, variables):
    compiled = jax.jit(lambda key: task.loss(variables, batch, key, train=False))

    def evaluate(seed):
        value, (metrics, batch_stats) = compiled(jax.random.key(seed))
        return jax.tree.map(np.asarray, (value, metrics, batch_stats))

    return evaluate


@pytest.fixture(scope="module")
def outputs():
    """What the network might have returned."""
    random = np.random.default_rng(1)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    return {
        "targets": {modality: normal(VIDEOS, CLIPS, HIDDEN) for modality in ("visual", "audio")},
        "predictions": {head: normal(VIDEOS, CLIPS, HIDDEN) for head in MEP_HEADS},
        "right_pairs": {"bos": normal(VIDEOS), "step": normal(VIDEOS, CLIPS)},
        "wrong_pairs": {"bos": normal(VIDEOS), "step": normal(VIDEOS, CLIPS)},
    }


def test_loss_is_the_weighted_sum_of_its_parts(trained, evaluate):
    for value, metrics, *_ in (trained, evaluate(0)):
        mep = {head: metrics[f"mep/{head}_loss"] for head in MEP_HEADS}
        mep_sum = mep["visual"] + mep["audio"] + ALPHA * (mep["multimodal_visual"] + mep["multimodal_audio"])
        cpp_sum = metrics["cpp/bos_loss"] + metrics["cpp/step_loss"]
        assert metrics["mep/loss"] == pytest.approx(mep_sum, rel=1e-5)
        assert metrics["cpp/loss"] == pytest.approx(cpp_sum, rel=1e-5)
        assert value == metrics["loss"] == pytest.approx(GAMMA * mep_sum + BETA * cpp_sum, rel=1e-5)


def test_metrics_are_finite_scalars_within_their_bounds(trained, evaluate):
    for _, metrics, *_ in (trained, evaluate(0)):
        assert all(value.shape == () and np.isfinite(value) for value in metrics.values())
        shares = [value for name, value in metrics.items() if "top1" in name or "accuracy" in name]
        assert len(shares) == 2 * len(MEP_HEADS) + 2
        assert all(0 <= value <= 1 for value in shares)
        assert metrics["mep/chance"] == pytest.approx(1 / (1 + NEGATIVES))
        assert metrics["mep/chance_of_batch"] == pytest.approx(1 / (VIDEOS * CLIPS))


def test_each_head_is_compared_with_the_targets_of_its_modality(task, outputs):
    positions = {"visual": np.array([[0, 1], [1, 3], [0, 3]]), "audio": np.array([[2, 3], [0, 1], [1, 2]])}
    keys = {"visual": jax.random.key(5), "audio": jax.random.key(6)}

    @jax.jit
    def compute(outputs, keys):
        negatives = {
            modality: sample_negatives(
                keys[modality], outputs["targets"][modality], positions[modality], NEGATIVES, LOG_WEIGHTS["similar"]
            )
            for modality in keys
        }
        return negatives, *task.masked_embedding(outputs, positions, {}, keys)

    negatives, total, metrics = jax.tree.map(np.asarray, compute(outputs, keys))
    expected_total = 0.0
    for head in MEP_HEADS:
        modality = head.removeprefix("multimodal_")
        targets, places = outputs["targets"][modality].astype(np.float64), positions[modality]
        clips = targets.reshape(-1, HIDDEN)
        drawn, valid = negatives[modality]
        losses = []
        for video, index in np.ndindex(places.shape):
            scores = clips @ outputs["predictions"][head][video, places[video, index]]
            own = scores[video * CLIPS + places[video, index]]
            losses.append(np.log1p(np.exp(scores[drawn[video, index][valid[video, index]]] - own).sum()))
        assert metrics[f"mep/{head}_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        expected_total += np.mean(losses) * (ALPHA if head.startswith("multimodal") else 1)
    assert total == pytest.approx(expected_total, rel=1e-4)


def test_pairs_are_judged_at_bos_and_at_a_random_step_of_their_own(task, outputs):
    def cross_entropy(right, wrong):
        return np.mean([np.logaddexp(0, -right), np.logaddexp(0, wrong)])

    bos = {kind: outputs[f"{kind}_pairs"]["bos"] for kind in ("right", "wrong")}
    # The logits are the numbers of the steps, so that the loss tells which ones were drawn.
    step = {kind: np.tile(np.arange(CLIPS, dtype=np.float32), (VIDEOS, 1)) for kind in ("right", "wrong")}
    pairs = {f"{kind}_pairs": {"bos": bos[kind], "step": step[kind]} for kind in ("right", "wrong")}
    possible = [
        cross_entropy(np.array(drawn[:VIDEOS]), np.array(drawn[VIDEOS:]))
        for drawn in itertools.product(range(CLIPS), repeat=2 * VIDEOS)
    ]
    correct_pair = jax.jit(lambda key: task.correct_pair(pairs, np.array([1, 2, 0]), {}, key))
    losses = []
    for seed in range(20):
        total, metrics = jax.tree.map(np.asarray, correct_pair(jax.random.key(seed)))
        assert metrics["cpp/bos_loss"] == pytest.approx(cross_entropy(bos["right"], bos["wrong"]), rel=1e-5)
        assert total == pytest.approx(metrics["cpp/bos_loss"] + metrics["cpp/step_loss"], rel=1e-6)
        losses.append(metrics["cpp/step_loss"])
        assert np.abs(np.array(possible) - losses[-1]).min() < 1e-5
    # Were the steps the same for all videos, or for right and wrong pairs, there would be few different losses.
    assert len(np.unique(np.round(losses, 5))) > CLIPS * CLIPS


def test_randomness_is_the_key(train, trained, variables, evaluate):
    jax.tree.map(np.testing.assert_array_equal, train(variables["params"], 0), trained)
    assert train(variables["params"], 1)[0] != trained[0]
    jax.tree.map(np.testing.assert_array_equal, evaluate(3), evaluate(3))
    assert evaluate(4)[0] != evaluate(3)[0]


def test_only_training_augments_and_updates_statistics(task, batch, variables, trained, evaluate, monkeypatch):
    jax.tree.map(np.testing.assert_array_equal, evaluate(0)[2], variables["batch_stats"])
    changed = jax.tree.map(lambda new, old: (new != old).any(), trained[2], variables["batch_stats"])
    assert all(jax.tree.leaves(changed))
    calls = []
    monkeypatch.setattr(pretraining, "augment", lambda key, batch, **options: calls.append(options) or batch)
    for train in (False, True):
        jax.eval_shape(lambda key, train=train: task.loss(variables, batch, key, train=train), jax.random.key(0))
    assert calls == [dict(task.config.augment)]


def test_gradients_reach_every_parameter(trained):
    # Softmax does not see what is added to all its inputs, so the bias of the keys has no influence.
    for path, gradient in jax.tree_util.tree_leaves_with_path(trained[3]):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > (-1 if "['key']['bias']" in name else 1e-9), name


def test_gradient_steps_lower_the_loss(train, variables):
    params = variables["params"]
    losses = []
    for _ in range(8):
        value, _, _, gradients = train(params, 0)
        losses.append(value)
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
        params = jax.tree.map(lambda leaf, gradient, norm=norm: leaf - 0.1 * gradient / norm, params, gradients)
    assert losses[-1] < losses[0] - 0.1


MISSING = {"has_video": np.array([True, False, True]), "has_audio": np.array([True, True, False])}


@pytest.fixture(scope="module")
def train_with_flags(task, batch, variables):
    def loss(params, batch, key):
        return task.loss(variables | {"params": params}, batch, key, train=True)

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda batch, seed=0: jax.tree.map(np.asarray, compiled(variables["params"], batch, jax.random.key(seed)))


def test_what_a_video_lacks_changes_nothing(train_with_flags, batch):
    """Loss, metrics, statistics and gradients do not depend on what fills the place of a missing modality."""
    random = np.random.default_rng(2)
    other = {name: batch[name].copy() for name in batch}
    other["frames"][1] = random.integers(0, 256, batch["frames"][1].shape)
    other["log_mel"][2] = random.normal(size=batch["log_mel"][2].shape)
    expected, actual = train_with_flags(batch | MISSING), train_with_flags(other | MISSING)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6), actual, expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))


def test_flags_that_say_all_is_there_change_nothing(train_with_flags, batch, trained):
    value, metrics, batch_stats, gradients = trained
    (flagged_value, (flagged_metrics, flagged_stats)), flagged_gradients = train_with_flags(
        batch | dict.fromkeys(MISSING, np.ones(VIDEOS, bool))
    )
    for one, two in (
        (flagged_value, value),
        (flagged_metrics, metrics),
        (flagged_stats, batch_stats),
        (flagged_gradients, gradients),
    ):
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5), one, two)


def test_a_batch_without_any_sound_still_trains_the_image_part(train_with_flags, batch):
    flags = {"has_video": np.ones(VIDEOS, bool), "has_audio": np.zeros(VIDEOS, bool)}
    (value, (metrics, _)), gradients = train_with_flags(batch | flags)
    assert np.isfinite(value)
    assert metrics["mep/audio_loss"] == metrics["mep/multimodal_audio_loss"] == metrics["cpp/loss"] == 0
    assert metrics["mep/visual_loss"] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.abs(gradients["network"]["visual_cnn"]["stem"]["kernel"]).max() > 0
    assert np.abs(gradients["network"]["audio_cnn"]["stem_time"]["kernel"]).max() == 0
