"""The data set "tiny" says in every pixel and row which video and which time it is; see conftest.py."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.batches import Clips, cut_frames, cut_log_mel, eval_batches, train_batches
from avshare_jax.data.dataset import DatasetError, open_dataset
from avshare_jax.data.frontend import LOG_FLOOR


def take(batches, count):
    taken = [{name: np.array(value) for name, value in batch.items()} for batch in itertools.islice(batches, count)]
    batches.close()
    return taken


def assert_equal_batches(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def videos_and_times(batch):
    """Number of the video and frame of every frame (B, S, T), and of the video and row of every clip's first row."""
    colors = batch["frames"].mean(axis=(3, 4))
    return np.round(colors[..., 0] / 20), np.round(colors[..., 1] / 5), batch["log_mel"][:, :, 0, :2]


@pytest.fixture
def dataset(dataset_dir):
    return open_dataset(dataset_dir, "tiny")


def test_training_batches_hold_consecutive_clips_with_their_sound(dataset, data_config):
    batches = take(train_batches(dataset, data_config, seed=0, batch_size=4), 20)
    starts = set()
    for batch in batches:
        assert batch["frames"].shape == (4, 3, 2, 8, 8, 3) and batch["frames"].dtype == np.uint8
        assert batch["log_mel"].shape == (4, 3, 20, 3) and batch["log_mel"].dtype == np.float32
        videos, times, sound = videos_and_times(batch)
        np.testing.assert_array_equal(videos, np.broadcast_to(videos[:, :1, :1], videos.shape))
        np.testing.assert_array_equal(videos[:, :, 0], sound[..., 0])
        start = times[:, :1, :1]
        np.testing.assert_array_equal(times, start + 2 * np.arange(6).reshape(3, 2))
        np.testing.assert_array_equal(sound[..., 1], 5 * times[:, :, 0])  # 20 rows and 4 frames a second
        np.testing.assert_array_equal(np.diff(batch["log_mel"][..., 1], axis=2), 1)
        starts |= set(start.ravel())
    assert min(starts) >= 0 and max(starts) <= 28 and len(starts) > 15


def test_every_epoch_holds_every_usable_video_in_an_order_of_its_own(dataset, data_config):
    batches = take(train_batches(dataset, data_config, seed=0, batch_size=11), 3)
    orders = [tuple(videos_and_times(batch)[0][:, 0, 0].astype(int)) for batch in batches]
    usable = set(range(11)) - {3}
    for order in orders:
        assert set(order) == usable  # the silent video's place goes to another
    assert len(set(orders)) == 3
    [other] = take(train_batches(dataset, data_config, seed=1, batch_size=11), 1)
    assert tuple(videos_and_times(other)[0][:, 0, 0].astype(int)) not in orders


def test_incomplete_videos_can_be_kept_with_flags(dataset, data_config):
    data_config.keep_incomplete = True
    [batch] = take(train_batches(dataset, data_config, seed=0, batch_size=11), 1)
    videos = np.round(videos_and_times(batch)[0][:, 0, 0])
    assert sorted(videos) == list(range(11))
    silent = videos == 3
    np.testing.assert_array_equal(batch["has_audio"], ~silent)
    np.testing.assert_array_equal(batch["has_video"], True)
    np.testing.assert_array_equal(batch["log_mel"][silent], np.float32(LOG_FLOOR))
    assert (batch["log_mel"][~silent] != np.float32(LOG_FLOOR)).all((1, 2, 3)).all()


def test_a_split_without_complete_videos_is_a_sentence_before_workers_start(dataset, data_config, monkeypatch):
    source = [record | {"has_audio": False} for record in dataset.source("train")]
    monkeypatch.setattr(type(dataset), "source", lambda self, split: source)
    data_config.num_workers = 1
    with pytest.raises(DatasetError, match="both image and sound.*keep_incomplete"):
        next(train_batches(dataset, data_config, seed=0, batch_size=4))


def test_sound_without_image_is_cut_anywhere(dataset, data_config):
    clips = Clips.from_config(data_config, dataset)
    # 60 rows at 20 a second are 3 s or 12 frames, which is what 3 clips take; 200 rows leave 28 frames.
    for rows, expected in ((60, 0), (200, 28), (10, 0)):
        assert clips.last_start({"frames": [], "log_mel": np.zeros((rows, 3))}) == expected


def test_resuming_at_a_step_gives_the_batches_of_an_uninterrupted_run(dataset, data_config):
    whole = take(train_batches(dataset, data_config, seed=5, batch_size=4), 9)
    resumed = take(train_batches(dataset, data_config, seed=5, batch_size=4, start_step=6), 3)
    assert_equal_batches(whole[6:], resumed)
    assert not np.array_equal(whole[0]["frames"], whole[1]["frames"])


