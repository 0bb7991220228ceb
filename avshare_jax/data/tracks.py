"""The image and the sound of a file while it is decoded: each places its frames in time and counts its damage."""

import collections
import math

import av
import cv2
import numpy as np
import simplejpeg
from av.stream import Disposition
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

TIME_TOLERANCE = 0.002
"""Seconds by which a frame may be late for its place on the grid: containers such as Matroska round to milliseconds."""

GAP_TOLERANCE = 0.05
"""Seconds by which sound may be off its time stamp before silence is put in, or samples are left out."""

LATE = 0.25
"""Seconds after the file's start from which a stream's start is worth a note."""

LONGEST_JUMP = 60.0
"""Seconds from one frame to the next, or from the start to the first, above which the time stamps are not believed."""

DAMAGE_LIMIT = 0.1
"""Share of damaged packets above which a stream is not used."""

LONGEST_PROPORTION = 20.0
"""Longer side of an image over its shorter side above which it is not used."""

STILL_LEVELS, STILL_SHARE = 8, 0.001
"""An image stands still where no frame differs from the first by more than 8 of 255 levels in 1 pixel of 1,000."""

QUIET = 1e-4
"""Samples of digital silence lie within a range of this width: 16 bits with the last one dithered."""

LOUDEST = 1e6
"""Samples beyond this are damage: full scale is 1."""


def _usable_stream(container: av.container.InputContainer, kind: str) -> tuple[av.stream.Stream | None, str]:
    """Returns the first stream of a kind that can be decoded, or None and a sentence that says why there is none."""
    problem = f"There is no {kind} stream."
    for stream in container.streams:
        if stream.type != kind:
            continue
        if stream.disposition & Disposition.attached_pic:
            problem = "The only image is an attached picture, such as cover art."
        elif stream.codec_context is None:
            problem = f"The {kind} stream has a codec that cannot be decoded."
        else:
            return stream, ""
    return None, problem


