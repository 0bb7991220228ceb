"""Parity with the released network: a small instance of it, run once in PyTorch with random weights."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from avshare_jax import models
from avshare_jax.interop import avbert
from avshare_jax.models.factorized import FactorizedLinear, apply_folded, orthogonal
from avshare_jax.models.transformer import TRANSFORMERS

DATA = Path(__file__).parent.parent / "data"
CNNS = ("visual_cnn", "audio_cnn")
QUERY = f"{avbert.LAYER}.attention.factor_query"


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "avbert_small.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def state_dict(golden):
    return {name.removeprefix("param/"): value for name, value in golden.items() if name.startswith("param/")}


@pytest.fixture(scope="module")
def network(golden, state_dict):
    meta = json.loads(str(golden["meta"]))
    config, variables = avbert.from_torch(state_dict, heads=meta["heads"], layers=meta["layers"])
    return models.build(config), variables


@pytest.fixture(scope="module")
def batch(golden):
    """PyTorch's (B, S, 3, T, H, W) and (B, S, 1, mels, time), channels last."""
    return {
        "frames": golden["in/visual"].transpose(0, 1, 3, 4, 5, 2),
        "log_mel": golden["in/audio"][:, :, 0].transpose(0, 1, 3, 2),
    }


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    error = np.sqrt(
        np.mean((np.asarray(actual, np.float64) - expected) ** 2) / np.mean(expected.astype(np.float64) ** 2)
    )
    assert error < 1e-5


@pytest.fixture(scope="module")
def apply(network):
    """Returns what maps a batch to the network's outputs and, by name, the feature maps of the two CNNs."""
    model, variables = network

    @jax.jit
    def apply(batch):
        outputs, captured = model.apply(
            variables, batch, train=False, capture_intermediates=lambda module, _: module.name in CNNS
        )
        return outputs | {name: captured["intermediates"][name]["__call__"][0] for name in CNNS}

    return apply


def test_network(golden, apply, batch):
    outputs = apply(batch)
    assert_close(outputs["visual_cnn"].transpose(0, 4, 1, 2, 3), golden["out/visual_feature_map"])
    assert_close(outputs["audio_cnn"].transpose(0, 3, 2, 1), golden["out/audio_feature_map"])
    for name in ("visual_tokens", "audio_tokens", "multimodal_tokens"):
        assert_close(outputs[name], golden[f"out/{name}"])


def test_unimodal_tokens_are_those_of_the_network_given_one_modality(golden, apply, batch):
    silent = apply(batch | {"log_mel": np.zeros_like(batch["log_mel"])})
    assert_close(silent["visual_tokens"], golden["out/visual_only_tokens"])
    dark = apply(batch | {"frames": np.zeros_like(batch["frames"])})
    assert_close(dark["audio_tokens"], golden["out/audio_only_tokens"])


@pytest.mark.parametrize(("index", "transformer"), list(enumerate(TRANSFORMERS)))
def test_factorized_layer(golden, network, index, transformer):
    params = network[1]["params"]["transformer"]["linear_query"]
    assert_close(orthogonal(params[f"private_a_{transformer}"]), golden[f"factor/sigma{index}"])
    rank, outputs = params["shared_u"].shape
    layer = FactorizedLinear(golden["factor/x"].shape[-1], outputs, rank, TRANSFORMERS)
    weights = layer.apply({"params": params}, transformer)
    assert_close(apply_folded(weights, golden["factor/x"], np.float32), golden[f"factor/y{index}"])


def test_released_names_and_shapes_fit_the_papers_network():
    rows = [line.split("\t") for line in (DATA / "avbert_state_dict_shapes.tsv").read_text().splitlines()]
    state_dict = {name: np.zeros(tuple(map(int, shape.split("x"))), np.float32) for name, shape in rows}
    state_dict |= {name: np.eye(len(value)) for name, value in state_dict.items() if name.endswith(".base")}
    config, variables = avbert.from_torch(state_dict)
    assert config.positions == 22
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 43_778_080


def test_caches_and_copies_are_left_out(state_dict, network):
    extra = {
        f"{QUERY}.orthogonal_ms0_linear._B": np.ones((16, 16)),
        "audio_conv.s1.stem.bn1.num_batches_tracked": np.array(7),
        "single_audio_transformer.encoder.copy": np.ones(3),
    }
    _, variables = avbert.from_torch(state_dict | extra, heads=4)
    jax.tree.map(np.testing.assert_array_equal, variables, network[1])


def test_every_problem_is_named(state_dict):
    broken = state_dict | {
        "audio_fc.bias": np.zeros(5, np.float32),
        "audio_fc.bais": np.zeros(48, np.float32),
        f"{QUERY}.orthogonal_ms1_linear.base": -np.eye(16),
    }
    del broken["visual_conv.s3.pathway0_res2.branch2.b.weight"]
    with pytest.raises(ValueError) as error:
        avbert.from_torch(broken, heads=4)
    for problem in (
        "audio_fc.bias has shape (5,), not (48,)",
        "audio_fc.bais is unknown",
        f"{QUERY}.orthogonal_ms1_linear.base is not the identity",
        "visual_conv.s3.pathway0_res2.branch2.b.weight (8, 8, 1, 3, 3) is missing",
    ):
        assert problem in str(error.value)


def test_heads_must_divide_the_width(state_dict):
    with pytest.raises(ValueError, match="5 heads do not divide the hidden width 48"):
        avbert.from_torch(state_dict, heads=5)
