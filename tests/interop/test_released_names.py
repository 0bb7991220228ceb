"""Parity with the released network (see conftest.py), and its weights in and out."""

import jax
import numpy as np
import pytest

from avshare_jax import models, sizes
from avshare_jax.interop import released_names
from avshare_jax.interop.released_names import BOS
from avshare_jax.models import factorized

CNNS = ("visual_cnn", "audio_cnn")
QUERY = f"{released_names.LAYER}.attention.factor_query"


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
def apply(small):
    """Returns what maps a batch to the network's outputs and, by name, the feature maps of the CNNs that ran."""
    config, variables = small
    model = models.build(config)

    @jax.jit
    def apply(batch):
        outputs, captured = model.apply(
            variables, batch, train=False, capture_intermediates=lambda module, _: module.name in CNNS
        )
        return outputs | {name: cnn["__call__"][0] for name, cnn in captured["intermediates"].items()}

    return apply


def test_network(golden, apply, batch):
    outputs = apply(batch)
    assert_close(outputs["visual_cnn"].transpose(0, 4, 1, 2, 3), golden["out/visual_feature_map"])
    assert_close(outputs["audio_cnn"].transpose(0, 3, 2, 1), golden["out/audio_feature_map"])
    for name in ("visual_tokens", "audio_tokens", "multimodal_tokens"):
        assert_close(outputs[name], golden[f"out/{name}"])


def test_one_modality_alone(golden, apply, batch):
    seen, heard = (apply({name: batch[name]}) for name in ("frames", "log_mel"))
    assert_close(seen["visual_tokens"], golden["out/visual_only_tokens"])
    assert_close(heard["audio_tokens"], golden["out/audio_only_tokens"])
    assert not {"audio_tokens", "multimodal_tokens"} & seen.keys()
    assert not {"visual_tokens", "multimodal_tokens"} & heard.keys()


@pytest.mark.parametrize("transformer", range(3))
def test_factorized_layer(golden, small, transformer):
    linear = small[1]["params"]["transformer"]["query"]
    sigma = factorized.expm_rotation(factorized.select(linear["a"], 0, transformer))
    assert_close(sigma, golden[f"factor/sigma{transformer}"])
    folded = factorized.fold({"query": linear}, "expm")["query"]
    weights = {name: factorized.select(stack, 0, transformer) for name, stack in folded.items()}
    assert_close(factorized.apply_linear(weights, golden["factor/x"], np.float32), golden[f"factor/y{transformer}"])


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_round_trip_from_pytorch_and_back(state_dict, complete, small):
    written = released_names.to_torch(*small)
    # How many batches BatchNorm has seen is not kept; PyTorch does not use it with a fixed momentum.
    counts = {name: value * 0 for name, value in complete(state_dict).items() if name.endswith("num_batches_tracked")}
    assert len(counts) == 114
    assert_same(written, complete(state_dict) | counts)


def test_round_trip_to_pytorch_and_back(quick_random):
    config, variables = quick_random
    again_config, again = released_names.from_torch(released_names.to_torch(config, variables), heads=4, layers=2)
    assert again_config == config
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.fixture(scope="module")
def quick_random(random_variables):
    """A network of other sizes, all different, with random variables."""
    config = sizes.base()
    config.update(hidden=24, mlp=40, heads=4, layers=2, rank=6, positions=5, dtype="float32")
    config.visual_cnn.width, config.audio_cnn.width = 3, 2
    model = models.build(config)
    batch = {"frames": np.zeros((1, 1, 2, 32, 32, 3), np.float32), "log_mel": np.zeros((1, 1, 16, 16), np.float32)}
    return config, random_variables(lambda key: model.init(key, batch, train=False))


