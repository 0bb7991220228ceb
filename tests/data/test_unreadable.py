"""Damage on disk: what is met while training or evaluating is counted, named and left out.

The value of the spectrograms of the data set "frail" is the number of the record in the split "a+b", which lies in two
files.
"""

import itertools
import shutil

import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.batches import eval_batches, train_batches
from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.elements import Records
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.data.unreadable import Unreadable, UnreadableRecords, from_text, to_text

FRONTEND = FrontEnd(fps=4.0, short_side=48, sample_rate=1_000, n_fft=100, hop_length=50, mels=3)


def record(number, **changes):
    noise = np.random.default_rng(number).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    return {
        "video_id": f"video_{number}",
        "source_id": f"video_{number}",
        "frames": [simplejpeg.encode_jpeg(image, quality=90) for image in noise],
        "log_mel": np.full((60, 3), number, np.float32),
        "has_video": True,
        "has_audio": True,
        "labels": (),
        **changes,
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Splits a (records 0 to 8), b (9 to 11), and odd, whose records are whole files of nonsense."""
    directory = tmp_path_factory.mktemp("whole")
    frames = record(0)["frames"]
    odd = [
        record(0, frames=[*frames[:4], frames[4][:-200], *frames[5:]]),
        record(1, frames=[]),
        record(2, log_mel=np.zeros((0, 3), np.float32)),
        record(3),
    ]
    splits = {
        "a": [record(number) for number in range(9)],
        "b": [record(number) for number in range(9, 12)],
        "odd": odd,
    }
    write_dataset("frail", directory, splits, Contents(FRONTEND, 90))
    return directory


@pytest.fixture
def shards(whole, tmp_path):
    """The files of splits a and b of a copy in `tmp_path`."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return {split: next(tmp_path.glob(f"frail/*/frail-{split}.*")) for split in "ab"}


@pytest.fixture
def data_config(data_config):
    data_config.update(train_split="a+b", max_unreadable_share=0.5, min_short_side=8)
    return data_config


def flip(shards):
    """Changes 16 bytes of record 5, which lie where only that record can no longer be read."""
    content = shards["a"].read_bytes()
    for place in range(len(content) // 3, len(content), 2_000):
        changed = bytes(byte ^ 0xFF for byte in content[place : place + 16])
        shards["a"].write_bytes(content[:place] + changed + content[place + 16 :])
        records = Records.of(open_dataset(shards["a"].parents[2], "frail"), "a")
        if [number for number in range(9) if isinstance(records.use(number, len), Unreadable)] == [5]:
            return
    raise AssertionError("no place in the file belongs to record 5")


def truncate(shards):
    content = shards["b"].read_bytes()
    shards["b"].write_bytes(content[: len(content) // 2])


def empty(shards):
    shards["b"].write_bytes(b"")


def delete(shards):
    shards["b"].unlink()


def overwrite(shards):
    shards["b"].write_bytes(bytes(shards["b"].stat().st_size))


def test_an_id_that_is_not_utf8_is_damage(tmp_path, data_config, capsys):
    ids = ["video_0", b"caf\xe9", "video_2", "\x1b[31mvideo_3"]
    records = [record(number, video_id=video_id) for number, video_id in enumerate(ids)]
    write_dataset("frail", tmp_path, {"a": records}, Contents(FRONTEND, 90))
    data_config.update(train_split="a")
    dataset = open_dataset(tmp_path, "frail")
    batches, unreadable = train(dataset, data_config, 1)
    assert len(unreadable) == 1
    assert "record 1 of frail, split a: its video_id b'caf\\xe9' is not UTF-8 text" in capsys.readouterr().out
    assert set(batches[0]["log_mel"][:, 0, 0, 0].astype(int)) == {0, 2, 3}
    met = UnreadableRecords()
    [batch] = eval_batches(dataset, "a", data_config, batch_size=4, unreadable=met)
    valid = [video_id for video_id, valid in zip(batch["video_id"], batch["valid"], strict=True) if valid]
    assert len(met) == 1 and sorted(valid) == [r"\u001b[31mvideo_3", "video_0", "video_2"]


def train(dataset, data_config, count, **options):
    unreadable = UnreadableRecords(data_config.max_unreadable_share)
    batches = train_batches(dataset, data_config, seed=1, batch_size=12, unreadable=unreadable, **options)
    taken = [{name: np.array(value) for name, value in batch.items()} for batch in itertools.islice(batches, count)]
    batches.close()
    return taken, unreadable


@pytest.mark.parametrize(
    ("damage", "bad", "reason"),
    [
        (flip, {5}, "hash mismatch"),
        (truncate, {9, 10, 11}, "Corrupted|Truncated"),
        (empty, {9, 10, 11}, "should be at least 64KB"),
        (overwrite, {9, 10, 11}, "Corrupted|Invalid"),
        (delete, {9, 10, 11}, "No such file"),
    ],
)
def test_damage_is_replaced_counted_and_named_once(shards, tmp_path, data_config, capsys, damage, bad, reason):
    damage(shards)
    dataset = open_dataset(tmp_path, "frail")
    batches, unreadable = train(dataset, data_config, 4)  # an epoch each
    seen = [batch["log_mel"][:, 0, 0, 0].astype(int) for batch in batches]
    assert all(set(numbers) == set(range(12)) - bad and len(numbers) == 12 for numbers in seen)
    assert all("unreadable" not in batch for batch in batches)
    assert len(unreadable) == len(bad)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Unreadable" in line]
    assert len(lines) == len(bad)
    for number in bad:
        [line] = [line for line in lines if f"record {number} of frail, split a+b" in line]
        assert any(part in line for part in reason.split("|"))


def test_the_same_record_takes_the_place_on_all_hosts_and_workers(shards, tmp_path, data_config):
    flip(shards)
    delete(shards)
    dataset = open_dataset(tmp_path, "frail")
    alone, _ = train(dataset, data_config, 3)
    hosts = [train(dataset, data_config, 2, start_step=1, process_index=index, process_count=2)[0] for index in (0, 1)]
    data_config.num_workers = 1
    workers, unreadable = train(dataset, data_config, 3)
    assert len(unreadable) == 4
    for name in ("frames", "log_mel"):
        for step in range(3):
            np.testing.assert_array_equal(workers[step][name], alone[step][name])
        for step in range(2):
            joined = np.concatenate([host[step][name] for host in hosts])
            np.testing.assert_array_equal(joined, alone[step + 1][name])


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_end_the_run(shards, tmp_path, data_config, workers):
    delete(shards)
    dataset = open_dataset(tmp_path, "frail")
    data_config.update(max_unreadable_share=0.25, num_workers=workers)
    assert len(train(dataset, data_config, 3)[1]) == 3  # 3 of 12 are not more than a quarter
    flip(shards)
    message = r"4 of the 12 records in split a\+b of the data set frail cannot be read.*max_unreadable_share=0.25"
    with pytest.raises(DatasetError, match=message):
        train(dataset, data_config, 3)
    data_config.max_unreadable_share = 0.0
    with pytest.raises(DatasetError, match="1 of the 12 records"):
        train(dataset, data_config, 3)


def test_a_data_set_that_is_all_gone_ends_the_run_before_it_starts(shards, tmp_path, data_config):
    for shard in shards.values():
        shard.unlink()
    dataset = open_dataset(tmp_path, "frail")
    with pytest.raises(DatasetError, match="7 of the 12 records .* No such file"):
        train(dataset, data_config, 1)
    data_config.max_unreadable_share = 1.0
    with pytest.raises(DatasetError, match="No video in split a.b of the data set frail can be trained on"):
        train(dataset, data_config, 1)


def test_records_that_are_odd_in_themselves(whole, data_config, capsys):
    data_config.update(train_split="odd", max_unreadable_share=0.75)
    batches, unreadable = train(open_dataset(whole, "frail"), data_config, 8)
    assert len(unreadable) == 3
    output = capsys.readouterr().out
    assert "record 0 of frail, split odd (video video_0): frame 4 is damaged: " in output
    assert "(video video_1): it says that it has an image, but there is none" in output
    assert "(video video_2): it says that it has sound, but there is none" in output
    assert all((batch["log_mel"] == 3).all() for batch in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_out_what_it_cannot_read(shards, tmp_path, data_config, capsys, workers):
    flip(shards)
    data_config.num_workers = workers
    dataset, unreadable = open_dataset(tmp_path, "frail"), UnreadableRecords()
    for _ in range(2):
        batches = list(eval_batches(dataset, "a+b", data_config, batch_size=5, unreadable=unreadable))
        valid = np.concatenate([batch["valid"] for batch in batches])
        assert [number for number in range(15) if not valid[number]] == [5, 12, 13, 14]
        assert batches[1]["video_id"][0] == "" and not batches[1]["has_video"][0] and not batches[1]["frames"][0].any()
    assert len(unreadable) == 1
    assert capsys.readouterr().out.count("Unreadable") == 1
    rows = [batch for batch in eval_batches(dataset, "odd", data_config, batch_size=1, unreadable=unreadable)]
    assert [bool(row["valid"][0]) for row in rows] == [False, False, False, True]
    assert [row["video_id"][0] for row in rows] == ["video_0", "video_1", "video_2", "video_3"]


def test_an_error_in_the_cutting_is_not_taken_for_damage(whole):
    records = Records.of(open_dataset(whole, "frail"), "a")
    with pytest.raises(ZeroDivisionError):
        records.use(0, lambda record: 1 / 0)


def test_text_holds_all():
    found = [Unreadable("x", "train", 3, "vidéo", 'a "reason"'), Unreadable("y", "val", 0, "", "another")]
    assert from_text(to_text(found)) == found
    assert to_text([]) == "" and from_text("") == []