class Track:
    """One stream while it is decoded: places its frames in time, for a subclass's `add`, and counts the damage.

    Attributes:
      stream: the stream, or None.
      problem: why the stream gives nothing, a sentence; empty where it does.
      notes: sentences about what is odd but usable.
      end: seconds from time zero at which what has been decoded ends.
      done: whether nothing more is wanted.
      cut: whether that is because `max_seconds` are full.
    """

    KIND, NAME = "", ""

    def __init__(self, container: av.container.InputContainer, zero: float, max_seconds: float):
        self.stream, self.problem = _usable_stream(container, self.KIND)
        self.notes: list[str] = []
        self.max_seconds, self.end, self.cut = max_seconds, 0.0, False
        self.done = self.stream is None
        self._zero, self._frames, self._packets, self._bad = zero, 0, 0, 0
        # AVI numbers frames in the order in which they are decoded; they are shown later than that, by a delay.
        self._by_dts, self._first_dts, self._delay = container.format.name == "avi", None, 0
        if self.stream is not None:
            self._tick = float(self.stream.time_base)
            self.stream.codec_context.thread_count = 1  # Files, not frames, are decoded in parallel.

    def decode(self, packet: av.Packet | None) -> None:
        """Takes in one packet, or None for what the decoder holds back at the end."""
        if self.done:
            return
        if packet is not None:
            if not self._packets and packet.has_sidedata("encryption_info"):
                self._give_up("it is encrypted")
                return
            self._packets += 1
            self._first_dts = packet.dts if self._first_dts is None else self._first_dts
            self.prepare(packet)
        try:
            for frame in self.stream.codec_context.decode(packet):
                if frame.is_corrupt:
                    self._bad += 1
                elif not self.done:
                    self._take(frame)
        except av.error.FFmpegError:
            self._bad += 1

    def prepare(self, packet: av.Packet) -> None:
        """Sets the decoder up for one packet."""

    def _take(self, frame: av.frame.Frame) -> None:
        time = self._time(frame)
        if abs(time - self.end) > LONGEST_JUMP:
            self._give_up(f"its time stamps jump by {time - self.end:.0f} s at {self.end:.1f} s")
            return
        if not self._frames and time > LATE:
            self.notes.append(f"The {self.NAME} starts {time:.2f} s late.")
        self.add(frame, time)
        self._frames += 1
        if self.end > self.max_seconds + GAP_TOLERANCE and not self.done:
            self.done = self.cut = True
            self.notes.append(f"Of the {self.NAME}, only the first {self.max_seconds:g} s are used.")

    def _time(self, frame: av.frame.Frame) -> float:
        """Seconds from time zero at which a frame starts; one without time stamp follows on the one before."""
        stamp = frame.dts if self._by_dts else frame.pts
        if self._by_dts and stamp is not None:
            if not self._frames:
                self._delay = stamp - self._first_dts
            stamp -= self._delay
        return self.end if stamp is None else stamp * self._tick - self._zero

    def _give_up(self, why: str) -> None:
        self.problem, self.done = f"The {self.KIND} stream is not usable: {why}.", True

    def _check_damage(self) -> None:
        """Notes damage; one bad packet, such as the last of a truncated file, may always be."""
        if self.problem:
            return
        damage = f"{self._bad} of {self._packets} packets are damaged"
        if self._bad > max(1, DAMAGE_LIMIT * self._packets):
            self._give_up(damage)
        elif self._bad:
            self.notes.append(f"In the {self.KIND} stream, {damage}.")
        if not self.problem and not self._frames:
            self._give_up("there is nothing in it")


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
        self._first_start = self._start = 0.0
        self._first_planes, self._changes = None, False
        self._stamps = collections.deque(maxlen=32)  # Of the newest packets.
        self._reformatter = VideoReformatter()  # One for all: to set one up takes longer than to convert a frame.

    @property
    def mean_fps(self) -> float:
        """Frames per second of the file."""
        return self._packets / max(self.end - self._first_start, TIME_TOLERANCE)

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
        elif (frame.width, frame.height) != (self._shown.width, self._shown.height):
            note = "The image changes its size in the middle of the file."
            self.notes += [note] if note not in self.notes else []
        self._start = max(time, self._start)
        self._show_until(self._start)
        self._shown, self._jpeg = frame, b""
        self.end = max(self.end, self._start + self._seconds(frame))

    def finish(self) -> list[bytes]:
        """Returns the frames; `problem` says why there are none."""
        if self.stream is None:
            return []
        self._check_damage()
        if not self.problem:
            self._show_until(self.end)
            self._check_change()
        return [] if self.problem else self._jpegs

    def _seconds(self, frame: av.VideoFrame) -> float:
        seconds = (frame.duration or 0) * self._tick
        return seconds if 0 < seconds < LONGEST_JUMP else 1 / float(self.stream.average_rate or 25)

    def _set_size(self, frame: av.VideoFrame) -> None:
        """Fixes the size of all frames by the first: its proportions on the screen, the shorter side as asked for."""
        self._quarter_turns = round(frame.rotation / 90)
        self.width, self.height = (frame.width, frame.height)[:: -1 if self._quarter_turns % 2 else 1]
        proportion = frame.width / frame.height * float(self.stream.sample_aspect_ratio or 1)
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
        width, height = self._size
        shrinks = frame.width * frame.height > width * height
        # Straight to the small picture that JPEG stores: five times as fast as through full-size RGB.
        small = self._reformatter.reformat(
            frame,
            width,
            height,
            format="yuvj420p",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        planes = [self._upright(plane) for plane in small.planes]
        if self._first_planes is None:
            self._first_planes = planes
        self._changes = self._changes or any(map(_differ, planes, self._first_planes))
        return simplejpeg.encode_jpeg_yuv_planes(*planes, quality=self._quality)

    def _upright(self, plane: av.video.plane.VideoPlane) -> np.ndarray:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        # A copy, because the buffer belongs to the frame.
        return np.array(np.rot90(rows, self._quarter_turns), order="C")

    def _check_change(self) -> None:
        if self._frames == 1:
            self._give_up("it holds a single frame")
        elif not self._changes:
            plain = all(np.ptp(plane) <= STILL_LEVELS for plane in self._first_planes)
            self._give_up(f"the image never changes ({'one color' if plain else 'a still picture'})")


def _differ(plane: np.ndarray, other: np.ndarray) -> bool:
    return np.count_nonzero(cv2.absdiff(plane, other) > STILL_LEVELS) > STILL_SHARE * plane.size


class Sound(Track):
    """The waveform of an audio stream.

    Attributes:
      rate: samples per second of the file.
      channels: of the file.
    """

    KIND, NAME = "audio", "sound"

    def __init__(self, container: av.container.InputContainer, zero: float, max_seconds: float, sample_rate: int):
        super().__init__(container, zero, max_seconds)
        self.rate = self.channels = 0
        self._target_rate = sample_rate
        self._chunks: list[np.ndarray] = []
        self._first = self._next = 0  # Places of the first sample and of the next, in samples from time zero.
        self._setup, self._to_float = None, None
        self._missing = self._surplus = 0

    def add(self, frame: av.AudioFrame, time: float) -> None:
        """Puts the frame's samples where its time stamp says."""
        if not self.rate:
            self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
            self._first = self._next = round(time * self.rate)
        samples = self._mono(frame)
        gap = round(time * self.rate) - self._next
        if gap > GAP_TOLERANCE * self.rate:
            self._missing += gap
            self._append(np.zeros(gap, np.float32))
        elif gap < -GAP_TOLERANCE * self.rate:
            self._surplus += min(-gap, len(samples))
            samples = samples[-gap:]
        self._append(samples)
        self.end = self._next / self.rate

    def finish(self) -> np.ndarray:
        """Returns the waveform (N,) float32; `problem` says why it is empty."""
        empty = np.zeros(0, np.float32)
        if self.stream is None:
            return empty
        self._check_damage()
        if self.problem:
            return empty
        waveform = np.concatenate(self._chunks)
        waveform = np.pad(waveform, (self._first, 0)) if self._first > 0 else waveform[-self._first :]
        self._note_gaps()
        waveform = self._sane(waveform)
        self._check_silence(waveform)
        if self.problem:
            return empty
        waveform = _resample(waveform, self.rate, self._target_rate)
        return waveform[: round(min(self.max_seconds * self._target_rate, len(waveform)))]

    def _append(self, samples: np.ndarray) -> None:
        self._chunks.append(samples)
        self._next += len(samples)

    def _mono(self, frame: av.AudioFrame) -> np.ndarray:
        """Returns (N,) float32 at the stream's first rate: the mean of the channels, which FFmpeg's downmix is not."""
        channels, setup = frame.layout.nb_channels, (frame.format.name, frame.layout.name, frame.sample_rate)
        # From eight channels on, PyAV reads planes that are not there, and crashes.
        planar = channels < 8
        if planar and frame.format.name == "fltp" and frame.sample_rate == self.rate:
            return frame.to_ndarray().mean(axis=0)
        if setup != self._setup:
            self._setup = setup
            self._to_float = av.AudioResampler(format="fltp" if planar else "flt", rate=self.rate)
        parts = [part.to_ndarray() for part in self._to_float.resample(frame)]
        means = [part.mean(axis=0) if planar else part.reshape(-1, channels).mean(axis=1) for part in parts]
        return np.concatenate([np.zeros(0, np.float32), *means])

    def _note_gaps(self) -> None:
        if self._missing:
            self.notes.append(f"The sound has gaps, {self._missing / self.rate:.1f} s in all.")
        if self._surplus:
            self.notes.append(f"Of the sound, {self._surplus / self.rate:.1f} s overlap and are left out.")

    def _sane(self, waveform: np.ndarray) -> np.ndarray:
        sane = np.abs(waveform) <= LOUDEST  # False for what is not a number, too.
        if sane.all():
            return waveform
        self.notes.append(f"Of the sound, {1 - sane.mean():.1%} of the samples are not numbers and silenced.")
        return np.where(sane, waveform, np.float32(0))

    def _check_silence(self, waveform: np.ndarray) -> None:
        if not len(waveform):
            self._give_up("there is nothing in it")
            return
        starts = np.arange(0, len(waveform), max(1, self.rate // 10))
        quiet = np.maximum.reduceat(waveform, starts) - np.minimum.reduceat(waveform, starts) <= QUIET
        if quiet.all():
            silent = np.abs(waveform).max() <= QUIET
            self._give_up("it is digital silence" if silent else "it is constant, which is not a sound")
        elif quiet.mean() >= 0.1:
            self.notes.append(f"The sound is silent for {quiet.mean():.0%} of its time.")


def _resample(waveform: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resamples a waveform (N,) float32 from one number of samples per second to another."""
    if rate == target:
        return waveform
    resampler, chunks = av.AudioResampler(format="fltp", layout="mono", rate=target), []
    for start in range(0, len(waveform), 2**20):  # FFmpeg counts the bytes of a frame in 32 bits.
        frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 2**20], format="fltp", layout="mono")
        frame.sample_rate = rate
        chunks += resampler.resample(frame)
    chunks += resampler.resample(None)
    return np.concatenate([chunk.to_ndarray()[0] for chunk in chunks])
