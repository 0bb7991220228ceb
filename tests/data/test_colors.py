"""Colors against those that were meant: patches that the standards' formulas encode in float64, through whole files."""

from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.media import read_media
from tests.data.hostile import pixel_crop

PATCHES = np.array(
    [
        [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)],
        [(200, 100, 50), (30, 160, 220), (128, 128, 128), (250, 220, 30)],
        [(0, 0, 0), (16, 16, 16), (180, 40, 160), (90, 200, 120)],
    ],
    float,
)
"""Colors (rows, columns, RGB), 0 to 255."""

SIDE = 16
"""Pixels of a patch."""

WEIGHTS = {
    "BT.709": (1, 0.2126, 0.0722),
    "FCC": (4, 0.30, 0.11),
    "BT.601 625": (5, 0.299, 0.114),
    "BT.601 525": (6, 0.299, 0.114),
    "SMPTE 240M": (7, 0.212, 0.087),
    "BT.2020": (9, 0.2627, 0.0593),
}
"""H.273's number of a matrix, and its weights of red and blue in luma."""

LIMITED, FULL = 1, 2


def plain(rgb, red, blue):
    """Luma 0 to 1 and both differences -0.5 to 0.5 by a matrix's weights of red and blue."""
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    return luma, (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)


def ycgco(rgb):
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    return (r + 2 * g + b) / 4, (2 * g - r - b) / 4, (r - b) / 2


def constant_luminance(rgb):
    """BT.2020's other way: luma is that of light, and the differences are divided by their largest."""
    r, g, b = (np.where(v < 4.5 * 0.0181, v / 4.5, ((v + 0.0993) / 1.0993) ** (1 / 0.45)) for v in plain_channels(rgb))
    light = 0.2627 * r + 0.6780 * g + 0.0593 * b
    luma = np.where(light < 0.0181, 4.5 * light, 1.0993 * light**0.45 - 0.0993)
    r, _, b = plain_channels(rgb)
    blue, red = b - luma, r - luma
    return luma, blue / np.where(blue <= 0, 1.9404, 1.5816), red / np.where(red <= 0, 1.7184, 0.9936)


def plain_channels(rgb):
    return np.moveaxis(rgb / 255, -1, 0)


def quantized(components, color_range, bits):
    """Whole numbers of `bits` bits by H.273's formulas for limited or full range."""
    luma, *differences = components
    scale, top, middle = 2 ** (bits - 8), 2**bits - 1, 2 ** (bits - 1)
    if color_range == FULL:
        values = [luma * top, *(difference * top + middle for difference in differences)]
    else:
        values = [(219 * luma + 16) * scale, *((224 * difference + 128) * scale for difference in differences)]
    return [np.clip(np.round(value), 0, top).astype(np.uint16 if bits > 8 else np.uint8) for value in values]


