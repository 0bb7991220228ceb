"""Windows cover every clip of a video once, and cut what evaluation's batches cut."""

import dataclasses

import numpy as np
import pytest

from avshare_jax.data.batches import eval_batches
from avshare_jax.data.clips import Clips
from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.windows import count_clips, cut_window, window_starts


@pytest.mark.parametrize("per_window", [1, 3, 4])
@pytest.mark.parametrize("num_clips", range(1, 14))
def test_every_clip_is_in_a_window_that_ends_with_the_video(num_clips, per_window):
    starts = window_starts(num_clips, per_window)
    covered = {clip for start in starts for clip in range(start, start + per_window)}
    if num_clips < per_window:
        assert starts == [0]
    else:
        assert covered == set(range(num_clips)) and max(starts) == num_clips - per_window
    assert len(starts) == -(-num_clips // per_window) and sorted(set(starts)) == starts


CLIPS = Clips(3, 2, 2, 20, 10, 16, 8, fps=4.0, mel_rate=20.0, mels=3)


def record_of(frames: int, rows: int) -> dict:
    return {"frames": [b""] * frames, "log_mel": np.zeros((rows, 3), np.float32)}


@pytest.mark.parametrize(
    ("frames", "rows", "expected"),
    [
        (40, 200, 10),  # clips of 4 frames, 20 rows
        (38, 190, 10),  # half of the last
        (37, 185, 9),
        (40, 100, 5),  # sound ends early
        (40, 0, 10),
        (0, 100, 5),
        (1, 5, 1),
        (0, 1, 1),
    ],
)
def test_clips_lie_where_there_is_everything_that_the_video_has(frames, rows, expected):
    assert count_clips(record_of(frames, rows), CLIPS) == expected


def test_a_window_is_what_evaluation_reads_of_a_video_as_long(dataset_dir, data_config):
    """Test videos have 30 frames; evaluation's 3 clips, 12 frames, start at frame 9 and are those from clip 0 of what
    follows."""
    dataset = open_dataset(dataset_dir, "tiny")
    clips = Clips.from_config(data_config, dataset)
    (batch,) = eval_batches(dataset, "test", data_config, batch_size=5)
    records = {record["video_id"].decode(): record for record in dataset.source("test")}
    for row, name in enumerate(batch["video_id"]):
        record = dict(records[name])
        start = clips.last_start(record) // 2
        rows = round(start / clips.fps * clips.mel_rate)
        record.update(frames=record["frames"][start:], log_mel=record["log_mel"][rows:])
        window = cut_window(record, clips, 0, short_side=13)
        for what in ("frames", "log_mel"):
            np.testing.assert_array_equal(window[what], batch[what][row])


def test_later_windows_are_later_in_the_video(dataset_dir, data_config):
    dataset = open_dataset(dataset_dir, "tiny")
    clips = Clips.from_config(data_config, dataset)
    record = dataset.source("train")[0]
    assert count_clips(record, clips) == 10
    whole = cut_window(record, dataclasses.replace(clips, num_clips=10), 0, 13)
    for start in window_starts(10, 3):
        window = cut_window(record, clips, start, 13)
        for what in ("frames", "log_mel"):
            np.testing.assert_array_equal(window[what], whole[what][start : start + 3])
