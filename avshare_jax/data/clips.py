"""Clips: which part of a record is read, and how its frames and spectrogram become arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg

from avshare_jax.data.dataset import Dataset
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import LOG_FLOOR
from avshare_jax.data.unreadable import UnreadableError

SOUND_SLACK = 0.25
"""By how many seconds sound may end before the image and still count as equally long: codecs and cutters leave that."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """How S consecutive clips are cut from a record.

    Attributes:
      num_clips: S.
      frames_per_clip: T.
      frame_stride: frames of the record from one frame of a clip to the next.
      mel_frames: rows of the spectrogram in a clip.
      min_short_side: of the frames before the crop, in pixels; the lower end of the random range.
      max_short_side: the upper end.
      crop: side of the square that is cut out, in pixels.
      fps: frames per second of the record.
      mel_rate: rows of spectrogram per second of the record.
      mels: bands of the spectrogram.
    """

    num_clips: int
    frames_per_clip: int
    frame_stride: int
    mel_frames: int
    min_short_side: int
    max_short_side: int
    crop: int
    fps: float
    mel_rate: float
    mels: int

    @classmethod
    def from_config(cls, data_config: Any, dataset: Dataset) -> "Clips":
        """Takes sizes from `config.data` and rates from the data set; `DatasetError` where the crop is too large."""
        if not data_config.crop <= data_config.min_short_side <= data_config.max_short_side:
            raise DatasetError(
                f"config.data.crop ({data_config.crop}) must be at most min_short_side ({data_config.min_short_side}), "
                f"and that at most max_short_side ({data_config.max_short_side})."
            )
        frontend = dataset.frontend
        rates = {"fps": frontend.fps, "mel_rate": frontend.sample_rate / frontend.hop_length, "mels": frontend.mels}
        sizes = [field.name for field in dataclasses.fields(cls) if field.name not in rates]
        return cls(**{name: getattr(data_config, name) for name in sizes}, **rates)

    @property
    def clip_stride(self) -> int:
        """Frames of the record from the start of one clip to the start of the next."""
        return self.frames_per_clip * self.frame_stride

    def last_start(self, record: dict[str, Any]) -> int:
        """The last frame of a record at which S clips can start; 0 for records that are too short.

        Clips lie where there are both image and sound, give or take `SOUND_SLACK`; in a record without image or
        without sound, where there is the other. Positions on the sound count in frames as well.
        """
        num_frames, sound = len(record["frames"]), len(record["log_mel"]) / self.mel_rate
        if num_frames and sound:
            num_frames = min(num_frames, int((sound + SOUND_SLACK) * self.fps))
        elif sound:
            num_frames = int(sound * self.fps)
        return max(0, num_frames - self.num_clips * self.clip_stride)


def cut_frames(
    jpegs: Sequence[bytes], clips: Clips, start: int, short_side: int, place: tuple[float, float]
) -> np.ndarray:
    """Decodes and crops the frames of S consecutive clips, with the same crop for all.

    Args:
      jpegs: all frames of a record. After the last one, it stands still; without any, all is black.
      clips: sizes.
      start: the first frame.
      short_side: of the frames before the crop, in pixels.
      place: of the crop, from 0 (top, left) to 1 (bottom, right).

    Returns:
      (S, T, crop, crop, 3) uint8.

    Raises:
      UnreadableError: one of these frames is damaged.
    """
    return cut_views(jpegs, clips, start, short_side, (place,))[0]


def cut_views(
    jpegs: Sequence[bytes], clips: Clips, start: int, short_side: int, places: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Decodes frames once, and crops them as `cut_frames` does at each of V places: (V, S, T, crop, crop, 3) uint8."""
    size = (clips.crop, clips.crop)
    make = np.empty if jpegs else np.zeros
    frames = make((len(places), clips.num_clips * clips.frames_per_clip, *size, 3), np.uint8)
    shape, boxes = None, []
    for index in range(frames.shape[1] if jpegs else 0):
        position = start + index * clips.frame_stride
        if index and position >= len(jpegs):
            frames[:, index] = frames[:, index - 1]
            continue
        image = decode(jpegs, position)
        if image.shape != shape:
            shape = image.shape
            boxes = [crop_box(*shape[:2], clips.crop, short_side, place) for place in places]
        for view, box in enumerate(boxes):
            cv2.resize(image[box], size, dst=frames[view, index], interpolation=cv2.INTER_LINEAR)
    return frames.reshape(len(places), clips.num_clips, clips.frames_per_clip, *size, 3)


def crop_box(height: int, width: int, crop: int, short_side: int, place: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of an image that are the crop once they are resized to `crop` pixels; see `cut_frames`.

    To crop first and then resize is to resize first and then crop, with less work.
    """
    side = round(crop * min(height, width) / short_side)
    top, left = round(place[0] * (height - side)), round(place[1] * (width - side))
    return slice(top, top + side), slice(left, left + side)


def decode(jpegs: Sequence[bytes], position: int) -> np.ndarray:
    """Decodes a frame, (height, width, 3) uint8; `UnreadableError` where it is damaged."""
    try:
        return simplejpeg.decode_jpeg(jpegs[position], fastdct=True, fastupsample=True)
    except ValueError as error:
        raise UnreadableError(f"frame {position} is damaged: {error}") from error


def frame_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width of a frame in pixels; `UnreadableError` where it is damaged."""
    try:
        return simplejpeg.decode_jpeg_header(jpeg)[:2]
    except ValueError as error:
        raise UnreadableError(f"frame 0 is damaged: {error}") from error


def cut_log_mel(log_mel: np.ndarray, clips: Clips, start: int) -> np.ndarray:
    """Cuts the spectrograms of S consecutive clips.

    Args:
      log_mel: (time, mels) float32 of a record; silence after its end.
      clips: sizes.
      start: the first frame of the first clip.

    Returns:
      (S, mel_frames, mels) float32.
    """
    cut = np.full((clips.num_clips, clips.mel_frames, clips.mels), LOG_FLOOR, np.float32)
    for clip in range(clips.num_clips):
        row = round((start + clip * clips.clip_stride) / clips.fps * clips.mel_rate)
        part = log_mel[row : row + clips.mel_frames]
        cut[clip, : len(part)] = part
    return cut


def temporal_starts(last_start: int, views: int) -> list[int]:
    """The frames at which `views` views start, evenly from 0 to `last_start`; a single one lies in the middle."""
    if views == 1:
        return [last_start // 2]
    return [round(view * last_start / (views - 1)) for view in range(views)]


def spatial_places(views: int, height: int, width: int) -> list[tuple[float, float]]:
    """Places of `views` crops, evenly along the longer axis (left to right or top to bottom), centered on the other."""
    along = [0.5] if views == 1 else [view / (views - 1) for view in range(views)]
    return [(place, 0.5) if height > width else (0.5, place) for place in along]
