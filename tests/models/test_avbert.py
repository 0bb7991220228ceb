"""The whole network: what its tokens hold, what they depend on, and the two dtypes."""

import jax
import numpy as np
import pytest

from avshare_jax import models

VIDEOS, CLIPS, HIDDEN = 3, 3, 8


@pytest.fixture(scope="module")
def network(micro_model):
    return models.build(micro_model())


@pytest.fixture(scope="module")
def variables(network, random_variables, micro_batch):
    return random_variables(lambda key: network.init(key, micro_batch, train=False))


@pytest.fixture(scope="module")
def encode(network, variables):
    encode = jax.jit(lambda batch: network.apply(variables, batch, train=False))
    return lambda batch: jax.tree.map(np.asarray, encode(batch))


@pytest.fixture(scope="module")
def outputs(encode, micro_batch):
    return encode(micro_batch)


def changed(one, other):
    """Which clips or tokens (B, N) of two arrays (B, N, D) differ."""
    return (one != other).any(axis=2)


def test_shapes(outputs):
    # Each CNN's second stage has inner width 2 * 3 and four times as many outputs.
    assert {name: value.shape for name, value in outputs.items()} == {
        "visual_features": (VIDEOS, CLIPS, 24),
        "audio_features": (VIDEOS, CLIPS, 24),
        "visual_embeddings": (VIDEOS, CLIPS, HIDDEN),
        "audio_embeddings": (VIDEOS, CLIPS, HIDDEN),
        "visual_tokens": (VIDEOS, CLIPS + 1, HIDDEN),
        "audio_tokens": (VIDEOS, CLIPS + 1, HIDDEN),
        "multimodal_tokens": (VIDEOS, 2 * (CLIPS + 1), HIDDEN),
    }


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_embeddings_are_the_normalized_projection_of_the_features(outputs, variables, numpy_layer_norm, modality):
    params = variables["params"]
    projection = params[f"{modality}_projection"]
    features = outputs[f"{modality}_features"].astype(np.float64)
    expected = numpy_layer_norm(features @ projection["kernel"] + projection["bias"], params[f"{modality}_norm"])
    np.testing.assert_allclose(outputs[f"{modality}_embeddings"], expected, rtol=1e-3, atol=1e-4)


def test_tokens_are_bos_then_clips_at_their_positions(micro_model, random_variables, micro_batch, numpy_layer_norm):
    network = models.build(micro_model(layers=0))  # Without layers, a Transformer returns its input.
    variables = random_variables(lambda key: network.init(key, micro_batch, train=False))
    outputs = jax.jit(lambda batch: network.apply(variables, batch, train=False))(micro_batch)
    params = variables["params"]
    tokens = {}
    for modality in ("visual", "audio"):
        bos = np.broadcast_to(params[f"{modality}_bos"], (VIDEOS, 1, HIDDEN))
        embedding = params[f"{modality}_embedding"]
        tokens[modality] = numpy_layer_norm(
            np.concatenate([bos, outputs[f"{modality}_embeddings"]], axis=1) + embedding["position"], embedding["norm"]
        )
        np.testing.assert_allclose(outputs[f"{modality}_tokens"], tokens[modality], rtol=1e-3, atol=1e-4)
    embedding = params["multimodal_embedding"]
    expected = [
        tokens[modality] + embedding["position"] + embedding["modality"][index]
        for index, modality in enumerate(("visual", "audio"))
    ]
    expected = numpy_layer_norm(np.concatenate(expected, axis=1), embedding["norm"])
    np.testing.assert_allclose(outputs["multimodal_tokens"], expected, rtol=1e-3, atol=1e-4)


