"""Objectives on clips: which there are for which weights, how they add up, and where their gradients go."""

import jax
import numpy as np
import pytest

from avshare_jax import recipes
from avshare_jax.models import Projection
from avshare_jax.objectives.contrast import contrast
from avshare_jax.objectives.decorrelation import sigreg, variance_and_covariance
from avshare_jax.training.clip_objectives import WEIGHTS, clip_objectives, projection_of
from configs.pretrain import get_config

VIDEOS, CLIPS, WIDTH = 4, 3, 5
SCALES = {"contrast": np.float32(1.0), "within": np.float32(0.5)}
PRESENT = {"visual": np.array([True, True, False, True]), "audio": np.array([True, True, True, False])}
KEY = jax.random.key(0)


def options(**changes):
    config = get_config("demo").objectives
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def projections():
    random = np.random.default_rng(0)
    return {name: random.normal(size=(VIDEOS, CLIPS, WIDTH)).astype(np.float32) for name in ("visual", "audio")}


def test_the_papers_recipe_has_none():
    for variant in ("", "demo", "10s"):
        assert projection_of(get_config(variant).objectives) is None
    assert set(WEIGHTS) == {name for name in recipes.clip_objectives() if name.endswith("_weight")}


def test_each_weight_brings_what_it_needs():
    assert projection_of(options(contrast_weight=1.0)) == Projection(128, 64, ("contrast",))
    assert projection_of(options(within_weight=1.0)) == Projection(128, 64, ("within",))
    for weight in WEIGHTS[2:]:
        assert projection_of(options(**{weight: 1.0})) == Projection(128, 64, ())


@pytest.mark.parametrize("present", [{}, PRESENT])
def test_the_sum_is_of_weighted_terms(projections, present):
    chosen = options(
        contrast_weight=2.0,
        contrast_same_video=0.5,
        within_weight=3.0,
        variance_weight=5.0,
        covariance_weight=0.7,
        sigreg_weight=0.3,
        sigreg_slices=8,
    )
    total, metrics = clip_objectives(chosen, projections, SCALES, present, KEY)
    weights = {"contrast/loss": 2.0}
    for name in projections:
        weights |= {f"within/{name}_loss": 3.0}
        weights |= {f"decorrelation/{name}_{term}": chosen[f"{term}_weight"] for term in TERMS}
    assert float(total) == pytest.approx(sum(weight * float(metrics[name]) for name, weight in weights.items()))
    assert set(metrics) - set(weights) == {"contrast/top1", "within/visual_top1", "within/audio_top1"}

    rows = np.array([True, True, False, False]) if present else np.ones(VIDEOS, bool)
    visual, audio = projections["visual"], projections["audio"]
    expected = contrast(visual[rows], audio[rows], SCALES["contrast"], same_video_weight=0.5)[0]
    assert float(metrics["contrast/loss"]) == pytest.approx(float(expected), rel=1e-5)
    for number, (name, clips) in enumerate(projections.items()):
        kept = clips[present[name]] if present else clips
        following = kept[:, [1, 2, 0]]
        expected = {"within": contrast(kept, following, SCALES["within"])[0]}
        assert float(metrics[f"within/{name}_loss"]) == pytest.approx(float(expected["within"]), rel=1e-5)
        flat = kept.reshape(-1, WIDTH)
        terms = [*variance_and_covariance(flat), sigreg(jax.random.fold_in(KEY, number), flat, 8)]
        for term, value in zip(TERMS, terms, strict=True):
            assert float(metrics[f"decorrelation/{name}_{term}"]) == pytest.approx(float(value), rel=1e-5)


TERMS = ("variance", "covariance", "sigreg")


def test_contrast_of_videos_compares_their_means(projections):
    chosen = options(contrast_weight=1.0, contrast_unit="videos")
    loss, _ = clip_objectives(chosen, projections, SCALES, {}, KEY)
    means = []
    for clips in projections.values():
        directions = clips / np.linalg.norm(clips, axis=-1, keepdims=True)
        means.append(directions.mean(1, keepdims=True))
    assert float(loss) == pytest.approx(float(contrast(*means, SCALES["contrast"])[0]), rel=1e-5)


def test_gradients_reach_projections_and_temperatures(projections):
    chosen = options(contrast_weight=1.0, within_weight=1.0)
    gradients = jax.grad(lambda *inputs: clip_objectives(chosen, *inputs, {}, KEY)[0], (0, 1))(projections, SCALES)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
