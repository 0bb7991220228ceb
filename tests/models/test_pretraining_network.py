"""Masks, heads and wrong pairs of the pretraining network, checked with the plain network's tokens."""

import jax
import numpy as np
import pytest
import scipy.special

from avshare_jax import models

VIDEOS, CLIPS, HIDDEN = 3, 3, 8
NOTHING = np.zeros((VIDEOS, CLIPS), bool)
MASKS = {"visual": NOTHING, "audio": NOTHING}
IDENTITY = np.arange(VIDEOS)


@pytest.fixture(scope="module")
def network(micro_model):
    return models.build_pretraining(micro_model())


@pytest.fixture(scope="module")
def variables(network, random_variables, micro_batch):
    return random_variables(lambda key: network.init(key, micro_batch, MASKS, IDENTITY, train=False))


@pytest.fixture(scope="module")
def apply(network, variables):
    compiled = jax.jit(lambda *arguments: network.apply(variables, *arguments, train=False))

    def apply(batch, masks=MASKS, wrong_audio=IDENTITY):
        return jax.tree.map(np.asarray, compiled(batch, MASKS | masks, wrong_audio))

    return apply


@pytest.fixture(scope="module")
def tokens(micro_model, variables, micro_batch):
    """The plain network's outputs, in which nothing is masked."""
    plain = models.build(micro_model())
    inner = {kind: tree["network"] for kind, tree in variables.items()}
    return jax.tree.map(np.asarray, jax.jit(lambda batch: plain.apply(inner, batch, train=False))(micro_batch))


def two_layers(params, x):
    inner = x.astype(np.float64) @ params["ffn_in"]["kernel"] + params["ffn_in"]["bias"]
    gelu = inner * 0.5 * (1 + scipy.special.erf(inner / np.sqrt(2)))
    return gelu @ params["ffn_out"]["kernel"] + params["ffn_out"]["bias"]


def assert_close(actual, expected):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4), actual, expected)


def test_targets_are_the_clip_embeddings(apply, micro_batch, tokens):
    everything = np.ones((VIDEOS, CLIPS), bool)
    for masks in (MASKS, {"visual": everything, "audio": everything}):
        targets = apply(micro_batch, masks)["targets"]
        assert_close(targets, {name: tokens[f"{name}_embeddings"] for name in ("visual", "audio")})


def test_predictors_see_the_clip_outputs_of_their_transformer(apply, micro_batch, variables, tokens):
    predictions = apply(micro_batch)["predictions"]
    multimodal = tokens["multimodal_tokens"]
    inputs = {
        "visual": tokens["visual_tokens"][:, 1:],
        "audio": tokens["audio_tokens"][:, 1:],
        "multimodal_visual": multimodal[:, 1 : CLIPS + 1],
        "multimodal_audio": multimodal[:, CLIPS + 2 :],
    }
    assert set(inputs) == set(models.MEP_HEADS["mid"])
    for head, outputs in inputs.items():
        params = variables["params"][f"predictors_{head}"]
        assert_close(predictions[head], two_layers(params, outputs) @ params["bilinear"])


def test_classifiers_see_pairs_of_bos_and_of_clip_outputs(apply, micro_batch, variables, tokens):
    visual, audio = np.split(tokens["multimodal_tokens"], 2, axis=1)
    pairs = np.concatenate([visual, audio], axis=-1)
    expected = {
        "bos": two_layers(variables["params"]["bos_classifier"], pairs[:, 0])[..., 0],
        "step": two_layers(variables["params"]["step_classifier"], pairs[:, 1:])[..., 0],
    }
    assert_close(apply(micro_batch)["right_pairs"], expected)


def test_wrong_pairs_are_videos_with_the_sound_of_another(apply, micro_batch):
    outputs = apply(micro_batch, wrong_audio=np.array([2, 0, 1]))
    exchanged = apply(micro_batch | {"log_mel": micro_batch["log_mel"][[2, 0, 1]]})
    assert_close(outputs["wrong_pairs"], exchanged["right_pairs"])
    assert np.abs(outputs["wrong_pairs"]["step"] - outputs["right_pairs"]["step"]).max() > 1e-3
    itself = apply(micro_batch, wrong_audio=IDENTITY)
    assert_close(itself["wrong_pairs"], itself["right_pairs"])


def test_pair_logits_of_unimodal_tokens(network, variables, apply, micro_batch, tokens):
    pair_logits = jax.jit(lambda *unimodal: network.apply(variables, *unimodal, method="pair_logits"))
    order = np.array([1, 2, 0])
    logits = pair_logits(tokens["visual_tokens"], tokens["audio_tokens"][order])
    assert_close(logits, apply(micro_batch, wrong_audio=order)["wrong_pairs"])


@pytest.mark.parametrize(("modality", "name"), [("visual", "frames"), ("audio", "log_mel")])
def test_a_masked_clip_is_seen_in_the_targets_only(apply, micro_batch, modality, name):
    mask = NOTHING.copy()
    mask[0, 1] = mask[1, 0] = mask[2, 2] = True
    masks = {modality: mask}
    other_content = micro_batch | {name: micro_batch[name].copy()}
    other_content[name][mask] = micro_batch[name][[1, 2, 0], [1, 1, 1]]
    before, after = apply(micro_batch, masks), apply(other_content, masks)
    for part in ("predictions", "right_pairs", "wrong_pairs"):
        jax.tree.map(np.testing.assert_array_equal, after[part], before[part])
    target_changed = (after["targets"][modality] != before["targets"][modality]).any(-1)
    np.testing.assert_array_equal(target_changed, mask)
    # Without the masks, the same change reaches everything that sees this modality.
    before, after = apply(micro_batch), apply(other_content)
    for head in (modality, "multimodal_visual", "multimodal_audio"):
        assert (after["predictions"][head] != before["predictions"][head]).any((1, 2)).all()


def test_masked_clips_are_alike_but_for_their_position(apply, micro_batch):
    everything = np.ones((VIDEOS, CLIPS), bool)
    visual = apply(micro_batch, {"visual": everything})["predictions"]["visual"]
    assert_close(visual, np.broadcast_to(visual[:1], visual.shape))
    assert np.abs(visual[0, 0] - visual[0, 1]).max() > 1e-3