def test_videos_of_a_batch_do_not_meet(encode, outputs, micro_batch):
    order = np.array([2, 0, 1])
    permuted = encode({name: value[order] for name, value in micro_batch.items()})
    for name, value in outputs.items():
        np.testing.assert_allclose(permuted[name], value[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("modality", "name", "other"), [("visual", "frames", "audio"), ("audio", "log_mel", "visual")])
def test_one_clip_reaches_its_own_feature_its_modality_and_the_fusion(
    encode, outputs, micro_batch, modality, name, other
):
    batch = micro_batch | {name: micro_batch[name].copy()}
    batch[name][1, 2] = batch[name][0, 0]
    after = encode(batch)
    only_clip = np.zeros((VIDEOS, CLIPS), bool)
    only_clip[1, 2] = True
    np.testing.assert_array_equal(changed(after[f"{modality}_features"], outputs[f"{modality}_features"]), only_clip)
    only_video = np.repeat([[False], [True], [False]], CLIPS + 1, axis=1)
    np.testing.assert_array_equal(changed(after[f"{modality}_tokens"], outputs[f"{modality}_tokens"]), only_video)
    np.testing.assert_array_equal(after[f"{other}_tokens"], outputs[f"{other}_tokens"])
    everywhere = changed(after["multimodal_tokens"], outputs["multimodal_tokens"])
    np.testing.assert_array_equal(everywhere, np.repeat([[False], [True], [False]], 2 * (CLIPS + 1), axis=1))


def test_uint8_frames_are_normalized(encode, outputs, micro_batch):
    normalized = ((micro_batch["frames"] / 255.0 - 0.45) / 0.225).astype(np.float32)
    for name, value in encode(micro_batch | {"frames": normalized}).items():
        np.testing.assert_allclose(value, outputs[name], rtol=1e-3, atol=1e-4)


def test_weights_are_stored_once(variables):
    names = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])]
    assert names.count("u") == names.count("v") == names.count("a") == 6


def test_bfloat16_computes_roughly_the_same_from_float32_parameters(micro_model, variables, micro_batch, outputs):
    network = models.build(micro_model(dtype="bfloat16"))
    created = jax.eval_shape(lambda key: network.init(key, micro_batch, train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(created)} == {np.dtype("float32")}
    coarse = jax.jit(lambda batch: network.apply(variables, batch, train=False))(micro_batch)
    for name in ("visual_tokens", "audio_tokens", "multimodal_tokens"):
        assert coarse[name].dtype == "bfloat16"
        value = np.asarray(coarse[name], np.float32)
        assert np.isfinite(value).all()
        assert np.sqrt(np.mean((value - outputs[name]) ** 2) / np.mean(outputs[name] ** 2)) < 0.1


def test_training_moves_the_running_statistics_toward_the_batch(network, variables, micro_batch):
    @jax.jit
    def update(batch_stats):
        outputs, updates = network.apply(
            variables | {"batch_stats": batch_stats}, micro_batch, train=True, method="embed", mutable=["batch_stats"]
        )
        return outputs, updates["batch_stats"]

    before = variables["batch_stats"]
    zeros = jax.tree.map(np.zeros_like, before)
    outputs, after_zeros = update(zeros)
    again, after = update(before)
    # What training computes does not depend on the running statistics, and 0.1 of the batch's enters all of them.
    jax.tree.map(np.testing.assert_array_equal, outputs, again)
    jax.tree.map(
        lambda old, new, share: np.testing.assert_allclose(new, 0.9 * old + share, rtol=1e-3, atol=1e-4),
        before,
        after,
        after_zeros,
    )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(after_zeros))


@pytest.fixture(scope="module")
def build(micro_model, random_variables, micro_batch):
    """Returns a function that builds a network and gives its variables and its compiled inference."""

    def build(**overrides):
        network = models.build(micro_model(**overrides))
        variables = random_variables(lambda key: network.init(key, micro_batch, train=False))
        apply = jax.jit(lambda batch: network.apply(variables, batch, train=False))
        return variables, lambda batch: jax.tree.map(np.asarray, apply(batch))

    return build


def test_early_fusion_has_one_transformer_that_sees_everything(build, micro_batch):
    variables, encode = build(fusion="early")
    assert variables["params"]["transformer"]["query"]["v"].shape[:2] == (1, 1)
    assert not {"visual_embedding", "audio_embedding"} & set(variables["params"])
    outputs = encode(micro_batch)
    for name in ("visual", "audio"):
        np.testing.assert_array_equal(outputs[f"{name}_tokens"][:, 1:], outputs[f"{name}_embeddings"])
        bos = np.broadcast_to(variables["params"][f"{name}_bos"], (VIDEOS, HIDDEN))
        np.testing.assert_array_equal(outputs[f"{name}_tokens"][:, 0], bos)
    assert outputs["multimodal_tokens"].shape == (VIDEOS, 2 * (CLIPS + 1), HIDDEN)
    other_sound = encode(micro_batch | {"log_mel": micro_batch["log_mel"][[0, 2, 1]]})
    seen = changed(outputs["multimodal_tokens"], other_sound["multimodal_tokens"])
    np.testing.assert_array_equal(seen, np.repeat([[False], [True], [True]], 2 * (CLIPS + 1), axis=1))