def test_processes_share_the_global_batch(dataset, data_config):
    whole = take(train_batches(dataset, data_config, seed=5, batch_size=6, start_step=2), 4)
    parts = [
        take(
            train_batches(
                dataset, data_config, seed=5, batch_size=6, start_step=2, process_index=index, process_count=3
            ),
            4,
        )
        for index in range(3)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_equal_batches(whole, joined)


def test_worker_processes_change_nothing(dataset, data_config):
    alone = take(train_batches(dataset, data_config, seed=5, batch_size=4, start_step=1), 5)
    alone_eval = list(eval_batches(dataset, "test", data_config, batch_size=2))
    data_config.num_workers = 2
    assert_equal_batches(alone, take(train_batches(dataset, data_config, seed=5, batch_size=4, start_step=1), 5))
    assert_equal_batches(alone_eval, list(eval_batches(dataset, "test", data_config, batch_size=2)))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_evaluation_visits_every_record_once_in_order(dataset, data_config, batch_size):
    batches = list(eval_batches(dataset, "test", data_config, batch_size=batch_size))
    assert all(len(batch["frames"]) == len(batch["video_id"]) == batch_size for batch in batches)
    seen = [name for batch in batches for name, valid in zip(batch["video_id"], batch["valid"], strict=True) if valid]
    assert seen == [record["video_id"].decode() for record in dataset.source("test")]
    assert sum(len(batch["valid"]) for batch in batches) < len(seen) + batch_size
    assert all(batch["label"].dtype == np.int32 and set(batch["label"]) == {-1} for batch in batches)
    [first] = list(eval_batches(dataset, "test", data_config, batch_size=3, max_videos=2))
    assert first["valid"].tolist() == [True, True, False]
    np.testing.assert_array_equal(first["frames"][2], first["frames"][1])


def test_evaluation_is_centered_and_pads_what_is_short_or_missing(dataset, data_config):
    [batch] = list(eval_batches(dataset, "test", data_config, batch_size=5))
    videos, times, sound = videos_and_times(batch)
    for row, name in enumerate(batch["video_id"]):
        video = int(name.removeprefix("test_"))
        assert set(videos[row].ravel()) == {video}
        if video:
            np.testing.assert_array_equal(times[row].ravel(), 9 + 2 * np.arange(6))
        else:  # three frames only: then it stands still and is silent
            np.testing.assert_array_equal(times[row].ravel(), [0, 2, 2, 2, 2, 2])
            np.testing.assert_array_equal(batch["log_mel"][row, 0, :15, 1], np.arange(15))
            np.testing.assert_allclose(batch["log_mel"][row, 0, 15:], LOG_FLOOR)
            np.testing.assert_allclose(batch["log_mel"][row, 1:], LOG_FLOOR)
    [batch] = list(eval_batches(dataset, "train", data_config, batch_size=11))
    assert batch["has_audio"].tolist() == [name != "train_3" for name in batch["video_id"]]
    assert batch["label"].tolist() == [int(name.removeprefix("train_")) % 2 for name in batch["video_id"]]
    silent = batch["video_id"].index("train_3")
    np.testing.assert_allclose(batch["log_mel"][silent], LOG_FLOOR)


def clips(**sizes):
    defaults = {"num_clips": 3, "frames_per_clip": 2, "frame_stride": 1, "mel_frames": 10, "crop": 8, "mels": 3}
    return Clips(**defaults | {"min_short_side": 8, "max_short_side": 16, "fps": 4.0, "mel_rate": 20.0} | sizes)


def test_crop_is_the_same_in_all_frames_and_lies_where_it_should():
    ramp = np.zeros((16, 24, 3), np.uint8)
    ramp[..., 0] = 10 * np.arange(16)[:, None]  # red tells the row, green the column
    ramp[..., 1] = 10 * np.arange(24)
    jpegs = [simplejpeg.encode_jpeg(ramp, quality=98, colorsubsampling="444")] * 6
    places = {(0.0, 0.0): (0, 0), (1.0, 1.0): (8, 16), (0.5, 0.25): (4, 4)}
    for place, (top, left) in places.items():
        frames = cut_frames(jpegs, clips(), 0, short_side=16, place=place).reshape(6, 8, 8, 3)
        assert (frames == frames[0]).all()
        np.testing.assert_allclose(frames[0, ..., :2], ramp[top : top + 8, left : left + 8, :2], atol=8)
    whole = cut_frames(jpegs, clips(), 0, short_side=8, place=(0.0, 0.0))[0, 0]  # 16 rows are resized to 8
    np.testing.assert_allclose(whole[1:-1, 1:-1, 0], (20 * np.arange(8) + 5)[1:-1, None] * np.ones(6), atol=8)


def test_no_frames_are_black_and_late_clips_silent():
    assert not cut_frames([], clips(), 0, 8, (0.0, 0.0)).any()
    log_mel = np.arange(36, dtype=np.float32).reshape(12, 3)
    cut = cut_log_mel(log_mel, clips(), start=1)  # rows 5, 15 and 25
    np.testing.assert_array_equal(cut[0, :7], log_mel[5:])
    np.testing.assert_allclose(cut[0, 7:], LOG_FLOOR)
    np.testing.assert_allclose(cut[1:], LOG_FLOOR)


def test_mistakes_get_a_sentence(dataset, data_config):
    with pytest.raises(DatasetError, match="A batch of 5 videos cannot be divided over 2 processes"):
        train_batches(dataset, data_config, seed=0, batch_size=5, process_count=2)
    with pytest.raises(DatasetError, match="has no split 'val'"):
        eval_batches(dataset, "val", data_config, batch_size=5)
    data_config.crop = 12
    with pytest.raises(DatasetError, match=r"crop \(12\) must be at most min_short_side \(10\)"):
        train_batches(dataset, data_config, seed=0, batch_size=4)


def test_worker_processes_do_without_tensorflow():
    code = "import sys, avshare_jax.data.batches; assert 'tensorflow' not in sys.modules, 'tensorflow was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
