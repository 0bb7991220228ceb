"""Decoding of media files: frames at a fixed rate and mono sound, both from the same time zero."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

TIME_TOLERANCE = 0.002
"""Seconds by which a frame may be late for its place on the grid: containers such as Matroska round to milliseconds."""


class MediaError(ValueError):
    """A file cannot be decoded; the message is a sentence that says which and why."""


class MissingStreamError(MediaError):
    """A file has no stream of the kind that was asked for, or nothing is in it."""


def iterate_frames(path: str | os.PathLike[str], fps: float, short_side: int) -> Iterator[np.ndarray]:
    """Decodes a video at a fixed rate: at t = k / fps the newest frame that is due, upright.

    Time runs from the start of the file's earliest stream; before its first frame, a video shows that one.

    Args:
      path: a media file.
      fps: frames per second.
      short_side: the shorter side of the frames, in pixels; the longer keeps the proportions.

    Yields:
      Frames (H, W, 3) uint8 RGB, all of one size.

    Raises:
      MissingStreamError: there is no video in the file.
      MediaError: the file cannot be decoded.
    """
    empty = True
    reformatter = VideoReformatter()  # One for all frames: to set one up takes longer than to convert a frame.
    with _opened(path) as container:
        for frame in _at_fixed_rate(_timed_frames(container, path), fps):
            yield _upright_rgb(frame, reformatter, short_side)
            empty = False
    if empty:
        raise MissingStreamError(f"{path} has a video stream without frames.")


def read_audio(path: str | os.PathLike[str], sample_rate: int) -> np.ndarray:
    """Decodes the sound of a media file, from the same time zero as the frames.

    Args:
      path: a media file.
      sample_rate: samples per second to convert to.

    Returns:
      (N,) float32, the mean of the channels; silence where the sound starts later than the file.

    Raises:
      MissingStreamError: there is no sound in the file.
      MediaError: the file cannot be decoded.
    """
    with _opened(path) as container:
        # The layout stays as it is, because FFmpeg's own downmix is not the mean.
        resampler = av.AudioResampler(format="fltp", rate=sample_rate)
        start, chunks = None, []
        for frame in container.decode(_first_stream(container, "audio", path)):
            if start is None:
                start = (frame.time or 0.0) - _time_zero(container)
            chunks += [resampled.to_ndarray().mean(axis=0) for resampled in resampler.resample(frame)]
        if start is None:
            raise MissingStreamError(f"{path} has an audio stream without samples.")
        chunks += [resampled.to_ndarray().mean(axis=0) for resampled in resampler.resample(None)]
    waveform = np.concatenate(chunks).astype(np.float32)
    offset = round(start * sample_rate)
    return np.pad(waveform, (offset, 0)) if offset > 0 else waveform[-offset:]


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[av.container.InputContainer]:
    """Opens a file; what FFmpeg reports, here or while decoding, becomes a `MediaError`."""
    try:
        # The prefix keeps FFmpeg from taking a name with a colon for a protocol.
        with av.open(f"file:{os.fspath(path)}", metadata_errors="ignore") as container:
            yield container
    except av.error.FFmpegError as error:
        raise MediaError(f"{path} cannot be decoded: {error.strerror}.") from error


def _first_stream(container: av.container.InputContainer, kind: str, path: str | os.PathLike[str]) -> av.stream.Stream:
    streams = [stream for stream in container.streams if stream.type == kind]
    if not streams:
        raise MissingStreamError(f"{path} has no {kind} stream.")
    return streams[0]


def _time_zero(container: av.container.InputContainer) -> float:
    """Seconds at which the file starts. Audio encoders' priming lies before 0 and is never heard."""
    return max(0.0, (container.start_time or 0) / av.time_base)


def _timed_frames(
    container: av.container.InputContainer, path: str | os.PathLike[str]
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yields (start, end, frame), in seconds from time zero, for every frame of the first video stream."""
    stream = _first_stream(container, "video", path)
    stream.codec_context.thread_count = 1  # Videos, not frames, are decoded in parallel.
    zero = _time_zero(container)
    period = 1.0 / float(stream.average_rate or 25)
    for index, frame in enumerate(container.decode(stream)):
        start = index * period if frame.time is None else frame.time - zero
        yield start, start + (float(frame.duration * frame.time_base) if frame.duration else period), frame


def _at_fixed_rate(timed: Iterable[tuple[float, float, av.VideoFrame]], fps: float) -> Iterator[av.VideoFrame]:
    """Yields, for k = 0, 1, … until the last frame ends, the last frame that starts by k / fps."""
    shown, end, count = None, 0.0, 0
    for start, frame_end, frame in timed:
        while shown is not None and count / fps < start - TIME_TOLERANCE:
            yield shown
            count += 1
        shown, end = frame, max(end, frame_end)
    while shown is not None and count / fps < end - TIME_TOLERANCE:
        yield shown
        count += 1


def _upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter, short_side: int) -> np.ndarray:
    """Returns a frame as RGB, turned as its metadata says, its shorter side `short_side` pixels."""
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale != 1.0:
        size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
