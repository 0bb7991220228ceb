import dataclasses
import pickle
import shutil

import numpy as np
import pytest
import simplejpeg
from ml_collections import ConfigDict

from avshare_jax.data.dataset import DatasetError, check_frontend, open_dataset
from avshare_jax.data.records import write_dataset


def test_records_come_back_as_they_were_written(dataset_dir):
    dataset = open_dataset(dataset_dir, "tiny")
    assert dataset.splits == ("test", "train")
    assert dataset.class_names == ("even", "odd")
    assert (dataset.num_videos("train"), dataset.num_videos("test")) == (11, 5)
    source = pickle.loads(pickle.dumps(dataset.source("train")))  # as a worker process receives it
    assert len(source) == 11
    records = {record["video_id"].decode(): record for record in source}
    assert sorted(records) == sorted(f"train_{video}" for video in range(11))
    for video in range(11):
        record = records[f"train_{video}"]
        assert record["label"] == video % 2
        assert record["has_video"] and record["has_audio"] == (video != 3)
        assert len(record["frames"]) == 40
        pixel = simplejpeg.decode_jpeg(record["frames"][7])[8, 12]
        np.testing.assert_allclose(pixel, (20 * video, 35, 0), atol=6)
        assert record["log_mel"].shape == (0 if video == 3 else 200, 3)
        np.testing.assert_array_equal(record["log_mel"][50:51], [[video, 50, 0]] if video != 3 else np.zeros((0, 3)))
    assert {record["label"] for record in dataset.source("test")} == {-1}


def test_order_of_records_is_fixed_and_mixed(dataset_dir):
    dataset = open_dataset(dataset_dir, "tiny")
    ids = [record["video_id"] for record in dataset.source("train")]
    assert ids == [record["video_id"] for record in dataset.source("train")]
    assert ids != sorted(ids)  # the first so many records are a fair sample


def test_fingerprint_names_the_content(dataset_dir, tmp_path):
    dataset = open_dataset(dataset_dir, "tiny")
    assert dataset.fingerprint == open_dataset(dataset_dir, "tiny").fingerprint
    records = [{**record, "video_id": record["video_id"].decode(), "label": None} for record in dataset.source("test")]
    options = {"class_names": (), "jpeg_quality": 98}
    write_dataset("tiny", tmp_path / "a", {"test": records}, frontend=dataset.frontend, **options)
    write_dataset("tiny", tmp_path / "b", {"test": records[:-1]}, frontend=dataset.frontend, **options)
    slower = dataclasses.replace(dataset.frontend, fps=2.0)
    write_dataset("tiny", tmp_path / "c", {"test": records}, frontend=slower, **options)
    fingerprints = {open_dataset(tmp_path / part, "tiny").fingerprint for part in "abc"}
    assert len(fingerprints | {dataset.fingerprint}) == 4


def test_tilde_is_the_home_directory(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    original = open_dataset(dataset_dir, "tiny")
    records = [{**record, "video_id": record["video_id"].decode(), "label": None} for record in original.source("test")]
    options = {"frontend": original.frontend, "class_names": (), "jpeg_quality": 98}
    write_dataset("tiny", "~/data", {"test": records}, **options)
    assert open_dataset("~/data", "tiny").num_videos("test") == 5
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(DatasetError, match="exists already"):
        write_dataset("tiny", tmp_path / "data", {"test": records}, **options)


def test_what_is_not_there_gets_a_sentence(dataset_dir, tmp_path):
    with pytest.raises(
        DatasetError, match="There is no data set .*nothing.*prepare folder --videos=DIR --name=nothing"
    ):
        open_dataset(dataset_dir, "nothing")
    with pytest.raises(DatasetError, match="has no split 'val'; it has test, train"):
        open_dataset(dataset_dir, "tiny").source("val")
    foreign = shutil.copytree(dataset_dir / "tiny", tmp_path / "foreign") / "1.0.0"
    (foreign / "metadata.json").unlink()
    with pytest.raises(DatasetError, match="was not written by avshare_jax.prepare"):
        open_dataset(tmp_path, "foreign")


def test_front_end_of_another_config_names_both_values(dataset_dir):
    dataset = open_dataset(dataset_dir, "tiny")
    frontend = ConfigDict(dataclasses.asdict(dataset.frontend))
    check_frontend(dataset, frontend)
    frontend.hop_length = 25
    frontend.mels = 80
    with pytest.raises(
        DatasetError, match="hop_length is 50 in the data set and 25 in the config; mels is 3 .* and 80 in the config"
    ):
        check_frontend(dataset, frontend)


@pytest.mark.parametrize("name", ["My videos", "../x", "", "1st"])
def test_names_that_are_none_are_refused(tmp_path, dataset_dir, name):
    frontend = open_dataset(dataset_dir, "tiny").frontend
    with pytest.raises(DatasetError, match="cannot be a data set's name"):
        write_dataset(name, tmp_path, {}, frontend=frontend, class_names=(), jpeg_quality=90)
