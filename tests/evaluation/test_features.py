"""Features are means over a video's own clips, one row for each video whatever the padding, and jitted once."""

import jax.numpy as jnp
import numpy as np
import pytest

from avshare_jax.evaluation import features
from avshare_jax.settings import UserError


def apply(variables, batch):
    """A network whose tokens are simple functions of the input; S = 3 clips, width 2."""
    visual = variables["scale"] * batch["frames"].astype(jnp.float32).mean((2, 3, 4, 5))[..., None] * jnp.ones(2)
    audio = variables["scale"] * batch["log_mel"].mean((2, 3))[..., None] * jnp.ones(2)
    bos = jnp.full((len(visual), 1, 2), 1e6)
    tokens = {"visual": jnp.concatenate([bos, visual], 1), "audio": jnp.concatenate([bos, audio], 1)}
    return {
        "visual_features": visual,
        "audio_features": audio,
        "visual_tokens": 10 * tokens["visual"],
        "audio_tokens": 10 * tokens["audio"],
        "multimodal_tokens": 100 * jnp.concatenate([tokens["visual"], tokens["audio"]], 1),
    }


def make_batches(num_videos, batch_size):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (num_videos, 3, 2, 4, 4, 3), np.uint8)
    log_mel = random.normal(size=(num_videos, 3, 5, 4)).astype(np.float32)
    rows = np.arange(-(-num_videos // batch_size) * batch_size)
    kept = np.minimum(rows, num_videos - 1)
    batches = [
        {
            "frames": frames[kept[i : i + batch_size]],
            "log_mel": log_mel[kept[i : i + batch_size]],
            "label": kept[i : i + batch_size].astype(np.int32) % 5,
            "video_id": [f"video{k}" for k in kept[i : i + batch_size]],
            "valid": rows[i : i + batch_size] < num_videos,
        }
        for i in range(0, len(rows), batch_size)
    ]
    return frames, log_mel, batches


def test_features_are_means_over_clips_without_bos_and_padding():
    frames, log_mel, batches = make_batches(num_videos=7, batch_size=3)
    networks = {"one": {"scale": jnp.float32(1)}, "two": {"scale": jnp.float32(2)}}
    found, labels, ids = features.extract(features.jit_encoder(apply), networks, batches, keep_tokens=True)
    assert ids == [f"video{i}" for i in range(7)]
    assert labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    inputs = {
        "visual": frames.astype(np.float64).mean((1, 2, 3, 4, 5)),
        "audio": log_mel.astype(np.float64).mean((1, 2, 3)),
    }
    for name, scale in (("one", 1), ("two", 2)):
        for layer, factor in (("cnn", 1), ("unimodal", 10), ("multimodal", 100)):
            for modality, expected in inputs.items():
                np.testing.assert_allclose(
                    found[name].pooled[layer][modality],
                    np.stack(2 * [scale * factor * expected], 1),
                    rtol=1e-4,
                    atol=1e-4,
                )
        assert found[name].visual_tokens.shape == found[name].audio_tokens.shape == (7, 4, 2)


def test_the_network_is_traced_once():
    traces = []

    def counted(variables, batch):
        traces.append(None)
        return apply(variables, batch)

    networks = {"one": {"scale": jnp.float32(1)}, "two": {"scale": jnp.float32(2)}}
    encode = features.jit_encoder(counted)
    for _ in range(2):
        found, _, _ = features.extract(encode, networks, make_batches(7, 3)[2])
    assert len(traces) == 1
    assert found["one"].visual_tokens is None


def test_an_empty_split_is_an_error():
    with pytest.raises(UserError, match="no video"):
        features.extract(features.jit_encoder(apply), {"one": {"scale": jnp.float32(1)}}, [])


def test_a_diverged_network_is_an_error():
    with pytest.raises(UserError, match="bad network"):
        features.extract(features.jit_encoder(apply), {"bad": {"scale": jnp.float32(np.nan)}}, make_batches(2, 2)[2])


def test_several_labels_are_kept_as_they_are():
    _, _, batches = make_batches(num_videos=7, batch_size=3)
    for batch in batches:
        batch["labels"] = np.eye(5, dtype=np.uint8)[batch.pop("label")]
    _, labels, _ = features.extract(features.jit_encoder(apply), {"one": {"scale": jnp.float32(1)}}, batches)
    np.testing.assert_array_equal(labels, np.eye(5)[[0, 1, 2, 3, 4, 0, 1]])
