"""Batches: records → clips → arrays, with Grain.

Training batches are a function of (seed, step): element i of the endless stream is a function of seed and i, and step n
holds the elements n * batch_size to (n + 1) * batch_size, whichever process or worker reads them. A run that resumes at
a step needs nothing else.
"""

import dataclasses
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import grain
import numpy as np
import simplejpeg

from avshare_jax.data.dataset import Dataset, DatasetError
from avshare_jax.data.frontend import LOG_FLOOR

Batch = dict[str, Any]


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

        Where there is no image, frames are counted on the sound.
        """
        num_frames = len(record["frames"]) or int(len(record["log_mel"]) / self.mel_rate * self.fps)
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
    """
    shape = (clips.num_clips, clips.frames_per_clip, clips.crop, clips.crop, 3)
    frames = np.zeros((shape[0] * shape[1], *shape[2:]), np.uint8)
    for index, frame in enumerate(frames if jpegs else ()):
        position = start + index * clips.frame_stride
        if index and position >= len(jpegs):
            frame[:] = frames[index - 1]
            continue
        image = simplejpeg.decode_jpeg(jpegs[position], fastdct=True, fastupsample=True)
        height, width = image.shape[:2]
        # To crop first and then resize is to resize first and then crop, with less work.
        side = round(clips.crop * min(height, width) / short_side)
        top, left = round(place[0] * (height - side)), round(place[1] * (width - side))
        cv2.resize(image[top : top + side, left : left + side], shape[2:4], dst=frame, interpolation=cv2.INTER_LINEAR)
    return frames.reshape(shape)


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


@dataclasses.dataclass(frozen=True)
class TrainElements:
    """The endless stream of training elements.

    Attributes:
      source: the records.
      order: number of the record of every element, shuffled anew in every epoch.
      clips: sizes.
      seed: of place and time of the clips.
      keep_incomplete: whether records that lack image or sound are used, with flags that say so.
    """

    source: Sequence[dict[str, Any]]
    order: Sequence[int]
    clips: Clips
    seed: int
    keep_incomplete: bool

    def __call__(self, index: int) -> Batch:
        """Returns element `index`: `frames` (S, T, crop, crop, 3) uint8, `log_mel` (S, mel_frames, mels) float32.

        With `keep_incomplete`, also `has_video` and `has_audio`; what is missing is black and silent.
        """
        number = self.order[index]
        record = self.source[number] if self.keep_incomplete else self.usable_record(number)
        rng = np.random.default_rng((self.seed, index))
        start = int(rng.integers(self.clips.last_start(record), endpoint=True))
        short_side = int(rng.integers(self.clips.min_short_side, self.clips.max_short_side, endpoint=True))
        place = (rng.random(), rng.random())
        element = {
            "frames": cut_frames(record["frames"], self.clips, start, short_side, place),
            "log_mel": cut_log_mel(record["log_mel"], self.clips, start),
        }
        return element | presence_flags(record) if self.keep_incomplete else element

    def usable_record(self, number: int) -> dict[str, Any]:
        """Returns a record, or the next one that has both image and sound."""
        for offset in range(len(self.source)):
            record = self.source[(number + offset) % len(self.source)]
            if record["has_video"] and record["has_audio"]:
                return record
        raise DatasetError(
            "No video of the training split has both image and sound, which correct pair prediction needs: prepare "
            "others, or train on what there is with config.data.keep_incomplete=True."
        )


@dataclasses.dataclass(frozen=True)
class EvalElements:
    """The records of a split in order, the last repeated as padding.

    Attributes:
      source: the records.
      num_videos: how many of them are real elements.
      clips: sizes.
    """

    source: Sequence[dict[str, Any]]
    num_videos: int
    clips: Clips

    def __call__(self, index: int) -> Batch:
        """Returns element `index`: the middle of the video, under the names that `eval_batches` gives."""
        record = self.source[min(index, self.num_videos - 1)]
        start = self.clips.last_start(record) // 2
        short_side = (self.clips.min_short_side + self.clips.max_short_side) // 2
        return {
            "frames": cut_frames(record["frames"], self.clips, start, short_side, place=(0.5, 0.5)),
            "log_mel": cut_log_mel(record["log_mel"], self.clips, start),
            "label": np.int32(record.get("label", -1)),
            "video_id": record["video_id"].decode(),
            "valid": np.bool_(index < self.num_videos),
            **presence_flags(record),
        }