def write_planes(path, planes, pix_fmt, *, codec="ffv1", matrix=2, color_range=0, primaries=2, transfer=2, **options):
    """Writes 16 frames; the planes (h, w) are enlarged to the size of the format's, and turned upside down half-way."""
    height, width = (SIDE * length for length in planes[0].shape[:2])
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=16, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        tags = {"colorspace": matrix, "color_range": color_range, "color_primaries": primaries, "color_trc": transfer}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(16):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, values in zip(frame.planes, planes, strict=True):
                values = values if number < 8 else values[::-1]
                size = values.dtype.itemsize * (values[0, 0].size)
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width * size]
                enlarged = values.repeat(plane.height // len(values), 0).repeat(plane.width // values.shape[1], 1)
                rows[:] = np.ascontiguousarray(enlarged).view(np.uint8).reshape(rows.shape)
            for name, value in tags.items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = number, Fraction(1, 16)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_patches(path):
    """The mean color (rows, columns, RGB) in the middle of each patch of the first frame, and the notes."""
    found = read_media(path, fps=16, short_side=48, sample_rate=16_000, jpeg_quality=98, max_seconds=9)
    return patches_of(simplejpeg.decode_jpeg(found.jpegs[0]).astype(float)), found.notes


def patches_of(image):
    rows, columns = image.shape[0] // SIDE, image.shape[1] // SIDE
    return image.reshape(rows, SIDE, columns, SIDE, 3)[:, 5:11, :, 5:11].mean(axis=(1, 3))


def check(path, expected=PATCHES, notes=()):
    patches, found_notes = read_patches(path)
    assert np.abs(patches - expected).max() <= 6, np.round(patches - expected)
    assert found_notes == notes


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("name", WEIGHTS)
def test_every_matrix_and_range_comes_out_as_it_was_meant(tmp_path, name, color_range, pix_fmt):
    matrix, red, blue = WEIGHTS[name]
    planes = quantized(plain(PATCHES, red, blue), color_range, 10 if "10" in pix_fmt else 8)
    check(write_planes(tmp_path / "video.mkv", planes, pix_fmt, matrix=matrix, color_range=color_range))


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le"])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize(
    ("matrix", "primaries", "convert"), [(8, 2, ycgco), (10, 2, constant_luminance), (13, 9, constant_luminance)]
)
def test_matrices_that_ffmpeg_does_not_convert(tmp_path, matrix, primaries, convert, color_range, pix_fmt):
    planes = quantized(convert(PATCHES), color_range, 10 if "10" in pix_fmt else 8)
    tags = {"matrix": matrix, "color_range": color_range, "primaries": primaries}
    check(write_planes(tmp_path / "video.mkv", planes, pix_fmt, **tags))


@pytest.mark.parametrize(("primaries", "name"), [(1, "BT.709"), (9, "BT.2020"), (6, "SMPTE 240M"), (4, "FCC")])
def test_matrix_that_follows_from_the_primaries(tmp_path, primaries, name):
    planes = quantized(plain(PATCHES, *WEIGHTS[name][1:]), LIMITED, 8)
    check(write_planes(tmp_path / "video.mkv", planes, "yuv444p", matrix=12, color_range=LIMITED, primaries=primaries))


@pytest.mark.parametrize(
    ("file", "codec", "pix_fmt", "options"),
    [
        ("video.mp4", "libx264", "yuv420p", {"qp": "0"}),
        ("video.mkv", "libx264", "yuv420p10le", {"qp": "0"}),
        ("video.mp4", "libx265", "yuv420p10le", {"x265-params": "lossless=1:log-level=none"}),
        ("video.webm", "libvpx-vp9", "yuv420p", {"lossless": "1"}),
    ],
)
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_codecs_carry_the_tags(tmp_path, file, codec, pix_fmt, options, color_range):
    planes = quantized(plain(PATCHES, *WEIGHTS["BT.709"][1:]), color_range, 10 if "10" in pix_fmt else 8)
    tags = {"codec": codec, "matrix": 1, "color_range": color_range}
    check(write_planes(tmp_path / file, planes, pix_fmt, **tags, **options))


@pytest.mark.parametrize(
    ("columns", "rows", "matrix", "name"),
    [
        (4, 3, 0, "BT.601"),
        (4, 3, 3, "BT.601"),
        (45, 36, 2, "BT.601"),
        (36, 64, 2, "BT.601"),
        (79, 8, 2, "BT.601"),
        (80, 8, 2, "BT.709"),
        (80, 8, 0, "BT.709"),
        (8, 80, 2, "BT.709"),
        (40, 37, 2, "BT.709"),
    ],
)
def test_untagged_frames_go_by_their_size(tmp_path, columns, rows, matrix, name):
    """HD is 1,280 pixels or more on the longer side, or more than 576 on the shorter, upright films included."""
    colors = np.resize(PATCHES.reshape(-1, 3)[:7], (rows, columns, 3))
    planes = quantized(plain(colors, *WEIGHTS[f"{name} 525" if name == "BT.601" else name][1:]), LIMITED, 8)
    path = write_planes(tmp_path / "video.mkv", planes, "yuv420p", matrix=matrix)
    short = SIDE * min(rows, columns)
    jpeg = read_media(path, fps=16, short_side=short, sample_rate=1, jpeg_quality=95, max_seconds=9).jpegs[0]
    assert np.abs(patches_of(simplejpeg.decode_jpeg(jpeg).astype(float)) - colors).max() <= 6


