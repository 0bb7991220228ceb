"""The data set "tiny" says in every pixel and row which video and which time it is; see conftest.py."""

import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from avshare_jax.data import batches
from avshare_jax.data.batches import eval_batches, multi_view_batches, train_batches
from avshare_jax.data.dataset import DatasetError, open_dataset
from avshare_jax.data.frontend import LOG_FLOOR
from avshare_jax.data.records import Contents, write_dataset


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


def test_resuming_at_a_step_gives_the_batches_of_an_uninterrupted_run(dataset, data_config):
    whole = take(train_batches(dataset, data_config, seed=5, batch_size=4), 9)
    resumed = take(train_batches(dataset, data_config, seed=5, batch_size=4, start_step=6), 3)
    assert_equal_batches(whole[6:], resumed)
    assert not np.array_equal(whole[0]["frames"], whole[1]["frames"])


def global_batches(dataset, data_config, hosts, count, **options):
    """Batches of 8 rows as several hosts read them, put together."""
    parts = [
        take(
            train_batches(
                dataset, data_config, seed=5, batch_size=8, process_index=index, process_count=hosts, **options
            ),
            count,
        )
        for index in range(hosts)
    ]
    return [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)
    ]


def test_hosts_share_the_global_batch_and_resume_in_another_number(dataset, data_config):
    whole = take(train_batches(dataset, data_config, seed=5, batch_size=8), 6)
    for hosts in (2, 4):
        assert_equal_batches(whole, global_batches(dataset, data_config, hosts, 6))
    for hosts in (1, 2, 4):
        assert_equal_batches(whole[3:], global_batches(dataset, data_config, hosts, 3, start_step=3))


@pytest.mark.slow
@pytest.mark.parametrize(("hosts", "workers"), [(1, 1), (1, 4), (2, 1), (4, 1)])  # a worker takes seconds to start
def test_any_number_of_hosts_with_any_number_of_workers(dataset, data_config, hosts, workers):
    whole = take(train_batches(dataset, data_config, seed=5, batch_size=8), 7)
    data_config.num_workers = workers
    assert_equal_batches(whole[2:], global_batches(dataset, data_config, hosts, 5, start_step=2))


def test_worker_processes_change_nothing(dataset, data_config):
    alone = take(train_batches(dataset, data_config, seed=5, batch_size=4, start_step=1), 5)
    alone_eval = list(eval_batches(dataset, "test", data_config, batch_size=2))
    data_config.num_workers = 2
    assert_equal_batches(alone, take(train_batches(dataset, data_config, seed=5, batch_size=4, start_step=1), 5))
    assert_equal_batches(alone_eval, list(eval_batches(dataset, "test", data_config, batch_size=2)))


def end_with_bus_error(worker_index: int, worker_count: int) -> None:
    """As the system ends a process that writes more shared memory than there is."""
    os.kill(os.getpid(), signal.SIGBUS)


def test_too_little_shared_memory_is_a_sentence(dataset, data_config, monkeypatch):
    monkeypatch.setattr(batches, "_set_up_worker", end_with_bus_error)
    data_config.num_workers = 1
    with pytest.raises(DatasetError, match="shared memory /dev/shm.* is too small or full.*num_workers=0"):
        next(train_batches(dataset, data_config, seed=5, batch_size=4))


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


