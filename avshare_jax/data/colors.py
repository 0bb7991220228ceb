"""Colors: frames of any matrix and range become the small planes that JPEG stores, BT.601 at full range.

Numbers of matrices, primaries and transfer functions are those of ITU-T H.273, which FFmpeg uses too. Primaries and
transfer functions stay as they are.
"""

import functools

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

BT709, BT601, YCGCO, BT2020, BT2020_CONSTANT, BY_PRIMARIES, CONSTANT_BY_PRIMARIES = 1, 6, 8, 9, 10, 12, 13

WEIGHTS = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
"""Weights of red and blue in the luma of a matrix; the rest is green's."""

UNTAGGED = (0, 2, 3)
"""Matrices that say nothing about a frame of luma and chroma: RGB, unspecified, reserved."""

OF_PRIMARIES = {1: BT709, 4: 4, 5: BT709, 6: 7, 7: 7, 9: BT2020, 11: BT709, 12: BT709}
"""Matrices that are derived from primaries, or within 0.02 of that."""

UNKNOWN = {11: "SMPTE 2085", 13: "of constant luminance", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}
HDR = {16: "PQ", 18: "HLG"}

HD_WIDTH, SD_HEIGHT = 1_280, 576
"""Frames that say nothing about their matrix are BT.709 from this length of the longer side on, or beyond this one of
the shorter; smaller ones are BT.601."""


def color_notes(frame: av.VideoFrame) -> list[str]:
    """Sentences about what a frame's colors have that is not converted."""
    notes = []
    if frame.color_trc in HDR:
        notes.append(f"The image is HDR ({HDR[frame.color_trc]}) and not tone-mapped: its contrast is low.")
    if (matrix := matrix_of(frame)) in UNKNOWN:
        notes.append(f"The image's color matrix ({UNKNOWN[matrix]}) is not converted: its colors are wrong.")
    return notes


def jpeg_planes(
    frame: av.VideoFrame, matrix: int, width: int, height: int, reformatter: VideoReformatter
) -> list[np.ndarray]:
    """Resizes a frame and converts its colors.

    Args:
      frame: of any pixel format.
      matrix: of its colors; see `matrix_of`.
      width: to give, in pixels.
      height: the same.
      reformatter: the same one for all frames of a file: to set one up takes longer than to convert a frame.

    Returns:
      Luma (height, width) and both chroma planes of half the size, rounded up, uint8: BT.601 at full range.
    """
    shrinks = frame.width * frame.height > width * height
    how = {
        # Without conversion: FFmpeg's is slower, as it is done before shrinking, and does not know all matrices.
        "src_colorspace": Colorspace.ITU601,
        "dst_colorspace": Colorspace.ITU601,
        "src_color_range": frame.color_range,
        "dst_color_range": ColorRange.JPEG,
        "interpolation": Interpolation.AREA if shrinks else Interpolation.BILINEAR,
        "threads": 1,
    }
    if matrix == BT2020_CONSTANT:
        frame = _to_rgb(reformatter.reformat(frame, width, height, format="yuv444p16le", **how))
        matrix = BT601
    # Straight to the small picture that JPEG stores: several times as fast as through full-size RGB.
    small = reformatter.reformat(frame, width, height, format="yuvj420p", **how)
    planes = [plane_array(plane) for plane in small.planes]
    if frame.color_range == ColorRange.MPEG and not _is_yuv(frame):
        return [cv2.LUT(plane, table) for plane, table in zip(planes, (LUMA, CHROMA, CHROMA), strict=True)]
    return planes if WEIGHTS.get(matrix) == WEIGHTS[BT601] else _to_bt601(planes, matrix)