def test_a_network_of_another_kind_cannot_be_exported():
    config = sizes.base()
    config.update(fusion="late", transformer_sharing="none", rank=None)
    config.audio_cnn.stage_sizes = (1, 1)
    with pytest.raises(ValueError) as error:
        released_names.to_torch(config, {})
    for difference in (
        "fusion is late and not mid",
        "transformer_sharing is none and not factorized",
        "audio_cnn.stage_sizes is (1, 1) and not (3, 4, 6, 3)",
        "not factorized (rank is None)",
    ):
        assert difference in str(error.value)


def test_variables_of_another_network_cannot_be_exported(small):
    config, variables = small
    params = variables["params"] | {"visual_bos": np.zeros(3, np.float32), "head": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match="params/head, params/visual_bos"):
        released_names.to_torch(config, variables | {"params": params})


def test_caches_are_left_out(state_dict, complete, small):
    extra = {f"{QUERY}.orthogonal_ms0_linear._B": np.ones((16, 16))}
    _, variables = released_names.from_torch(complete(state_dict) | extra, heads=4)
    jax.tree.map(np.testing.assert_array_equal, variables, small[1])


def test_what_is_ignored_is_named_by_kind(state_dict, complete):
    cache = f"{QUERY}.orthogonal_ms0_linear._B"
    other = f"multi_{QUERY}.s_linear.bias"
    tensors = complete(state_dict) | {cache: np.ones((16, 16)), other: np.full(48, 7.0, np.float32)}
    ignored = released_names.ignored_tensors(tensors)
    assert {kind: len(names) for kind, names in ignored.items()} == {
        "identities that orthogonal matrices start from": 18,
        "counts of BatchNorm's batches": 114,
        "copies of the shared Transformer": 209,
        "under the names of copies of the shared Transformer, but not equal to it": 1,
        "caches of orthogonal matrices": 1,
    }
    assert ignored["caches of orthogonal matrices"] == [cache]
    assert ignored["under the names of copies of the shared Transformer, but not equal to it"] == [other]


def test_every_problem_is_named(state_dict):
    broken = state_dict | {
        "audio_fc.bias": np.zeros(5, np.float32),
        "audio_fc.bais": np.zeros(48, np.float32),
        f"{QUERY}.orthogonal_ms1_linear.base": -np.eye(16),
        f"{QUERY}.ms2_linear.weight": np.zeros((48, 16), np.float32),
    }
    missing = (
        "visual_conv.s3.pathway0_res2.branch2.b.weight",
        f"{QUERY}.orthogonal_ms2_linear.base",
        BOS,
    )
    for name in missing:
        del broken[name]
    with pytest.raises(ValueError) as error:
        released_names.from_torch(broken, heads=4)
    for problem in (
        "audio_fc.bias has shape (5,), not (48,)",
        "audio_fc.bais is unknown",
        f"{QUERY}.orthogonal_ms1_linear.base is not the identity",
        f"{QUERY}.ms2_linear.weight has shape (48, 16), not (16, 48)",
        "visual_conv.s3.pathway0_res2.branch2.b.weight (8, 8, 1, 3, 3) is missing",
        f"{QUERY}.orthogonal_ms2_linear.base (16, 16) is missing",
        f"{BOS}[0] (48,) is missing",
    ):
        assert problem in str(error.value)
    assert str(error.value).count(";") == 7  # one more: the second row of BOS


@pytest.mark.parametrize(
    "name",
    [
        "visual_fc.bias",
        "visual_conv.s1.pathway0_stem.bn.weight",
        f"{QUERY}.orthogonal_ms0_linear.A",
        BOS,
    ],
)
def test_a_tensor_that_sizes_are_read_off_can_be_wrong(state_dict, name):
    with pytest.raises(ValueError) as error:
        released_names.from_torch(state_dict | {name: np.zeros(5, np.float32)}, heads=4)
    problems = str(error.value).split("; ")
    assert all(name in problem for problem in problems)


def test_heads_must_divide_the_width(state_dict):
    with pytest.raises(ValueError, match=r"5 heads do not divide the hidden width 48.*--heads=N"):
        released_names.from_torch(state_dict, heads=5)
