"""InfoNCE between clips against loops in float64: negatives, missing videos, synchronization, gradients."""

import jax
import numpy as np
import pytest

from avshare_jax.objectives.contrast import LARGEST_SCALE, contrast, next_clips, unit, video_means

VIDEOS, CLIPS, WIDTH, LOG_SCALE = 4, 3, 5, 1.5
ALL = np.ones(VIDEOS, bool)
SOME = np.array([True, False, True, True])


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def reference(first, second, log_scale, present, same_video_weight):
    """Loss and top-1 by loops over anchors and candidates, in both directions."""
    scale = np.exp(log_scale)
    losses, best = [], []
    for anchors, candidates in ((first, second), (second, first)):
        for video, clip in np.ndindex(first.shape[:2]):
            if not present[video]:
                continue
            own = np.exp(scale * cosine(anchors[video, clip], candidates[video, clip]))
            rivals, total = [], own
            for other, place in np.ndindex(first.shape[:2]):
                if not present[other] or (other, place) == (video, clip):
                    continue
                weight = same_video_weight if other == video else 1.0
                if weight:
                    rivals.append(np.exp(scale * cosine(anchors[video, clip], candidates[other, place])))
                    total += weight * rivals[-1]
            losses.append(np.log(total / own))
            best.append(own > max(rivals))
    return np.mean(losses), np.mean(best)


@pytest.fixture(scope="module")
def views():
    return np.random.default_rng(0).normal(size=(2, VIDEOS, CLIPS, WIDTH))


@pytest.mark.parametrize("present", [ALL, SOME])
@pytest.mark.parametrize("same_video_weight", [0.0, 0.5, 1.0])
def test_loss_and_top1_are_those_of_the_loops(views, present, same_video_weight):
    first, second = views
    second = first + 0.7 * second  # So that some clips are found, not all.
    options = {"present": present, "same_video_weight": same_video_weight}
    found = contrast(*np.float32((first, second)), np.float32(LOG_SCALE), **options)
    np.testing.assert_allclose(found, reference(first, second, LOG_SCALE, **options), rtol=1e-5)
    assert 0 < found[1] < 1
    if present is ALL:
        options["present"] = None
        np.testing.assert_array_equal(found, contrast(*np.float32((first, second)), np.float32(LOG_SCALE), **options))


@pytest.mark.parametrize("same_video_weight", [0.0, 0.5])
def test_gradients_are_the_slopes_of_the_reference(views, same_video_weight):
    arguments = (*views, np.array(LOG_SCALE))
    options = {"present": SOME, "same_video_weight": same_video_weight}
    gradients = jax.grad(lambda *inputs: contrast(*inputs, **options)[0], (0, 1, 2))(*map(np.float32, arguments))
    random = np.random.default_rng(1)
    for number, gradient in enumerate(gradients):
        direction = random.normal(size=gradient.shape)
        ahead, behind = (
            reference(*(x + step * direction if n == number else x for n, x in enumerate(arguments)), **options)[0]
            for step in (1e-6, -1e-6)
        )
        assert np.sum(gradient * direction) == pytest.approx((ahead - behind) / 2e-6, rel=1e-3)
    np.testing.assert_array_equal(gradients[0][~SOME], 0)
    np.testing.assert_array_equal(gradients[1][~SOME], 0)


def test_lengths_do_not_count_and_zeros_give_no_nan(views):
    first, second = np.float32(views)
    longer = first * np.random.default_rng(2).uniform(0.1, 10, (VIDEOS, CLIPS, 1)).astype(np.float32)
    np.testing.assert_allclose(contrast(first, second, 0.0), contrast(longer, second, 0.0), rtol=1e-5)
    gradient = jax.grad(lambda x: contrast(x, second, 0.0)[0])(np.zeros_like(first))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("present", [np.zeros(VIDEOS, bool), np.arange(VIDEOS) == 1])
def test_without_another_video_nothing_counts(views, present):
    first, second = np.float32(views)
    (loss, top1), gradient = jax.value_and_grad(lambda x: contrast(x, second, 0.0, present=present), has_aux=True)(
        first
    )
    assert (loss, top1) == (0, 0)
    np.testing.assert_array_equal(gradient, 0)


def test_collapsed_projections_find_nothing():
    same = np.ones((VIDEOS, CLIPS, WIDTH), np.float32)
    loss, top1 = contrast(same, same, 0.0)
    assert top1 == 0
    assert loss == pytest.approx(np.log(1 + (VIDEOS - 1) * CLIPS), rel=1e-6)


def test_the_scale_is_limited(views):
    first, second = np.float32(views)
    limit = np.float32(np.log(LARGEST_SCALE))
    assert contrast(first, second, limit + 5)[0] == pytest.approx(float(contrast(first, second, limit)[0]), rel=1e-6)


def test_views_of_one_modality(views):
    projections = np.float32(views[0])
    np.testing.assert_array_equal(next_clips(projections)[:, :-1], projections[:, 1:])
    np.testing.assert_array_equal(next_clips(projections)[:, -1], projections[:, 0])
    means = (projections / np.linalg.norm(projections, axis=-1, keepdims=True)).mean(1, keepdims=True)
    np.testing.assert_allclose(video_means(projections), means, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(unit(projections), axis=-1), 1, rtol=1e-6)