def _to_bt601(planes: list[np.ndarray], matrix: int) -> list[np.ndarray]:
    """Converts planes of another matrix, both at full range.

    Gray has no chroma in any, so that luma adds to nothing but luma, and the rest is done with half the resolution.
    """
    luma, blue, red = planes
    place = (blue.astype(np.uint16) << 8) | red
    to_luma, *chroma = (table.take(place) for table in _chroma_tables(matrix))
    to_luma = cv2.resize(to_luma, luma.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return [cv2.add(luma, to_luma, dtype=cv2.CV_8U), *chroma]


@functools.cache
def _chroma_tables(matrix: int) -> list[np.ndarray]:
    """Of every pair of chroma, blue over red: what it adds to luma, float32, and both of BT.601, uint8; (65,536,)."""
    blue, red = (plane.ravel().astype(np.float32) - 128 for plane in np.indices((256, 256)))
    to_luma, *chroma = (of_blue * blue + of_red * red for _, of_blue, of_red in _conversion(matrix))
    return [to_luma, *(np.clip(other + 128.5, 0, 255).astype(np.uint8) for other in chroma)]


def _conversion(matrix: int) -> np.ndarray:
    """The matrix (3, 3) from luma and chroma of a matrix to those of BT.601."""
    return np.float32(_from_rgb(BT601) @ np.linalg.inv(_from_rgb(matrix)))


def _from_rgb(matrix: int) -> np.ndarray:
    """The matrix (3, 3) from red, green and blue to luma and chroma."""
    if matrix == YCGCO:
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]])
    red, blue = WEIGHTS.get(matrix, WEIGHTS[BT2020])
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, ([0, 0, 1] - luma) / (2 - 2 * blue), ([1, 0, 0] - luma) / (2 - 2 * red)])


def plane_array(plane: av.video.plane.VideoPlane, dtype: type[np.generic] = np.uint8) -> np.ndarray:
    """The pixels (height, width) of a plane; the memory belongs to its frame."""
    rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _table(black: int, levels: int, middle: int) -> np.ndarray:
    return np.clip(np.round((np.arange(256.0) - black) * 255 / levels + middle), 0, 255).astype(np.uint8)


LUMA, CHROMA = _table(16, 219, 0), _table(128, 219, 128)
"""From limited to full range, of gray and RGB: FFmpeg's scaler takes both for full range, whatever they say."""


def _is_yuv(frame: av.VideoFrame) -> bool:
    return _has_chroma(frame.format.name)


@functools.cache
def _has_chroma(pixel_format: str) -> bool:
    """Whether a pixel format is of luma and chroma, and not RGB, gray or a palette."""
    described = av.VideoFormat(pixel_format)
    return not described.is_rgb and len(described.components) >= 3


def matrix_of(frame: av.VideoFrame) -> int:
    """The matrix of a whole frame, before any of it is cut away: by what it says, or else by its size.

    Frames without luma and chroma count as BT.601, which is what they become.
    """
    if not _is_yuv(frame):
        return BT601
    matrix = frame.colorspace
    if matrix == BY_PRIMARIES:
        matrix = OF_PRIMARIES.get(frame.color_primaries, 2)
    elif matrix == CONSTANT_BY_PRIMARIES and frame.color_primaries == 9:
        matrix = BT2020_CONSTANT
    if matrix in UNTAGGED or matrix not in (*WEIGHTS, *UNKNOWN, YCGCO, BT2020_CONSTANT):
        shorter, longer = sorted((frame.width, frame.height))
        matrix = BT709 if longer >= HD_WIDTH or shorter > SD_HEIGHT else BT601
    return matrix


def _to_rgb(frame: av.VideoFrame) -> av.VideoFrame:
    """Converts a frame of yuv444p16le, BT.2020 of constant luminance at full range, by the formulas of H.273."""
    luma, blue, red = (np.float32(plane_array(plane, np.uint16)) / 65_535 for plane in frame.planes)
    blue, red = blue - np.float32(32_768 / 65_535), red - np.float32(32_768 / 65_535)
    blue = luma + blue * np.where(blue <= 0, np.float32(1.9404), np.float32(1.5816))
    red = luma + red * np.where(red <= 0, np.float32(1.7184), np.float32(0.9936))
    green = _from_linear((_linear(luma) - 0.2627 * _linear(red) - 0.0593 * _linear(blue)) / 0.6780)
    image = np.uint8(np.round(255 * np.clip(np.stack([red, green, blue], axis=-1), 0, 1)))
    converted = av.VideoFrame.from_ndarray(image, format="rgb24")
    converted.color_range = ColorRange.JPEG
    return converted


def _linear(signal: np.ndarray) -> np.ndarray:
    """Light of a signal, by the transfer function of BT.2020."""
    signal = np.maximum(signal, 0)
    return np.where(signal < 0.081243, signal / 4.5, ((signal + 0.099297) / 1.099297) ** (1 / 0.45))


def _from_linear(light: np.ndarray) -> np.ndarray:
    light = np.maximum(light, 0)
    return np.where(light < 0.018054, 4.5 * light, 1.099297 * light**0.45 - 0.099297)
