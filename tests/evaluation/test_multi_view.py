"""Pooling of views against NumPy, with padding, unreadable rows, batches that divide and that do not, and processes."""

import numpy as np
import pytest

from avshare_jax.evaluation import multi_view

VIDEOS, VIEWS, CLASSES = 5, 6, 3


@pytest.fixture(scope="module")
def inputs():
    """A number for each view of each video, from which its scores follow."""
    return np.random.default_rng(0).random((VIDEOS, VIEWS, CLASSES)).astype(np.float32)


def batches(inputs, size):
    """Batches as `multi_view_batches` gives them; the last is padded with the last view."""
    count = VIDEOS * VIEWS
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        place = np.minimum(rows, count - 1)
        video, view = place // VIEWS, place % VIEWS
        yield {
            "frames": inputs[video, view],
            "label": video.astype(np.int32),
            "valid": rows < count,
            "has_video": np.ones(size, bool),
            "has_audio": video != 2,
            "video_id": [f"video {number}" for number in video],
        }


def score(inputs, size, pool):
    mesh = multi_view.view_mesh()
    scorer = multi_view.jit_scorer(lambda factor, batch: {"visual": factor * batch["frames"]}, mesh)
    return multi_view.score_videos(scorer, np.float32(2), batches(inputs, size), ("frames",), pool, mesh)


@pytest.mark.parametrize("size", [6, 10, 7, 64])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_views_are_pooled_as_numpy_does(inputs, size, pool):
    videos = score(inputs, size, pool)
    expected = getattr((2 * inputs).astype(np.float64), pool)(1)
    assert list(videos) == [f"video {number}" for number in range(VIDEOS)]
    for number, video in enumerate(videos.values()):
        assert (video.views, video.label, video.present) == (VIEWS, number, {"visual": True, "audio": number != 2})
        np.testing.assert_allclose(multi_view.pooled(video, pool)["visual"], expected[number], rtol=1e-12)


def test_what_processes_have_is_merged(inputs):
    whole = score(inputs, 6, "mean")
    parts = []
    for half in (range(0, 17), range(17, VIDEOS * VIEWS)):
        part = {}
        for row in half:
            video, view = divmod(row, VIEWS)
            found = part.setdefault(f"video {video}", multi_view.Video(np.int32(video), {}))
            found.add({"visual": 2 * inputs[video, view].astype(np.float64)}, 1, "mean")
        parts.append(part)
    merged = multi_view.merge(parts, "mean")
    assert merged.keys() == whole.keys()
    for name, video in merged.items():
        expected = multi_view.pooled(whole[name], "mean")["visual"]
        np.testing.assert_allclose(multi_view.pooled(video, "mean")["visual"], expected, rtol=1e-12)


def test_what_is_sent_to_other_processes_comes_back_to_the_bit(inputs):
    videos = score(inputs, 6, "mean")
    sent = multi_view.to_arrays(videos)
    assert not any(array.dtype.hasobject for array in sent.values()), "only pickles could hold them"
    back = multi_view.from_arrays(sent)
    assert list(back) == list(videos)
    for name, video in videos.items():
        assert (back[name].views, back[name].label, back[name].present) == (video.views, video.label, video.present)
        assert back[name].label.dtype == video.label.dtype
        np.testing.assert_array_equal(back[name].scores["visual"], video.scores["visual"], strict=True)
    assert multi_view.from_arrays(multi_view.to_arrays({})) == {}, "a process may have no rows"


def test_a_batch_divides_over_crops():
    assert [multi_view.whole_batch(asked, 3) for asked in (1, 16, 18)] == [3, 18, 18]
