"""Decoding of media files in one pass: JPEG frames at a fixed rate and mono sound, both from the same time zero.

Folders of real videos hold everything that can go wrong; docs/hostile_media.md lists what becomes of each kind of file.
"""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator

import av
import numpy as np

from avshare_jax.data.cropping import container_cropping
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.images import Images
from avshare_jax.data.sound import Sound
from avshare_jax.data.tracks import Track

PRIMING = 0.25
"""Seconds that may lie before time 0 because an audio encoder needs them; they are never heard."""

TEXT_FORMATS = ("tty", "hls", "dash", "concat")
"""Files that FFmpeg would draw as pictures of text, or follow to other files."""


class MediaError(ValueError):
    """A file gives neither image nor sound; the message is a sentence that says which and why.

    Attributes:
      reason: the sentence without the name of the file.
    """

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason or message


@dataclasses.dataclass(frozen=True)
class Media:
    """What a file holds; at least one of image and sound.

    Attributes:
      jpegs: the image at t = 0, 1 / fps, 2 / fps, … as JPEG, upright and all of one size; empty without image.
      waveform: (N,) float32, the mean of the channels at the rate that was asked for, or the loudest of them where they
        cancel each other out; empty without sound.
      width: of the file's image, upright, in pixels; 0 without image.
      height: the same.
      fps: mean frames per second of the file; 0 without image.
      sample_rate: of the file's sound; 0 without sound.
      channels: of the file's sound; 0 without sound.
      no_video: why there is no image, a sentence; empty where there is one.
      no_audio: why there is no sound, a sentence; empty where there is some.
      notes: sentences about what is odd but usable.
    """

    jpegs: list[bytes]
    waveform: np.ndarray
    width: int = 0
    height: int = 0
    fps: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    no_video: str = ""
    no_audio: str = ""
    notes: tuple[str, ...] = ()


def read_media(
    path: str | os.PathLike[str],
    *,
    fps: float,
    short_side: int,
    sample_rate: int,
    jpeg_quality: int,
    max_seconds: float,
) -> Media:
    """Decodes the first usable video stream and the first usable audio stream of a file.

    Time runs from the start of the file's earliest stream. At t = k / fps the image is the newest frame that is due,
    and before its first frame, that one. Sound lies where its time stamps say, with silence where there is none.

    Args:
      path: a media file.
      fps: frames per second to give.
      short_side: the shorter side of the frames, in pixels; the longer keeps the proportions.
      sample_rate: samples per second to give.
      jpeg_quality: of the frames, 1 to 100.
      max_seconds: what comes later is left out.

    Raises:
      MediaError: the file cannot be decoded, or gives neither image nor sound.
    """
    with _opened(path) as container:
        zero = _time_zero(container)
        images = Images(container, zero, max_seconds, fps, short_side, jpeg_quality)
        if images.stream is not None:
            images.crop(container_cropping(path, images.stream))
        sound = Sound(container, zero, max_seconds, sample_rate)
        images.beside, sound.beside = sound, images
        damage = _decode(container, [images, sound])
        jpegs = images.finish()
        damage += _notes_on_end(container, images, sound)
        images.close()  # Before the sound takes its turn.
    if sound.cancels:
        channel, sound = sound.loudest, None  # Its samples need not be kept meanwhile.
        sound = _decode_channel(path, channel, max_seconds, sample_rate, images)
    waveform = sound.finish()
    if not jpegs and not len(waveform):
        raise _error(path, f"{images.problem} {sound.problem}")
    seconds = len(jpegs) / fps, len(waveform) / sample_rate
    facts = {}
    if jpegs:
        facts |= {"width": images.width, "height": images.height, "fps": images.mean_fps}
    if len(waveform):
        facts |= {"sample_rate": sound.rate, "channels": sound.channels}
    return Media(
        jpegs,
        waveform,
        **facts,
        no_video=images.problem,
        no_audio=sound.problem,
        notes=(*damage, *images.notes, *sound.notes, *_notes_on_length(*seconds)),
    )


