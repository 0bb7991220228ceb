"""Batches: records → clips → arrays, with Grain.

Training batches are a function of (seed, step): element i of the endless stream is a function of seed and i, and step n
holds the elements n * batch_size to (n + 1) * batch_size, whichever process or worker reads them. A run that resumes at
a step needs nothing else.
"""

import ctypes
import errno
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import grain

from avshare_jax.data.clips import Clips
from avshare_jax.data.dataset import Dataset
from avshare_jax.data.elements import MODALITIES, UNREADABLE, Records, TrainElements, ViewElements, label_count
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.mixtures import Mixture
from avshare_jax.data.unreadable import UnreadableRecords, from_text
from avshare_jax.data.workers import set_up_worker

Batch = dict[str, Any]

SHARED_MEMORY = "/dev/shm"

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def train_batches(
    data: Dataset | Mixture,
    data_config: Any,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    unreadable: UnreadableRecords | None = None,
    modalities: tuple[str, ...] = MODALITIES,
    labeled: bool = False,
) -> Iterator[Batch]:
    """Reads training batches without end, from step `start_step` (the first is 0).

    Records that lack one of the modalities are replaced by others that have them, unless `data_config.keep_incomplete`;
    those that cannot be read, or lack the label that is asked for, are replaced in any case. Which replaces which does
    not depend on who reads.

    Args:
      data: the data set, or several.
      data_config: `config.data`: train_split, the sizes of `Clips`, num_workers (processes; 0: threads of this one),
        prefetch (batches to read ahead) and max_unreadable_share.
      seed: with the step, decides everything about a batch.
      batch_size: of the global batch.
      start_step: step of the first batch.
      process_index: of this process, which reads the rows from process_index * B on.
      process_count: number of processes that share the global batch; B = batch_size / process_count.
      unreadable: counts the unreadable records of this process's rows; by default, a new count.
      modalities: what is read, "visual" or "audio" or both.
      labeled: whether labels are read; of several data sets, all have the same classes.

    Returns:
      An iterator over `frames` (B, S, T, crop, crop, 3) uint8 and `log_mel` (B, S, mel_frames, mels) float32, as far as
      they are read; with `keep_incomplete` also `has_video` and `has_audio` (B,) bool; with labels, `label` (B,) int32,
      or `labels` (B, classes) uint8 of zeros and ones where a record may have several.

    Raises:
      DatasetError: there is no such split, the crop is too large, the batch size does not divide, or no record can be
        used; from the iterator, when more than `max_unreadable_share` of a data set's records cannot be read.
    """
    rows = _rows_per_process(batch_size, process_count)
    mixture = data if isinstance(data, Mixture) else Mixture((data,))
    unreadable = UnreadableRecords(data_config.max_unreadable_share) if unreadable is None else unreadable
    elements = TrainElements.of(mixture, data_config, seed, unreadable.max_share, modalities, labeled)
    sizes = {part.dataset: len(part.source) for part in elements.parts}
    # Where nothing can be used, say so here: an error in a worker process is hard to read.
    for part in elements.parts:
        unreadable.note(elements.find(part, 0, lambda record: elements.usable(record) or None)[1], sizes)

    def global_index(local: int) -> int:
        step, row = divmod(local, rows)
        return (start_step + step) * batch_size + process_index * rows + row

    # Half of the largest index leaves room for the product above.
    indices = grain.MapDataset.range(sys.maxsize // (2 * process_count)).map(global_index)
    return _count(_read(indices.map(elements), rows, data_config), unreadable, sizes)


def eval_batches(
    dataset: Dataset,
    split: str,
    data_config: Any,
    *,
    batch_size: int,
    max_videos: int | None = None,
    unreadable: UnreadableRecords | None = None,
) -> Iterator[Batch]:
    """Reads every record of a split once, in order: clips from the middle of the video, crops from that of the image.

    Args:
      dataset: the data set.
      split: name of the split.
      data_config: `config.data`, see `train_batches`.
      batch_size: B, of every batch.
      max_videos: the first so many records only. Their order in the data set is random, so they are a fair sample.
      unreadable: counts the records that cannot be read; by default, a new count without limit.

    Returns:
      An iterator over `frames` (B, S, T, crop, crop, 3) uint8; `log_mel` (B, S, mel_frames, mels) float32; `label`
      (B,) int32, -1: none, or `labels` (B, classes) uint8 of zeros and ones where a record may have several;
      `video_id`, a list of B strings; `valid` (B,) bool, False for rows that pad the last batch with the last record
      and for records that cannot be read; `has_video` and `has_audio` (B,) bool. What is missing is black and silent.

    Raises:
      DatasetError: there is no such split, or the crop is too large.
    """
    short_side = (data_config.min_short_side + data_config.max_short_side) // 2
    elements = _view_elements(dataset, split, data_config, short_side, max_videos, (1, 1))
    batches = _read_views(elements, batch_size, data_config, unreadable)
    return ({name: value for name, value in batch.items() if name != "view"} for batch in batches)


def multi_view_batches(
    dataset: Dataset,
    split: str,
    data_config: Any,
    *,
    batch_size: int,
    short_side: int,
    temporal_views: int = 10,
    spatial_views: int = 3,
    max_videos: int | None = None,
    unreadable: UnreadableRecords | None = None,
    modalities: tuple[str, ...] = MODALITIES,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Reads several views of every record of a split, each view once, those of a video one after the other.

    The S clips of a view start at frames that are evenly spaced from the first to the last where they fit, a single
    temporal view in the middle; crops lie evenly along the longer axis of the image. Frames are decoded once for all
    crops.

    Args:
      dataset: the data set.
      split: name of the split.
      data_config: `config.data`, see `train_batches`.
      batch_size: of the global batch: views, a multiple of `spatial_views` for each process.
      short_side: of the frames before the crops, in pixels, at least `data_config.crop`.
      temporal_views: of each video.
      spatial_views: crops of each temporal view.
      max_videos: the first so many records only.
      unreadable: counts the records that cannot be read; by default, a new count without limit.
      modalities: what is read, "visual" or "audio" or both.
      process_index: of this process, which reads the rows from process_index * B on.
      process_count: number of processes that share the global batch; B = batch_size / process_count.

    Returns:
      An iterator over batches of B views as from `eval_batches`, as far as they are read, which also have `view` (B,)
      int32: temporal view * `spatial_views` + crop.

    Raises:
      DatasetError: there is no such split, or the sizes do not fit.
    """
    if min(temporal_views, spatial_views) < 1 or batch_size % (spatial_views * process_count):
        raise DatasetError(
            f"{temporal_views} x {spatial_views} views in batches of {batch_size}: there must be at least one view, "
            "and batches must hold a multiple of the spatial views."
        )
    if short_side < data_config.crop:
        raise DatasetError(f"The crop ({data_config.crop}) is larger than the short side of {short_side} pixels.")
    views = (temporal_views, spatial_views)
    elements = _view_elements(dataset, split, data_config, short_side, max_videos, views, modalities)
    return _read_views(elements, batch_size, data_config, unreadable, process_index, process_count)


def _view_elements(
    dataset: Dataset,
    split: str,
    data_config: Any,
    short_side: int,
    max_videos: int | None,
    views: tuple[int, int],
    modalities: tuple[str, ...] = MODALITIES,
) -> ViewElements:
    records = Records.of(dataset, split)
    num_videos = len(records.source) if max_videos is None else min(max_videos, len(records.source))
    clips = Clips.from_config(data_config, dataset)
    return ViewElements(records, num_videos, label_count(dataset), clips, short_side, *views, modalities)


def _read_views(
    elements: ViewElements,
    batch_size: int,
    data_config: Any,
    unreadable: UnreadableRecords | None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Reads this process's rows of all views in batches of `batch_size` rows, the last ones padded."""
    rows = batch_size // elements.spatial_views // process_count
    num_batches = -(-elements.num_videos * elements.temporal_views // (rows * process_count))

    def global_index(local: int) -> int:
        batch, row = divmod(local, rows)
        return (batch * process_count + process_index) * rows + row

    indices = grain.MapDataset.range(num_batches * rows).map(global_index)
    batches = _read(indices.map(elements), rows, data_config)
    views = ({name: value.reshape(-1, *value.shape[2:]) for name, value in batch.items()} for batch in batches)
    sizes = {elements.records.dataset: len(elements.records.source)}
    unreadable = UnreadableRecords() if unreadable is None else unreadable
    return ({**batch, "video_id": batch["video_id"].tolist()} for batch in _count(views, unreadable, sizes))


def _rows_per_process(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise DatasetError(f"A batch of {batch_size} videos cannot be divided over {process_count} processes.")
    return batch_size // process_count


def _count(batches: Generator[Batch], unreadable: UnreadableRecords, num_records: Mapping[str, int]) -> Iterator[Batch]:
    """Takes from batches what they say about unreadable records, and counts those."""
    with closing(batches):
        for batch in batches:
            for text in batch.pop(UNREADABLE):
                unreadable.note(from_text(str(text)), num_records)
            yield batch


def _read(elements: grain.MapDataset, rows: int, data_config: Any) -> Generator[Batch]:
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
    except (RuntimeError, OSError) as error:
        if workers and _lacks_shared_memory(error):
            raise DatasetError(_shared_memory_sentence()) from error
        raise
    finally:
        iterator.close()


def _lacks_shared_memory(error: Exception) -> bool:
    """Whether a worker process could not hand over a batch for want of shared memory.

    The system grants a file there of any size, and ends with a bus error the process that writes more than fits.
    """
    return f"exit code {-signal.SIGBUS}." in str(error) or getattr(error, "errno", None) == errno.ENOSPC


def _shared_memory_sentence() -> str:
    size = f", of {shutil.disk_usage(SHARED_MEMORY).total / 1e6:,.0f} MB," if os.path.isdir(SHARED_MEMORY) else ""
    return (
        f"The shared memory {SHARED_MEMORY}{size} is too small or full; worker processes hand batches over through it. "
        "Allow more, as with docker's --shm-size=8g, use fewer processes or smaller batches, or read in threads with "
        "--config.data.num_workers=0."
    )


def _set_up_worker(worker_index: int, worker_count: int) -> None:
    """As Grain calls it."""
    set_up_worker()
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Lets the C library keep what a record has freed for the next one.

    By default, glibc returns blocks of a record's size to the system and gets pages of zeros for them again, which took
    an eighth of a worker's time.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's; other C libraries have none
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes
