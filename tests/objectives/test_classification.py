"""Losses of classification against float64 NumPy, written from PyTorch's definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from avshare_jax.objectives import classification

VIDEOS, CLIPS, CLASSES = 4, 3, 5


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(VIDEOS, CLIPS, CLASSES)).astype(np.float32)


@pytest.fixture
def labels():
    return np.array([4, 0, 2, 2], np.int32)


def test_cross_entropy(logits, labels):
    found = classification.cross_entropy(logits, labels)
    x = logits.astype(np.float64)
    shares = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    expected = -np.mean(
        [np.log(shares[video, clip, labels[video]]) for video in range(VIDEOS) for clip in range(CLIPS)]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_multi_margin(logits, labels, margin):
    total = 0.0
    for video in range(VIDEOS):
        for x in logits[video].astype(np.float64):
            wrong = [j for j in range(CLASSES) if j != labels[video]]
            total += sum(max(0.0, margin - x[labels[video]] + x[j]) for j in wrong) / CLASSES
    found = classification.loss_function({"name": "multi_margin", "margin": margin})(logits, labels)
    np.testing.assert_allclose(found, total / (VIDEOS * CLIPS), rtol=1e-6)


def test_binary_cross_entropy(logits):
    labels = np.random.default_rng(1).integers(0, 2, (VIDEOS, CLASSES)).astype(np.uint8)
    shares, truth = 1 / (1 + np.exp(-logits.astype(np.float64))), labels[:, None]
    expected = -np.mean(truth * np.log(shares) + (1 - truth) * np.log(1 - shares))
    np.testing.assert_allclose(classification.binary_cross_entropy(logits, labels), expected, rtol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_average_clips_and_heads(logits, multi_label):
    other = np.random.default_rng(2).normal(size=logits.shape)
    expected = np.zeros((VIDEOS, CLASSES))
    for x in (logits.astype(np.float64), other):
        shares = 1 / (1 + np.exp(-x)) if multi_label else np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        expected += shares.mean(1) / 2
    found = classification.scores({"clips": logits, "tokens": jnp.asarray(other)}, multi_label)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
