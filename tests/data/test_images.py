"""Frames to their last column and row: the same bytes whatever lies in memory, and the pixels of the file."""

from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.images import _jpeg
from avshare_jax.data.media import read_media
from tests.data.hostile import pixel_crop, show_by
from tests.data.test_colors import LIMITED, PATCHES, WEIGHTS, plain, quantized, write_planes

SIZES = [(43, 32), (32, 43), (43, 33), (33, 47), (44, 33), (48, 32), (49, 49), (65, 39)]
"""Width and height; odd ones, beside those that fill blocks of JPEG."""

FULL, BT601 = 2, 6


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def dirty(length, seed):
    """Leaves other bytes in free memory of about this length, and in smaller and larger pieces."""
    pieces = [
        np.full(length // 4 * quarters + odd, 37 * seed % 256, np.uint8) for quarters in (1, 4, 8) for odd in (0, 9)
    ]
    del pieces


def encoded_whole(planes, quality=90):
    """RGB (H, W, 3) after JPEG of a picture that fills all blocks, because its last pixels are repeated."""
    luma, *chroma = planes
    height, width = luma.shape
    down, right = -height % 16, -width % 16
    filled = [np.pad(luma, ((0, down), (0, right)), "edge")]
    for plane in chroma:
        missing = ((0, (height + down) // 2 - len(plane)), (0, (width + right) // 2 - plane.shape[1]))
        filled.append(np.pad(plane, missing, "edge"))
    jpeg = simplejpeg.encode_jpeg_yuv_planes(*map(np.ascontiguousarray, filled), quality=quality)
    return decoded(jpeg)[:height, :width]


def decoded(jpeg, colorspace="RGB"):
    return simplejpeg.decode_jpeg(jpeg, colorspace, fastupsample=True)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_jpeg_depends_on_nothing_but_the_planes(width, height):
    planes = [noise(height, width), noise(-(-height // 2), -(-width // 2), seed=1)]
    planes.append(planes[1][::-1].copy())
    jpegs = set()
    for behind in range(0, 256, 51):
        memory = np.full(height * width + 4 * width, behind, np.uint8)
        memory[: height * width] = planes[0].ravel()
        jpegs.add(_jpeg([memory[: height * width].reshape(height, width), *planes[1:]], 90))
    assert len(jpegs) == 1
    np.testing.assert_array_equal(decoded(jpegs.pop()), encoded_whole(planes))


def write_noise(path, width, height, pix_fmt="yuv420p", codec="ffv1", options=None):
    """Writes 16 frames, lossless and of full range, two in turn, and returns the planes of the first.

    Gray has no tags, as it is of full range without.
    """
    first, tags = [], (0, 2) if pix_fmt == "gray" else (FULL, BT601)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=16, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.color_range, stream.codec_context.colorspace = tags
        for number in range(16):
            frame = av.VideoFrame(width, height, pix_fmt)
            for place, plane in enumerate(frame.planes):
                values = noise(plane.height, plane.width, seed=place + 10 * (number % 2))
                np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width] = values
                first += [values] if number == 0 else []
            frame.pts, frame.time_base = number, Fraction(1, 16)
            frame.color_range, frame.colorspace = tags
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return first


def read_often(path, short_side, times=3):
    """The frames of a file, which must be the same bytes however often it is decoded."""
    found = set()
    for seed in range(times):
        dirty(short_side * short_side, seed)
        options = {"fps": 16, "short_side": short_side, "sample_rate": 16_000, "jpeg_quality": 90, "max_seconds": 9}
        found.add(tuple(read_media(path, **options).jpegs))
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(
    ("width", "height", "pix_fmt"),
    [(*size, "yuv420p") for size in SIZES] + [(43, 33, name) for name in ("yuv422p", "yuv444p", "yuv411p", "gray")],
)
def test_frames_are_the_same_bytes_and_right_to_their_edges(tmp_path, width, height, pix_fmt):
    planes = write_noise(tmp_path / "video.mkv", width, height, pix_fmt)
    jpeg = read_often(tmp_path / "video.mkv", min(width, height))[0]
    if pix_fmt == "yuv420p":
        np.testing.assert_array_equal(decoded(jpeg), encoded_whole(planes))
    check_luma(jpeg, planes[0])


def check_luma(jpeg, luma):
    gray = np.full((-(-luma.shape[0] // 2), -(-luma.shape[1] // 2)), 128, np.uint8)
    whole = encoded_whole([luma, gray, gray])[..., 0]  # Without chroma, each channel is luma.
    np.testing.assert_array_equal(decoded(jpeg, "GRAY")[..., 0], whole)


@pytest.mark.parametrize(
    ("matrix", "turn"), [((0, 1, -1, 0), lambda luma: np.rot90(luma, -1)), ((-1, 0, 0, 1), np.fliplr)]
)
def test_turned_frames(tmp_path, matrix, turn):
    luma = write_noise(tmp_path / "video.mp4", 43, 33, "yuv444p", "libx264", {"qp": "0"})[0]
    check_luma(read_often(show_by(tmp_path / "video.mp4", *matrix), 33)[0], turn(luma))


def test_cropped_frames(tmp_path):
    luma = write_noise(tmp_path / "video.mkv", 52, 38, "gray")[0]
    check_luma(read_often(pixel_crop(tmp_path / "video.mkv", 4, 2, 5, 3), 33)[0], luma[2:35, 4:47])


@pytest.mark.parametrize("short_side", [33, 71])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("name", ["BT.709", "BT.2020"])
def test_frames_of_other_matrices_and_sizes(tmp_path, name, bits, short_side):
    matrix, *weights = WEIGHTS[name]
    planes, pix_fmt = quantized(plain(PATCHES, *weights), LIMITED, bits), "yuv420p" if bits == 8 else "yuv420p10le"
    read_often(write_planes(tmp_path / "video.mkv", planes, pix_fmt, matrix=matrix, color_range=LIMITED), short_side)


def test_interlaced_frames(tmp_path):
    options = {"flags": "+ildct+ilme", "qp": "0"}
    write_noise(tmp_path / "video.mkv", 54, 66, "yuv444p", "libx264", options)
    with av.open(tmp_path / "video.mkv") as container:
        assert next(container.decode(video=0)).interlaced_frame
    read_often(tmp_path / "video.mkv", 43)
