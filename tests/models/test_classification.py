"""The network with classification heads: what it has parameters for, and what a missing modality changes."""

import jax
import numpy as np
import pytest

from avshare_jax import models
from avshare_jax.recipes import classification
from tests import transfer

VIDEOS, CLIPS, CLASSES = 3, 2, 4
NONE = np.zeros(VIDEOS, bool)
ALL = ~NONE


@pytest.fixture(scope="module")
def model_config():
    config = classification("finetune_test", transfer.FRONTEND, ("visual", "audio"))
    transfer.reduce_model(config)
    return config.model


def make(model_config, modalities=models.MODALITIES, heads=("clips", "tokens"), dropout=0.5, **options):
    return models.ClassificationNetwork(model_config, modalities, heads, CLASSES, dropout, **options)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return {
        "frames": random.integers(0, 256, (VIDEOS, CLIPS, 2, 16, 16, 3), np.uint8),
        "log_mel": random.normal(size=(VIDEOS, CLIPS, 12, 10)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def variables(model_config, batch, random_variables):
    return random_variables(lambda key: make(model_config).init(key, batch, train=False))


@pytest.mark.parametrize(
    ("modalities", "heads", "parts"),
    [
        (("visual",), ("clips",), {"visual_cnn"}),
        (("audio",), ("clips",), {"audio_cnn"}),
        (("audio",), ("tokens",), {"audio_cnn", "audio_projection", "audio_norm", "audio_embedding", "transformer"}),
    ],
)
def test_only_what_heads_need_has_parameters(model_config, batch, modalities, heads, parts):
    network = make(model_config, modalities, heads)
    inputs = {name: x for name, x in batch.items() if (name == "frames") == (modalities == ("visual",))}
    shapes = jax.eval_shape(lambda key: network.init(key, inputs, train=False), jax.random.key(0))
    assert set(shapes["params"]["network"]) == parts | {"visual_bos", "audio_bos"}
    assert set(shapes["batch_stats"]["network"]) == {part for part in parts if part.endswith("_cnn")}
    logits = jax.eval_shape(lambda variables: network.apply(variables, inputs, train=False), shapes)
    assert {name: x.shape for name, x in logits.items()} == {name: (VIDEOS, CLIPS, CLASSES) for name in heads}


@pytest.fixture(scope="module")
def classify(model_config):
    network = make(model_config)
    return jax.jit(lambda variables, batch: network.apply(variables, batch, train=False))


def test_a_missing_modality_does_not_matter(classify, variables, batch):
    some = np.array([True, False, True])
    flags = {"has_video": ALL, "has_audio": some}
    other = batch | {"log_mel": np.where(some[:, None, None, None], batch["log_mel"], 7.0).astype(np.float32)}
    found, changed = (classify(variables, x | flags) for x in (batch, other))
    whole = classify(variables, batch)
    for head in whole:
        np.testing.assert_array_equal(found[head], changed[head])
        np.testing.assert_allclose(found[head][some], whole[head][some], rtol=2e-5, atol=1e-6)
        assert np.abs(found[head] - whole[head])[~some].max() > 1e-3


def test_all_choices_at_once_are_each_by_itself(model_config, classify, variables, batch):
    choices = [{"visual": ALL, "audio": ALL}, {"visual": ALL, "audio": NONE}, {"visual": NONE, "audio": ALL}]
    network = make(model_config)
    together = jax.jit(lambda variables: network.apply(variables, batch, choices, method="classify_alike"))(variables)
    for choice, found in zip(choices, together, strict=True):
        alone = classify(variables, batch | {"has_video": choice["visual"], "has_audio": choice["audio"]})
        for head in found:
            np.testing.assert_allclose(found[head], alone[head], rtol=2e-5, atol=1e-6)
    assert np.abs(together[1]["clips"] - together[2]["clips"]).max() > 1e-3


def test_frozen_parts_run_as_in_evaluation(model_config, classify, variables, batch):
    network = make(model_config, dropout=0.0, frozen=("network",))
    logits, updates = jax.jit(lambda: network.apply(variables, batch, train=True, mutable=["batch_stats"]))()
    expected = classify(variables, batch)
    for head in logits:
        np.testing.assert_allclose(logits[head], expected[head], rtol=2e-5, atol=1e-6)
    for new, old in zip(*map(jax.tree.leaves, (updates["batch_stats"], variables["batch_stats"])), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(
    "frozen",
    [(), ("visual_embedding", "audio_embedding"), ("transformer",), ("visual_embedding", "transformer"), ("network",)],
)
def test_dropout_is_off_in_frozen_parts_alone(model_config, variables, frozen):
    config = model_config.copy_and_resolve_references()
    config.dropout = 0.5
    network, random = make(config, frozen=frozen), np.random.default_rng(1)
    widths = {
        name: variables["params"]["network"][f"{name}_projection"]["kernel"].shape[0] for name in models.MODALITIES
    }
    features = {name: random.normal(size=(VIDEOS, CLIPS, width)).astype(np.float32) for name, width in widths.items()}

    def run(train):
        rngs = {"dropout": jax.random.key(0)}
        return network.apply(
            variables,
            features,
            {},
            train,
            method="tokens",
            rngs=rngs,
            capture_intermediates=True,
            mutable="intermediates",
        )

    (tokens, inside), (expected, expected_inside) = (
        jax.jit(lambda train=train: run(train))() for train in (True, False)
    )
    inside, expected_inside = (x["intermediates"]["network"] for x in (inside, expected_inside))

    def differs(found, expected):
        return any(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True))

    for name in ("visual_embedding", "audio_embedding"):
        is_frozen = name in frozen or frozen == ("network",)
        assert differs(inside[name]["__call__"], expected_inside[name]["__call__"]) != is_frozen
    assert differs(tokens, expected) != (frozen == ("network",))
