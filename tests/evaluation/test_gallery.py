"""Which test videos retrieval searches, what they are called, and their pictures."""

from types import SimpleNamespace

import numpy as np

from avshare_jax.evaluation import gallery


def test_captions_are_classes_or_ids():
    assert gallery.caption_videos(["v", "w"], np.array([1, -1]), ("a", "b")) == ["b", "w"]
    several = np.array([[0, 1, 1], [0, 0, 0]], np.uint8)
    assert gallery.caption_videos(["v", "w"], several, ("a", "b", "c")) == ["b", "w"]


def test_the_gallery_is_a_fixed_sample():
    chosen = gallery.choose_gallery(50, 20, seed=3)
    assert len(set(chosen)) == 20 and np.all(np.diff(chosen) > 0) and chosen.max() < 50
    np.testing.assert_array_equal(chosen, gallery.choose_gallery(50, 20, seed=3))
    assert gallery.choose_gallery(5, 20, seed=3).tolist() == [0, 1, 2, 3, 4]


def test_pictures_are_those_of_the_gallery():
    """Of each clip of the few that are shown, the frame in its middle."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, 4, 3, 8, 8, 3), np.uint8)  # videos, clips, frames
    log_mel = rng.normal(size=(6, 4, 5, 7)).astype(np.float32)
    names = [f"test/{number}" for number in range(6)]
    batches = [
        {
            "video_id": names[start : start + 3],
            "frames": frames[start : start + 3],
            "log_mel": log_mel[start : start + 3],
        }
        for start in (0, 3)
    ]
    searched = gallery.Gallery(["test/1", "test/2", "test/4", "test/5"], ["a", "b", "c", "d"], {})
    row = SimpleNamespace(query=3, sounds=[0], images=[3])
    pictures = gallery.read_pictures(batches, searched, [row])
    assert {place: picture.caption for place, picture in pictures.items()} == {0: "a", 3: "d"}
    np.testing.assert_array_equal(pictures[3].frames, frames[5, :, 1])
    np.testing.assert_array_equal(pictures[3].log_mel, np.concatenate(log_mel[5]))
