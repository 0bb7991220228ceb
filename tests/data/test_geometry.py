"""Which part of a frame is shown and which way up, against what the standards say, worked out by hand."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.colors import plane_array
from avshare_jax.data.geometry import Cutter
from avshare_jax.data.media import read_media
from tests.data.hostile import clean_aperture, moving_image, pixel_crop, show_by, sound, write

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 220, 30), (30, 30, 220), (230, 230, 230)

CORNERS = {
    (1, 0, 0, 1): [[RED, GREEN], [BLUE, WHITE]],
    (-1, 0, 0, 1): [[GREEN, RED], [WHITE, BLUE]],
    (1, 0, 0, -1): [[BLUE, WHITE], [RED, GREEN]],
    (-1, 0, 0, -1): [[WHITE, BLUE], [GREEN, RED]],
    (0, 1, 1, 0): [[RED, BLUE], [GREEN, WHITE]],
    (0, 1, -1, 0): [[BLUE, RED], [WHITE, GREEN]],
    (0, -1, 1, 0): [[GREEN, WHITE], [RED, BLUE]],
    (0, -1, -1, 0): [[WHITE, GREEN], [BLUE, RED]],
}
"""Matrix (a, b, c, d) → where the corners of the first picture are shown. ISO 14496-12: x' = a x + c y, y' = b x + d y;
so (0, 1, -1, 0) shows what was on top, at small y, on the right, at large x', and what was left on top."""