def test_late_fusion_computes_the_unimodal_tokens_of_mid_fusion(micro_model, variables, micro_batch, outputs):
    """The same weights without the third Transformer's rows give the same unimodal tokens."""
    params = {name: part for name, part in variables["params"].items() if name != "multimodal_embedding"}
    params["transformer"] = jax.tree.map(lambda leaf: leaf[:, :2], params["transformer"])
    late = models.build(micro_model(fusion="late"))
    tokens = jax.jit(lambda batch: late.apply(variables | {"params": params}, batch, train=False))(micro_batch)
    assert {name for name in tokens if name.endswith("tokens")} == {"visual_tokens", "audio_tokens"}
    for name in ("visual_tokens", "audio_tokens"):
        np.testing.assert_allclose(tokens[name], outputs[name], rtol=1e-3, atol=1e-4)


def test_unknown_fusion_is_a_sentence(micro_model, micro_batch):
    with pytest.raises(ValueError, match="one of early, mid, late, and not 'middle'"):
        models.build(micro_model(fusion="middle")).init(jax.random.key(0), micro_batch, train=False)


@pytest.mark.parametrize(("modality", "name"), [("visual", "frames"), ("audio", "log_mel")])
def test_one_modality_alone_gives_its_own_outputs(network, variables, outputs, micro_batch, modality, name):
    alone = jax.jit(lambda batch: network.apply(variables, batch, train=False))({name: micro_batch[name]})
    assert set(alone) == {f"{modality}_{kind}" for kind in ("features", "embeddings", "tokens")}
    for key, value in alone.items():
        np.testing.assert_allclose(value, outputs[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("modality", "name", "row"), [("visual", "frames", 0), ("audio", "log_mel", 1)])
def test_early_fusion_of_one_modality_is_fusion_with_the_other_flagged_missing(build, micro_batch, modality, name, row):
    _, encode = build(fusion="early")
    alone = encode({name: micro_batch[name]})["multimodal_tokens"]
    assert alone.shape == (VIDEOS, CLIPS + 1, HIDDEN)
    here, missing = np.ones(VIDEOS, bool), np.zeros(VIDEOS, bool)
    flags = {"has_video": here if modality == "visual" else missing, "has_audio": here if row else missing}
    flagged = np.split(encode(micro_batch | flags)["multimodal_tokens"], 2, axis=1)[row]
    np.testing.assert_allclose(flagged, alone, rtol=1e-3, atol=1e-4)


def test_a_missing_modality_does_not_reach_the_other(network, variables, micro_batch):
    encode = jax.jit(lambda batch: network.apply(variables, batch, train=False))
    batch = micro_batch | {"has_video": np.array([True, True, True]), "has_audio": np.array([True, False, True])}
    before = encode(batch)["multimodal_tokens"]
    noise = np.random.default_rng(0).normal(size=micro_batch["log_mel"][1].shape)
    other = micro_batch["log_mel"].copy()
    other[1] = noise
    after = encode(batch | {"log_mel": other})["multimodal_tokens"]
    np.testing.assert_array_equal(after[:, : CLIPS + 1], before[:, : CLIPS + 1])
    # The flags of the other videos change nothing.
    whole = encode(micro_batch)["multimodal_tokens"]
    np.testing.assert_allclose(before[0::2], whole[0::2], rtol=1e-3, atol=1e-4)
    assert np.abs(before[1] - whole[1]).max() > 1e-3


def test_missing_clips_do_not_count_in_batch_norm(network, variables, micro_batch):
    """Statistics of a batch with one video flagged are those of the batch without it."""

    @jax.jit
    def statistics(batch):
        return network.apply(variables, batch, train=True, method="embed", mutable=["batch_stats"])[1]["batch_stats"]

    flags = {"has_video": np.array([True, False, True]), "has_audio": np.array([True, False, True])}
    present = {name: value[[0, 2]] for name, value in micro_batch.items()}
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4),
        statistics(micro_batch | flags),
        statistics(present),
    )
    nothing = dict.fromkeys(flags, np.zeros(VIDEOS, bool))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(statistics(micro_batch | nothing)))
