"""The image of a file while it is decoded: upright JPEG frames at a fixed rate."""

import collections
import math

import av
import cv2
import numpy as np
import simplejpeg
from av.video.reformatter import VideoReformatter

from avshare_jax.data.colors import color_notes, jpeg_planes, matrix_of
from avshare_jax.data.geometry import Cropping, Cutter, orientation_of
from avshare_jax.data.tracks import LONGEST_JUMP, Track

TIME_TOLERANCE = 0.002
"""Seconds by which a frame may be late for its place on the grid: containers such as Matroska round to milliseconds."""

LONGEST_PROPORTION = 20.0
"""Longer side of an image over its shorter side above which it is not used."""

STILL_LEVELS, STILL_SHARE = 8, 0.001
"""An image stands still where no frame differs from the first by more than 8 of 255 levels in 1 pixel of 1,000."""


class Images(Track):
    """Frames at a fixed rate from a video stream.

    Attributes:
      width: of the file's image, upright, in pixels.
      height: the same.
    """

    KIND, NAME = "video", "image"

    def __init__(
        self,
        container: av.container.InputContainer,
        zero: float,
        max_seconds: float,
        fps: float,
        short_side: int,
        jpeg_quality: int,
    ):
        super().__init__(container, zero, max_seconds)
        self.width = self.height = 0
        self._fps, self._short_side, self._quality = fps, short_side, jpeg_quality
        self._jpegs: list[bytes] = []
        self._shown, self._jpeg = None, b""  # The newest frame, and its bytes once they are needed.
        self._first_start = self._start = self._last_seconds = 0.0
        self._first_planes, self._changes = None, False
        self._stamps = collections.deque(maxlen=32)  # Of the newest packets.
        self._reformatter, self._cutter = VideoReformatter(), Cutter()

    @property
    def mean_fps(self) -> float:
        """Frames per second of the file."""
        return self._packets / max(self.end - self._first_start, TIME_TOLERANCE)

    def crop(self, cropping: Cropping) -> None:
        """Says what is to be cut away from frames, before the first."""
        self._cutter = Cutter(cropping)

    def prepare(self, packet: av.Packet) -> None:
        """Lets the decoder leave out a frame that is never due, unless other frames are built on it."""
        needed = self._by_dts or packet.pts is None or self._is_due(packet.pts)
        self.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        if packet.pts is not None:
            self._stamps.append(packet.pts)

    def _is_due(self, stamp: int) -> bool:
        """Whether a place on the grid lies between a frame and the next of those that have come in already.

        The frame that really comes next may be still to come, but lies no later.
        """
        following = min((other for other in self._stamps if other > stamp), default=None)
        if following is None:
            return True
        start, end = (pts * self._tick - self._zero - TIME_TOLERANCE for pts in (stamp, following))
        return math.ceil(start * self._fps - 1e-6) < end * self._fps + 1e-6

    def add(self, frame: av.VideoFrame, time: float) -> None:
        """Shows the frame before until this one is due."""
        if self._shown is None:
            self._first_start = self._start = time
            self._set_size(frame)
            self.notes += color_notes(frame)
        elif (frame.width, frame.height) != (self._shown.width, self._shown.height):
            note = "The image changes its size in the middle of the file."
            self.notes += [note] if note not in self.notes else []
        self._start = max(time, self._start)
        self._show_until(self._start)
        self._shown, self._jpeg = frame, b""
        self._last_seconds = (frame.duration or 0) * self._tick
        self.end = max(self.end, self._start + self._nominal_seconds(frame))

    def finish(self) -> list[bytes]:
        """Returns the frames; `problem` says why there are none."""
        if self.stream is None:
            return []
        self._check_damage()
        if not self.problem:
            if self._last_seconds > LONGEST_JUMP and self.is_pause(self._start + self._last_seconds):
                self.end = self._start + self._last_seconds
            self._show_until(self.end)
            self._check_change()
        return [] if self.problem else self._jpegs

    def close(self) -> None:
        """Frees the decoder and its frames, which may take hundreds of MB; what is known of the image stays."""
        self.stream = self.beside = self._shown = None

    def _nominal_seconds(self, frame: av.VideoFrame) -> float:
        """Seconds for which a frame is shown at least; the next frame, or the end, says whether it is longer."""
        seconds = (frame.duration or 0) * self._tick
        return seconds if 0 < seconds < LONGEST_JUMP else min(1 / float(self.stream.average_rate or 25), LONGEST_JUMP)

    def _set_size(self, frame: av.VideoFrame) -> None:
        """Fixes the size of all frames by the first: its proportions on the screen, the shorter side as asked for."""
        self._orientation, (width, height) = orientation_of(frame), self._cutter.size(frame)
        self.width, self.height = (height, width) if self._orientation.turned else (width, height)
        proportion = width / height * float(self.stream.sample_aspect_ratio or 1)
        if not 1 / LONGEST_PROPORTION < proportion < LONGEST_PROPORTION:
            self._give_up(f"an image of {self.width} x {self.height} pixels is too long")
        longer = round(self._short_side * max(proportion, 1 / proportion))
        self._size = (longer, self._short_side) if proportion > 1 else (self._short_side, longer)

    def _show_until(self, time: float) -> None:
        """Adds the newest frame for every place on the grid that comes before `time`."""
        while self._shown is not None and len(self._jpegs) / self._fps < min(time - TIME_TOLERANCE, self.max_seconds):
            self._jpeg = self._jpeg or self._encode(self._shown)
            self._jpegs.append(self._jpeg)

    def _encode(self, frame: av.VideoFrame) -> bytes:
        """Returns a frame as JPEG, upright."""
        small = jpeg_planes(self._cutter.cut(frame), matrix_of(frame), *self._size, self._reformatter)
        planes = [self._orientation.apply(plane) for plane in small]
        if self._first_planes is None:
            self._first_planes = planes
        self._changes = self._changes or any(map(_differ, planes, self._first_planes))
        return _jpeg(planes, self._quality)

    def _check_change(self) -> None:
        if self._frames == 1:
            self._give_up("it holds a single frame")
        elif not self._changes:
            plain = all(np.ptp(plane) <= STILL_LEVELS for plane in self._first_planes)
            self._give_up(f"the image never changes ({'one color' if plain else 'a still picture'})")


def _jpeg(planes: list[np.ndarray], quality: int) -> bytes:
    """Encodes luma (H, W) and both chroma planes of half the size, rounded up.

    libjpeg-turbo reads luma of even width and height for 4:2:0 whatever the picture's size, so there has to be memory
    with the last pixels repeated: else it takes the next row's first pixel, and what lies behind the last row.
    """
    luma, *chroma = planes
    height, width = luma.shape
    even = cv2.copyMakeBorder(luma, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return simplejpeg.encode_jpeg_yuv_planes(even[:height, :width], *chroma, quality=quality)


def _differ(plane: np.ndarray, other: np.ndarray) -> bool:
    return np.count_nonzero(cv2.absdiff(plane, other) > STILL_LEVELS) > STILL_SHARE * plane.size