def test_the_size_that_counts_is_that_before_cropping(tmp_path):
    """An HD film stays one where its bars are cut away: 1,280 x 128 pixels, of which 1,088 x 112 are shown."""
    colors = np.resize(PATCHES.reshape(-1, 3)[:7], (8, 80, 3))
    planes = quantized(plain(colors, *WEIGHTS["BT.709"][1:]), LIMITED, 8)
    path = pixel_crop(write_planes(tmp_path / "video.mkv", planes, "yuv420p"), 96, 16, 96, 0)
    jpeg = read_media(path, fps=16, short_side=112, sample_rate=1, jpeg_quality=95, max_seconds=9).jpegs[0]
    assert np.abs(patches_of(simplejpeg.decode_jpeg(jpeg).astype(float)) - colors[1:, 6:-6]).max() <= 6


GRAYS = np.linspace(0, 255, 12).reshape(3, 4)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize(
    ("codec", "options"), [("ffv1", {}), ("libx265", {"x265-params": "lossless=1:log-level=none"})]
)
def test_gray_of_either_range(tmp_path, codec, options, color_range, bits):
    planes = quantized([GRAYS / 255], color_range, bits)
    pix_fmt = "gray" if bits == 8 else "gray10le"
    path = write_planes(tmp_path / "video.mkv", planes, pix_fmt, codec=codec, color_range=color_range, **options)
    patches, notes = read_patches(path)
    np.testing.assert_allclose(patches, np.repeat(GRAYS[..., None], 3, axis=-1), atol=3)
    assert notes == ()


@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264rgb", "rgb24"), ("ffv1", "bgr0"), ("ffv1", "gbrp10le")])
def test_rgb(tmp_path, codec, pix_fmt, color_range):
    values = 16 + PATCHES * 219 / 255 if color_range == LIMITED else PATCHES
    if pix_fmt == "gbrp10le":
        planes = list(
            np.moveaxis(
                np.uint16(np.round(values[..., [1, 2, 0]] * (4 if color_range == LIMITED else 1023 / 255))), -1, 0
            )
        )
    else:
        packed = {"rgb24": [0, 1, 2], "bgr0": [2, 1, 0, 0]}[pix_fmt]
        planes = [np.uint8(np.round(values[..., packed]))]
    options = {"qp": "0"} if codec == "libx264rgb" else {}
    check(write_planes(tmp_path / "video.mkv", planes, pix_fmt, codec=codec, color_range=color_range, **options))


def test_palette(tmp_path):
    image = np.uint8(PATCHES.repeat(SIDE, 0).repeat(SIDE, 1))
    with av.open(tmp_path / "video.gif", "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb8"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(image[:: 1 if number < 2 else -1])
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(tmp_path / "video.gif") as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)  # With the encoder's dither.
    check(tmp_path / "video.gif", patches_of(stored))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_noted(tmp_path, transfer, name):
    planes = quantized(plain(PATCHES, *WEIGHTS["BT.2020"][1:]), LIMITED, 10)
    tags = {"matrix": 9, "color_range": LIMITED, "primaries": 9, "transfer": transfer}
    path = write_planes(tmp_path / "video.mkv", planes, "yuv420p10le", **tags)
    check(path, notes=(f"The image is HDR ({name}) and not tone-mapped: its contrast is low.",))


def test_matrix_that_nobody_converts_is_noted_and_no_damage(tmp_path):
    planes = quantized(plain(PATCHES, *WEIGHTS["BT.2020"][1:]), LIMITED, 10)
    path = write_planes(tmp_path / "video.mkv", planes, "yuv420p10le", matrix=14, color_range=LIMITED)
    notes = read_patches(path)[1]
    assert notes == ("The image's color matrix (ICtCp) is not converted: its colors are wrong.",)