def presence_flags(record: dict[str, Any]) -> dict[str, np.bool_]:
    """Which modalities a record has, as scalars of a batch's rows."""
    return {name: np.bool_(record[name]) for name in ("has_video", "has_audio")}


def train_batches(
    dataset: Dataset,
    data_config: Any,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Reads training batches without end, from step `start_step` (the first is 0).

    Records that lack image or sound are replaced by the next that has both, unless `data_config.keep_incomplete`.

    Args:
      dataset: the data set.
      data_config: `config.data`: train_split, the sizes of `Clips`, num_workers (processes; 0: threads of this one) and
        prefetch (batches to read ahead).
      seed: with the step, decides everything about a batch.
      batch_size: of the global batch.
      start_step: step of the first batch.
      process_index: of this process, which reads the rows from process_index * B on.
      process_count: number of processes that share the global batch; B = batch_size / process_count.

    Returns:
      An iterator over `frames` (B, S, T, crop, crop, 3) uint8 and `log_mel` (B, S, mel_frames, mels) float32; with
      `keep_incomplete` also `has_video` and `has_audio` (B,) bool.

    Raises:
      DatasetError: there is no such split, the crop is too large, or the batch size does not divide.
    """
    rows = _rows_per_process(batch_size, process_count)
    source = dataset.source(data_config.train_split)
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    elements = TrainElements(source, order, Clips.from_config(data_config, dataset), seed, data_config.keep_incomplete)

    if not data_config.keep_incomplete:
        elements.usable_record(0)  # Where there is none, say so here: an error in a worker process is hard to read.

    def global_index(local: int) -> int:
        step, row = divmod(local, rows)
        return (start_step + step) * batch_size + process_index * rows + row

    # Half of the largest index leaves room for the product above.
    indices = grain.MapDataset.range(sys.maxsize // (2 * process_count)).map(global_index)
    return _read(indices.map(elements), rows, data_config)


def eval_batches(
    dataset: Dataset, split: str, data_config: Any, *, batch_size: int, max_videos: int | None = None
) -> Iterator[Batch]:
    """Reads every record of a split once, in order: clips from the middle of the video, crops from that of the image.

    Args:
      dataset: the data set.
      split: name of the split.
      data_config: `config.data`, see `train_batches`.
      batch_size: B, of every batch.
      max_videos: the first so many records only. Their order in the data set is random, so they are a fair sample.

    Returns:
      An iterator over `frames` (B, S, T, crop, crop, 3) uint8; `log_mel` (B, S, mel_frames, mels) float32; `label`
      (B,) int32, -1: none; `video_id`, a list of B strings; `valid` (B,) bool, False for rows that pad the last batch
      with the last record; `has_video` and `has_audio` (B,) bool. What is missing is black and silent.

    Raises:
      DatasetError: there is no such split, or the crop is too large.
    """
    source = dataset.source(split)
    num_videos = len(source) if max_videos is None else min(max_videos, len(source))
    elements = EvalElements(source, num_videos, Clips.from_config(data_config, dataset))
    padded = -(-num_videos // batch_size) * batch_size
    batches = _read(grain.MapDataset.range(padded).map(elements), batch_size, data_config)
    return ({**batch, "video_id": batch["video_id"].tolist()} for batch in batches)


def _rows_per_process(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise DatasetError(f"A batch of {batch_size} videos cannot be divided over {process_count} processes.")
    return batch_size // process_count


def _read(elements: grain.MapDataset, rows: int, data_config: Any) -> Iterator[Batch]:
    """Batches random-access elements and reads them ahead, in worker processes or in threads."""
    workers, ahead = data_config.num_workers, data_config.prefetch
    # Grain's own defaults would read 500 batches ahead. A worker reads no further than its buffer.
    options = grain.ReadOptions(*(0, 0) if workers else (ahead, ahead))
    batches = elements.batch(rows).to_iter_dataset(options)
    if workers:
        buffers = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(1, -(-ahead // workers)))
        batches = batches.mp_prefetch(buffers, worker_init_fn=_set_up_worker)
    iterator = iter(batches)
    try:
        yield from iterator
    finally:
        iterator.close()


def _set_up_worker(worker_index: int, worker_count: int) -> None:
    """Keeps the workers from competing for the cores, and from outliving a killed training process."""
    cv2.setNumThreads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
