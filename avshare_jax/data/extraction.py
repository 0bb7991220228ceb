"""One media file → one record and what became of it. Nothing here needs TensorFlow or JAX, so workers start quickly."""

from typing import Any

import numpy as np

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd, log_mel
from avshare_jax.data.media import Media, MediaError, read_media
from avshare_jax.data.outcomes import NO_AUDIO, NO_VIDEO, REJECTED, USED, Outcome
from avshare_jax.data.sources.listing import Video

MAX_BYTES = 2_000_000_000
"""Of a record's frames and spectrogram: the format's messages hold at most 2 GiB."""

UNEXPECTED = "Decoding failed: "
"""What the reason of a rejection begins with where a decoder raised something that nobody has foreseen."""

Record = dict[str, Any]
"""`video_id`, `source_id`: str; `frames`: list of JPEG bytes; `log_mel`: (time, mels) float32; `labels`: tuple of class
names; `has_video`, `has_audio`: bool. What is missing has no frames or no rows."""


def extract(
    video: Video,
    split: str,
    frontend: FrontEnd,
    *,
    jpeg_quality: int,
    min_seconds: float,
    max_seconds: float,
    max_bytes: int = MAX_BYTES,
) -> tuple[Record | None, Outcome]:
    """Makes the record of a video; whatever is wrong with the file becomes a rejection.

    Args:
      video: the media file and what is known about it.
      split: that it is in.
      frontend: rates and sizes of the record.
      jpeg_quality: of the frames, 1 to 100.
      min_seconds: shorter files are rejected; the longer of image and sound counts.
      max_seconds: what comes later in a file is left out.
      max_bytes: files with larger records are rejected.

    Returns:
      The record, or None for a rejected file, and its outcome.

    Raises:
      MemoryError: there is not enough memory to decode it.
      DatasetError: this process may not open more files.
    """
    about = {
        "video_id": video.video_id,
        "source_id": video.source_id,
        "split": split,
        "path": video.path,
        "labels": tuple(video.labels),
    }
    try:
        media = read_media(
            video.path,
            fps=frontend.fps,
            short_side=frontend.short_side,
            sample_rate=frontend.sample_rate,
            jpeg_quality=jpeg_quality,
            max_seconds=max_seconds,
        )
        seconds = max(len(media.jpegs) / frontend.fps, len(media.waveform) / frontend.sample_rate)
        if seconds < min_seconds:
            reason = f"It lasts {seconds:.2f} s; {min_seconds:g} s are the least."
            return None, Outcome(**about, outcome=REJECTED, reason=reason, notes=media.notes)
        record = _record(video, media, frontend)
        if (size := sum(map(len, record["frames"])) + record["log_mel"].nbytes) > max_bytes:
            more = ", an eighth of --memory_limit" if max_bytes < MAX_BYTES else ""
            reason = f"Its record takes {size / 1e6:,.0f} MB; {max_bytes / 1e6:,.0f} MB are the most{more}."
            return None, Outcome(**about, outcome=REJECTED, reason=reason, notes=media.notes)
        return record, _outcome(about, media, seconds)
    except (MemoryError, DatasetError):
        raise
    except MediaError as error:
        return None, Outcome(**about, outcome=REJECTED, reason=error.reason)
    except Exception as error:  # Decoders fail in ways that nobody has listed, and no file may stop the others.
        reason = f"{UNEXPECTED}{type(error).__name__}: {error}."
        return None, Outcome(**about, outcome=REJECTED, reason=reason)


def _record(video: Video, media: Media, frontend: FrontEnd) -> Record:
    has_audio = len(media.waveform) > 0
    return {
        "video_id": video.video_id,
        "source_id": video.source_id,
        "frames": media.jpegs,
        "log_mel": log_mel(media.waveform, frontend) if has_audio else np.zeros((0, frontend.mels), np.float32),
        "has_video": bool(media.jpegs),
        "has_audio": has_audio,
        "labels": tuple(video.labels),
    }


def _outcome(about: dict[str, Any], media: Media, seconds: float) -> Outcome:
    has_video, has_audio = bool(media.jpegs), len(media.waveform) > 0
    return Outcome(
        **about,
        outcome=USED if has_video and has_audio else NO_AUDIO if has_video else NO_VIDEO,
        reason=media.no_video or media.no_audio,
        notes=media.notes,
        seconds=seconds,
        width=media.width,
        height=media.height,
        fps=media.fps,
        sample_rate=media.sample_rate,
        channels=media.channels,
        loudness=_loudness(media.waveform) if has_audio else None,
    )


def _loudness(waveform: np.ndarray) -> float:
    """Root mean square in dB below full scale; what FFmpeg decodes may exceed full scale a little."""
    power = np.mean(np.square(waveform, dtype=np.float64))
    return min(0.0, float(10 * np.log10(max(power, np.finfo(np.float64).tiny))))
