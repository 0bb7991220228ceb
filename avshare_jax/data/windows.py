"""Windows: a whole video, however long, in pieces of the S clips that a network takes at once."""

import dataclasses
from typing import Any

import numpy as np

from avshare_jax.data.clips import Clips, cut_frames, cut_log_mel


def count_clips(record: dict[str, Any], clips: Clips) -> int:
    """How many consecutive clips cover a record from its start; at least 1.

    As in training, clips lie where there are both image and sound, or where there is the one that there is. The last
    counts if at least half of it is there.
    """
    frames = dataclasses.replace(clips, num_clips=0).last_start(record)  # The last frame at which no clip would fit.
    return max(1, int(frames / clips.clip_stride + 0.5))


def window_starts(num_clips: int, per_window: int) -> list[int]:
    """The clips at which windows start that cover a video.

    Windows follow one another; where the last would reach beyond the end of the video, it starts earlier, so that all
    of its clips exist. A video that is shorter than a window has one, which is padded.
    """
    starts = list(range(0, max(num_clips - per_window, 0) + 1, per_window))
    if starts[-1] + per_window < num_clips:
        starts.append(num_clips - per_window)
    return starts


def cut_window(record: dict[str, Any], clips: Clips, start: int, short_side: int) -> dict[str, np.ndarray]:
    """Cuts the S clips from clip `start` on, with the crop in the middle of the image.

    Args:
      record: with `frames` and `log_mel`. After the last frame, it stands still; what is missing is black and silent.
      clips: sizes.
      start: a clip, counted from the start of the record.
      short_side: of the frames before the crop, in pixels.

    Returns:
      `frames` (S, T, crop, crop, 3) uint8 and `log_mel` (S, mel_frames, mels) float32.

    Raises:
      UnreadableError: a frame is damaged.
    """
    first = start * clips.clip_stride
    return {
        "frames": cut_frames(record["frames"], clips, first, short_side, (0.5, 0.5)),
        "log_mel": cut_log_mel(record["log_mel"], clips, first),
    }