def test_views_lie_evenly_in_time_and_along_the_longer_axis(dataset, data_config):
    options = {"batch_size": 6, "short_side": 10, "temporal_views": 4, "spatial_views": 3}
    batches = list(multi_view_batches(dataset, "test", data_config, **options))
    assert all(batch["frames"].shape == (6, 3, 2, 8, 8, 3) for batch in batches)
    rows = [
        (batch["video_id"][row], int(batch["view"][row]), batch["frames"][row], batch["log_mel"][row])
        for batch in batches
        for row in range(6)
        if batch["valid"][row]
    ]
    ids = [record["video_id"].decode() for record in dataset.source("test")]
    assert [row[:2] for row in rows] == [(name, view) for name in ids for view in range(12)]
    for name, view, frames, log_mel in rows:
        if name == "test_0":  # three frames: every view starts with the first
            assert round(frames[0, 0, ..., 1].mean() / 5) == 0
            continue
        # 30 frames and 12 in a view: starts from 0 to 18, a third of that apart.
        start = round(view // 3 * 18 / 3)
        np.testing.assert_array_equal(np.round(frames.mean(axis=(2, 3))[..., 1] / 5).ravel(), start + 2 * np.arange(6))
        np.testing.assert_array_equal(log_mel[:, 0, 1], 5 * (start + 4 * np.arange(3)))


def test_one_view_is_what_evaluation_reads(dataset, data_config):
    [plain] = list(eval_batches(dataset, "test", data_config, batch_size=5))
    views = {"short_side": 13, "temporal_views": 1, "spatial_views": 1}
    [single] = list(multi_view_batches(dataset, "test", data_config, batch_size=5, **views))
    assert not single.pop("view").any()
    assert_equal_batches([plain], [single])


@pytest.mark.parametrize("workers", [0, 1])
def test_views_that_do_not_fill_a_batch_are_padded(dataset, data_config, workers):
    data_config.num_workers = workers
    views = {"short_side": 10, "temporal_views": 3, "spatial_views": 2, "max_videos": 3}
    batches = list(multi_view_batches(dataset, "test", data_config, batch_size=8, **views))
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.tolist() == [True] * 18 + [False] * 6
    np.testing.assert_array_equal(np.concatenate([batch["view"] for batch in batches])[:18], np.tile(np.arange(6), 3))
    np.testing.assert_array_equal(batches[-1]["frames"][6:], batches[-1]["frames"][:2])


def test_training_batches_hold_labels(dataset, data_config):
    for batch in take(train_batches(dataset, data_config, seed=0, batch_size=4, labeled=True), 5):
        assert batch["label"].dtype == np.int32
        videos, *_ = videos_and_times(batch)
        np.testing.assert_array_equal(batch["label"], videos[:, 0, 0] % 2)
    with pytest.raises(DatasetError, match="each needs both image and sound and a label"):
        data_config.train_split = "test"  # whose videos have none
        train_batches(dataset, data_config, seed=0, batch_size=4, labeled=True)


@pytest.mark.parametrize(("modalities", "names"), [(("visual",), {"frames"}), (("audio",), {"log_mel"})])
def test_one_modality_is_read_alone(dataset, data_config, modalities, names):
    batches = train_batches(dataset, data_config, seed=0, batch_size=11, modalities=modalities, labeled=True)
    [batch] = take(batches, 1)
    assert set(batch) == names | {"label"}
    if modalities == ("visual",):  # Video 3 has no sound, which does not matter here.
        assert sorted(np.round(batch["frames"].mean(axis=(1, 2, 3, 4))[:, 0] / 20)) == list(range(11))
    views = {"short_side": 10, "temporal_views": 2, "spatial_views": 2, "modalities": modalities}
    for batch in multi_view_batches(dataset, "test", data_config, batch_size=4, **views):
        assert set(batch) == names | {"label", "video_id", "view", "valid", "has_video", "has_audio"}


def test_a_short_sound_does_not_shorten_an_image_that_is_read_alone(dataset, data_config, tmp_path, without_label):
    record = without_label(dataset.source("train")[0])
    record["log_mel"] = record["log_mel"][:70]  # 3.5 of 10 seconds
    write_dataset("short", tmp_path, {"train": [record]}, Contents(dataset.frontend, jpeg_quality=98))
    opened = open_dataset(tmp_path, "short")
    starts = {}
    for modalities in (("visual", "audio"), ("visual",)):
        batches = take(train_batches(opened, data_config, seed=0, batch_size=1, modalities=modalities), 20)
        starts[modalities] = max(np.round(batch["frames"][0, 0, 0].mean(axis=(0, 1))[1] / 5) for batch in batches)
    assert starts["visual", "audio"] <= 3 < 20 < starts[("visual",)]


def test_processes_share_the_views(dataset, data_config):
    views = {"short_side": 10, "temporal_views": 3, "spatial_views": 2, "batch_size": 8}
    whole = list(multi_view_batches(dataset, "test", data_config, **views))
    parts = [
        list(multi_view_batches(dataset, "test", data_config, process_index=index, process_count=2, **views))
        for index in range(2)
    ]
    joined = [
        {name: np.concatenate([left[name], right[name]]) for name in left} for left, right in zip(*parts, strict=True)
    ]
    assert_equal_batches(joined, [{name: np.array(value) for name, value in batch.items()} for batch in whole])


def test_several_labels_are_zeros_and_ones(dataset, data_config, tmp_path):
    record = dataset.source("test")[1]
    record = {name: value for name, value in record.items() if name != "label"} | {"source_id": "a"}
    labels = {"0": (), "1": ("b",), "2": ("c", "a")}
    records = [record | {"video_id": name, "labels": names} for name, names in labels.items()]
    contents = Contents(dataset.frontend, 98, class_names=("a", "b", "c"), multi_label=True)
    write_dataset("several", tmp_path, {"test": records}, contents)
    opened = open_dataset(tmp_path, "several")
    [batch] = list(eval_batches(opened, "test", data_config, batch_size=4))
    assert "label" not in batch and batch["labels"].dtype == np.uint8
    found = dict(zip(batch["video_id"], batch["labels"].tolist(), strict=True))
    assert found == {"0": [0, 0, 0], "1": [0, 1, 0], "2": [1, 0, 1]}


def test_mistakes_get_a_sentence(dataset, data_config):
    with pytest.raises(DatasetError, match="4 x 3 views in batches of 8: .* multiple of the spatial views"):
        multi_view_batches(dataset, "test", data_config, batch_size=8, short_side=10, temporal_views=4)
    with pytest.raises(DatasetError, match=r"crop \(8\) is larger than the short side of 7 pixels"):
        multi_view_batches(dataset, "test", data_config, batch_size=3, short_side=7)
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