def read_audio(path: str | os.PathLike[str], sample_rate: int) -> np.ndarray:
    """Decodes the whole sound of a media file as `read_media` does, and nothing else.

    Args:
      path: a media file.
      sample_rate: samples per second to give.

    Returns:
      (N,) float32, the mean of the channels, or the loudest of them where they cancel each other out.

    Raises:
      MediaError: the file cannot be decoded, or gives no sound.
    """
    with _opened(path) as container:
        sound = Sound(container, _time_zero(container), float("inf"), sample_rate)
        _decode(container, [sound])
    if sound.cancels:
        sound = _decode_channel(path, sound.loudest, float("inf"), sample_rate)
    waveform = sound.finish()
    if not len(waveform):
        raise _error(path, sound.problem)
    return waveform


def _error(path: str | os.PathLike[str], reason: str) -> MediaError:
    return MediaError(f"{path} cannot be used. {reason}", reason)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[av.container.InputContainer]:
    """Opens a file; what the system or FFmpeg reports becomes a `MediaError`."""
    try:
        status = os.stat(path)
        # FFmpeg would wait for ever for somebody to write to a named pipe.
        if not stat.S_ISREG(status.st_mode):
            raise _error(path, "It is not a file.")
        if not status.st_size:
            raise _error(path, "The file is empty.")
        # The prefix keeps FFmpeg from taking a name with a colon for a protocol, the list keeps playlists off the net.
        options = {"protocol_whitelist": "file"}
        with av.open(f"file:{os.fspath(path)}", options=options, metadata_errors="ignore") as container:
            if container.format.name in TEXT_FORMATS:
                raise _error(path, "It is text, not media.")
            yield container
    except MemoryError:  # FFmpeg's is one of its other errors, too.
        raise
    except (av.error.FFmpegError, OSError) as error:
        if sentence := shortage(error):
            raise DatasetError(sentence) from error
        raise _error(path, f"The file cannot be read: {error.strerror}.") from error


def _time_zero(container: av.container.InputContainer) -> float:
    """Seconds at which the file starts. Audio encoders' priming lies before 0 and is never heard."""
    start = (container.start_time or 0) / av.time_base
    return 0.0 if -PRIMING <= start < 0 else start


def _decode(container: av.container.InputContainer, tracks: list[Track]) -> list[str]:
    """Decodes the tracks' streams side by side, to the end or as far as anything is wanted; returns notes."""
    notes = []
    by_index = {track.stream.index: track for track in tracks if track.stream is not None}
    try:
        for packet in container.demux(*(track.stream for track in by_index.values())) if by_index else ():
            # An empty packet would end the stream for the decoder; some containers have them to repeat a frame.
            if packet.size:
                by_index[packet.stream_index].decode(packet)
            if all(track.done for track in by_index.values()):
                break
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        notes.append(f"The file cannot be read to its end: {error.strerror}.")
    except IndexError:
        pass  # At the end, PyAV stumbles over streams that appeared in mid-file, as in broadcasts; all has been read.
    for track in by_index.values():
        track.decode(None)
    return notes


def _decode_channel(
    path: str | os.PathLike[str], channel: int, max_seconds: float, sample_rate: int, images: Images | None = None
) -> Sound:
    """Decodes the sound once more, for one of its channels; `images`, decoded before, say how time goes on."""
    with _opened(path) as container:
        sound = Sound(container, _time_zero(container), max_seconds, sample_rate, channel)
        sound.beside = images
        _decode(container, [sound])
    return sound


def _notes_on_end(container: av.container.InputContainer, *tracks: Track) -> list[str]:
    """Says so where a file that knows how long it is ends before, as one does whose download was interrupted."""
    claimed = (container.duration or 0) / av.time_base
    actual = max(track.end for track in tracks)
    if not container.format.name.startswith(("mov", "matroska", "avi")) or any(track.cut for track in tracks):
        return []
    late = claimed - actual > max(0.5, 0.1 * claimed)
    return [f"The file ends after {actual:.1f} s; by its header it lasts {claimed:.1f} s."] if late else []


def _notes_on_length(video_seconds: float, audio_seconds: float) -> list[str]:
    shorter, longer = sorted((video_seconds, audio_seconds))
    if not shorter or longer - shorter <= max(0.5, 0.1 * longer):
        return []
    names = ("image", "sound") if video_seconds < audio_seconds else ("sound", "image")
    return [f"The {names[0]} ends after {shorter:.1f} s, the {names[1]} after {longer:.1f} s."]
