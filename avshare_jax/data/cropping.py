"""What a container says is not to be shown of its frames: the clean aperture of mp4 and mov, PixelCrop of Matroska.

FFmpeg reads both, but PyAV does not pass them on. What is cut away by the codec itself never gets here.
"""

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av

from avshare_jax.data.geometry import Cropping

NOTHING: Cropping = (0, 0, 0, 0)

SEGMENT, CLUSTER, TRACKS, TRACK, TRACK_TYPE, VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0x83, 0xE0
PIXEL_CROP = (0x54CC, 0x54BB, 0x54DD, 0x54AA)
"""Matroska's elements for left, top, right and bottom."""

VIDEO_TRACK = 1

MOST_BYTES = 64
"""Numbers and headers are no longer; a damaged length is not believed."""

Part = tuple[int, int]
"""Where something starts in a file, and where it ends, in bytes."""

EMPTY: Part = (0, 0)


def container_cropping(path: str | os.PathLike[str], stream: av.video.stream.VideoStream) -> Cropping:
    """Returns what a container says is to be cut away from a stream's frames; nothing where its header is damaged.

    Args:
      path: of the file.
      stream: of the file, opened.
    """
    find = {"mov": _in_mp4, "matroska": _in_matroska}.get(stream.container.format.name.split(",")[0])
    if find is None:
        return NOTHING
    try:
        with open(path, "rb") as file:
            return find(file, (0, os.fstat(file.fileno()).st_size), stream)
    except (struct.error, ZeroDivisionError, IndexError):
        return NOTHING


def _in_mp4(file: BinaryIO, whole: Part, stream: av.video.stream.VideoStream) -> Cropping:
    for moov in _boxes(file, whole, b"moov"):
        for track in _boxes(file, moov, b"trak"):
            header = _read(file, next(_boxes(file, track, b"tkhd"), EMPTY), 24)
            if struct.unpack_from(">I", header, 20 if header[0] else 12)[0] == stream.id:
                return _clean_aperture(file, track)
    return NOTHING


def _clean_aperture(file: BinaryIO, track: Part) -> Cropping:
    """What the first clean aperture among a track's kinds of frames leaves out, by ISO 14496-12, 12.1.4."""
    for name in (b"mdia", b"minf", b"stbl", b"stsd"):
        track = next(_boxes(file, track, name), EMPTY)
    for start, stop in _boxes(file, (track[0] + 8, track[1])):
        sizes = struct.unpack_from(">HH", _read(file, (start, stop), 28), 24)
        for aperture in _boxes(file, (start + 78, stop), b"clap"):
            numbers = struct.unpack(">IIIIiIiI", _read(file, aperture, 32))
            wide, high, right, down = (Fraction(*numbers[place : place + 2]) for place in (0, 2, 4, 6))
            left, top = (
                round((size - length) / 2 + offset)
                for size, length, offset in zip(sizes, (wide, high), (right, down), strict=True)
            )
            crop = left, top, sizes[0] - left - round(wide), sizes[1] - top - round(high)
            return crop if min(crop) >= 0 else NOTHING
    return NOTHING


def _in_matroska(file: BinaryIO, whole: Part, stream: av.video.stream.VideoStream) -> Cropping:
    videos = []
    for segment in _elements(file, whole, SEGMENT):
        for tracks in _elements(file, segment, TRACKS):
            for track in _elements(file, tracks, TRACK):
                if any(_number(file, part) == VIDEO_TRACK for part in _elements(file, track, TRACK_TYPE)):
                    videos.append(next(_elements(file, track, VIDEO), EMPTY))
    place = [other.index for other in stream.container.streams.video].index(stream.index)
    crops = (next(_elements(file, videos[place], name), EMPTY) for name in PIXEL_CROP)
    left, top, right, bottom = (_number(file, crop) for crop in crops)
    return left, top, right, bottom


def _boxes(file: BinaryIO, part: Part, wanted: bytes = b"") -> Iterator[Part]:
    """Yields where the contents of the boxes of mp4 lie that follow one another in a part, those of one name or all."""
    start, stop = part
    while start + 8 <= stop:
        size, name = struct.unpack(">I4s", _read(file, (start, stop), 8))
        content = start + 8
        if size == 1:
            size, content = struct.unpack(">Q", _read(file, (content, stop), 8))[0], content + 8
        end = start + size if size else stop
        if end < content:
            return
        if not wanted or name == wanted:
            yield content, min(end, stop)
        start = end


def _elements(file: BinaryIO, part: Part, wanted: int) -> Iterator[Part]:
    """Yields where the contents of the elements of one name lie in a part of a Matroska file, before its frames."""
    start, stop = part
    while start < stop:
        name, length = _variable(file, start, keep_marker=True)
        size, more = _variable(file, start + length)
        content = start + length + more
        unknown = size == 2 ** (7 * more) - 1
        end = stop if unknown else min(content + size, stop)
        if name == CLUSTER:
            return
        if name == wanted:
            yield content, end
        start = end


def _variable(file: BinaryIO, start: int, keep_marker: bool = False) -> tuple[int, int]:
    """A number of EBML, whose first byte says how many there are, and how many there are."""
    first = _read(file, (start, start + 1), 1)[0]
    length = 9 - first.bit_length()
    number = int.from_bytes(_read(file, (start, start + length), length), "big")
    return (number if keep_marker else number & (2 ** (7 * length) - 1)), length


def _number(file: BinaryIO, part: Part) -> int:
    return int.from_bytes(_read(file, part, part[1] - part[0]), "big")


def _read(file: BinaryIO, part: Part, size: int) -> bytes:
    """Reads the first bytes of a part; `struct.error` where it is shorter."""
    file.seek(part[0])
    content = file.read(min(size, MOST_BYTES))
    if part[1] - part[0] < size or len(content) < size:
        raise struct.error("The file's header ends too early.")
    return content