def four_corners(height=48, width=64):
    """16 frames, the four colors brighter in the second half."""
    frames = np.zeros((16, height, width, 3), np.uint8)
    frames[:, : height // 2, : width // 2], frames[:, : height // 2, width // 2 :] = RED, GREEN
    frames[:, height // 2 :, : width // 2], frames[:, height // 2 :, width // 2 :] = BLUE, WHITE
    frames[8:] += 20
    return frames


def read(path, short_side=48):
    found = read_media(path, fps=16, short_side=short_side, sample_rate=16_000, jpeg_quality=95, max_seconds=9)
    return found, simplejpeg.decode_jpeg(found.jpegs[0]).astype(float)


def corners_of(image):
    height, width = image.shape[:2]
    return image[np.ix_((height // 4, 3 * height // 4), (width // 4, 3 * width // 4))]


@pytest.mark.parametrize("pixels", [Fraction(1), Fraction(3, 2)])
@pytest.mark.parametrize("matrix", CORNERS, ids=str)
def test_all_eight_display_matrices(tmp_path, matrix, pixels):
    def widen(stream):
        stream.codec_context.sample_aspect_ratio = pixels

    path = show_by(write(tmp_path / "video.mp4", four_corners(), set_up=widen), *matrix)
    found, image = read(path)
    wide = round(64 * pixels)
    assert image.shape == ((wide, 48, 3) if matrix[0] == 0 else (48, wide, 3))
    assert (found.width, found.height) == ((48, 64) if matrix[0] == 0 else (64, 48))
    np.testing.assert_allclose(corners_of(image), CORNERS[matrix], atol=8)
    assert found.notes == ()


def test_matrix_that_enlarges_is_no_other_orientation(tmp_path):
    found, image = read(show_by(write(tmp_path / "video.mp4", four_corners()), 0, 2, -2, 0))
    np.testing.assert_allclose(corners_of(image), CORNERS[0, 1, -1, 0], atol=8)
    assert image.shape == (64, 48, 3)


def with_bars(left, top, right, bottom, height=48, width=64):
    """16 frames of four corners in bars of black, and what is inside of the bars."""
    frames = np.zeros((16, height, width, 3), np.uint8)
    inside = four_corners(height - top - bottom, width - left - right)
    frames[:, top : height - bottom, left : width - right] = inside
    return frames, inside


def check_cropped(path, inside):
    found, image = read(path, short_side=min(inside.shape[1:3]))
    assert (found.width, found.height) == (inside.shape[2], inside.shape[1])
    assert image.shape == inside.shape[1:]
    np.testing.assert_allclose(corners_of(image), corners_of(inside[0]), atol=8)
    assert min(image[edge].max(axis=-1).min() for edge in ([0], [-1], np.s_[:, 0], np.s_[:, -1])) > 80
    assert found.notes == ()


@pytest.mark.parametrize("bars", [(10, 4, 6, 8), (12, 0, 12, 0), (7, 3, 8, 4)], ids=str)
def test_clean_aperture_of_mp4(tmp_path, bars):
    left, top, right, bottom = bars
    frames, inside = with_bars(*bars)
    path = write(tmp_path / "video.mp4", frames, sound(1.0), options={"crf": "4"}, pix_fmt="yuv444p")
    middle = Fraction(left - right, 2), Fraction(top - bottom, 2)
    check_cropped(clean_aperture(path, 64 - left - right, 48 - top - bottom, *middle), inside)


@pytest.mark.parametrize("bars", [(10, 4, 6, 8), (12, 0, 12, 0), (7, 3, 8, 4)], ids=str)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le"])
def test_pixel_crop_of_matroska(tmp_path, bars, pix_fmt):
    frames, inside = with_bars(*bars)
    path = write(tmp_path / "video.mkv", frames, sound(1.0), codec="ffv1", audio_codec="flac", pix_fmt=pix_fmt)
    check_cropped(pixel_crop(path, *bars), inside)


def test_clean_aperture_is_cut_before_the_picture_is_turned_and_widened(tmp_path):
    def widen(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    frames, inside = with_bars(16, 8, 8, 0)
    path = write(tmp_path / "video.mp4", frames, options={"crf": "4"}, set_up=widen)
    found, image = read(show_by(clean_aperture(path, 40, 40, Fraction(4), Fraction(4)), 0, 1, -1, 0), short_side=40)
    assert (found.width, found.height) == (40, 40)
    assert image.shape == (60, 40, 3)
    np.testing.assert_allclose(corners_of(image), CORNERS[0, 1, -1, 0], atol=8)


@pytest.mark.parametrize(("width", "height"), [(60, 48), (24, 48), (64, 8)])
def test_frames_that_are_too_small_to_be_cut_stay_whole(width, height):
    """Frames may become smaller in mid-file, and then the container's cropping is not meant for them."""
    frame = av.VideoFrame(width, height, "yuv420p")
    cutter = Cutter((30, 4, 30, 4))
    assert cutter.size(frame) == (width, height) and cutter.cut(frame) is frame


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_interlaced_frames_have_no_comb(tmp_path, codec):
    """A square moves; its place in the lower field is that of half a frame later."""
    frames = np.zeros((16, 96, 128, 3), np.uint8)
    for number, frame in enumerate(frames):
        for field in (0, 1):
            left = 4 * number + 16 * field
            frame[field::2][16:32, left : left + 32] = 255
    interlaced = {"flags": "+ildct+ilme", "qp": "4"} if codec == "libx264" else {"flags": "+ildct+ilme", "b": "20M"}
    path = write(tmp_path / "video.mkv", frames, codec=codec, options=interlaced)
    _, image = read(path, short_side=48)
    rows = image[18:30, :, 0]
    assert np.abs(np.diff(rows, axis=0)).max() < 30
    assert cv2.countNonZero(np.uint8(rows[5] > 128)) == pytest.approx(16, abs=2)


def test_picture_that_is_not_interlaced_keeps_all_lines(tmp_path):
    frames = moving_image(1.0)
    frames[:, ::2] = 0
    _, image = read(write(tmp_path / "video.mkv", frames, codec="ffv1", pix_fmt="yuv444p"))
    assert np.abs(np.diff(image[:, 40, 0])).mean() > 30


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("matrix", [1, 2, 5, 8, 9])
def test_packed_pixels_keep_their_values_and_tags(matrix, color_range):
    frame = av.VideoFrame(64, 48, "yuyv422")
    frame.colorspace, frame.color_range = matrix, color_range
    frame.pts, frame.time_base = 0, Fraction(1, 16)
    packed = np.frombuffer(frame.planes[0], np.uint8).reshape(48, -1)
    packed[:] = np.random.default_rng(0).integers(0, 256, packed.shape, np.uint8)
    cut = Cutter((4, 3, 2, 1)).cut(frame)
    for plane, values in zip(cut.planes, (packed[:, ::2], packed[:, 1::4], packed[:, 3::4]), strict=True):
        left, width = 4 * values.shape[1] // 64, plane.width
        np.testing.assert_array_equal(plane_array(plane), values[3:47, left : left + width])
    assert (cut.colorspace, cut.color_range) == (frame.colorspace, frame.color_range) == (matrix, color_range)
