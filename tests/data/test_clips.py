"""Where clips and crops lie, on frames whose pixels say where they come from."""

import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.clips import (
    Clips,
    cut_frames,
    cut_log_mel,
    cut_views,
    frame_size,
    spatial_places,
    temporal_starts,
)
from avshare_jax.data.frontend import LOG_FLOOR
from avshare_jax.data.unreadable import UnreadableError


def clips(**sizes):
    defaults = {"num_clips": 3, "frames_per_clip": 2, "frame_stride": 1, "mel_frames": 10, "crop": 8, "mels": 3}
    return Clips(**defaults | {"min_short_side": 8, "max_short_side": 16, "fps": 4.0, "mel_rate": 20.0} | sizes)


def test_crop_is_the_same_in_all_frames_and_lies_where_it_should():
    ramp = np.zeros((16, 24, 3), np.uint8)
    ramp[..., 0] = 10 * np.arange(16)[:, None]  # red tells the row, green the column
    ramp[..., 1] = 10 * np.arange(24)
    jpegs = [simplejpeg.encode_jpeg(ramp, quality=98, colorsubsampling="444")] * 6
    places = {(0.0, 0.0): (0, 0), (1.0, 1.0): (8, 16), (0.5, 0.25): (4, 4)}
    for place, (top, left) in places.items():
        frames = cut_frames(jpegs, clips(), 0, short_side=16, place=place).reshape(6, 8, 8, 3)
        assert (frames == frames[0]).all()
        np.testing.assert_allclose(frames[0, ..., :2], ramp[top : top + 8, left : left + 8, :2], atol=8)
    whole = cut_frames(jpegs, clips(), 0, short_side=8, place=(0.0, 0.0))[0, 0]  # 16 rows are resized to 8
    np.testing.assert_allclose(whole[1:-1, 1:-1, 0], (20 * np.arange(8) + 5)[1:-1, None] * np.ones(6), atol=8)


def test_no_frames_are_black_and_late_clips_silent():
    assert not cut_frames([], clips(), 0, 8, (0.0, 0.0)).any()
    log_mel = np.arange(36, dtype=np.float32).reshape(12, 3)
    cut = cut_log_mel(log_mel, clips(), start=1)  # rows 5, 15 and 25
    np.testing.assert_array_equal(cut[0, :7], log_mel[5:])
    np.testing.assert_allclose(cut[0, 7:], LOG_FLOOR)
    np.testing.assert_allclose(cut[1:], LOG_FLOOR)


def record(num_frames, rows):
    return {"frames": [b""] * num_frames, "log_mel": np.zeros((rows, 3))}


@pytest.mark.parametrize(
    ("num_frames", "rows", "last"),
    [
        (40, 200, 34),  # 20 rows and 4 frames a second; 3 clips of 2 frames take 6 of them
        (40, 300, 34),  # sound after the image
        (40, 100, 15),  # 5 s of sound and a quarter: 21 frames
        (40, 195, 34),  # sound that ends a quarter of a second before the image
        (40, 194, 33),
        (40, 60, 7),
        (40, 10, 0),  # too short
        (5, 200, 0),
        (40, 0, 34),  # image alone
        (0, 200, 34),  # sound alone
        (0, 60, 6),
        (0, 10, 0),
    ],
)
def test_clips_lie_where_image_and_sound_are(num_frames, rows, last):
    assert clips().last_start(record(num_frames, rows)) == last


def test_views_are_what_one_crop_each_would_be():
    noise = np.random.default_rng(0).integers(0, 255, (6, 16, 24, 3), dtype=np.uint8)
    jpegs = [simplejpeg.encode_jpeg(image) for image in noise]
    places = spatial_places(3, *frame_size(jpegs[0]))
    views = cut_views(jpegs, clips(), 1, 13, places)
    for view, place in zip(views, ((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)), strict=True):
        np.testing.assert_array_equal(view, cut_frames(jpegs, clips(), 1, 13, place))
    assert not np.array_equal(views[0], views[1]) and not np.array_equal(views[1], views[2])


@pytest.mark.parametrize(("last", "views"), [(18, 4), (7, 3), (2, 5), (0, 10), (480, 10)])
def test_starts_are_even_from_the_first_to_the_last(last, views):
    np.testing.assert_array_equal(temporal_starts(last, views), np.linspace(0, last, views).round())


def test_a_single_view_is_in_the_middle():
    assert temporal_starts(19, 1) == [9]
    assert spatial_places(1, 16, 24) == spatial_places(1, 24, 16) == [(0.5, 0.5)]


def test_crops_go_along_the_longer_axis():
    assert spatial_places(3, 16, 24) == spatial_places(3, 16, 16) == [(0.5, 0.0), (0.5, 0.5), (0.5, 1.0)]
    assert spatial_places(3, 24, 16) == [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    assert [place for _, place in spatial_places(5, 1, 2)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_damaged_frames_are_named():
    whole = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))
    jpegs = [whole] * 4 + [whole[:-40]] + [whole]
    with pytest.raises(UnreadableError, match="frame 4 is damaged: "):
        cut_frames(jpegs, clips(), 0, 16, (0.0, 0.0))
    with pytest.raises(UnreadableError, match="frame 0 is damaged: "):
        frame_size(b"not a JPEG")
