import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
import simplejpeg
from ml_collections import ConfigDict

from avshare_jax.data.dataset import DatasetError, check_frontend, open_dataset
from avshare_jax.data.records import Contents, write_dataset


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


def test_fingerprint_names_the_content(dataset_dir, without_label, tmp_path):
    dataset = open_dataset(dataset_dir, "tiny")
    assert dataset.fingerprint == open_dataset(dataset_dir, "tiny").fingerprint
    records = [without_label(record) for record in dataset.source("test")]
    contents = Contents(dataset.frontend, jpeg_quality=98)
    write_dataset("tiny", tmp_path / "a", {"test": records}, contents)
    write_dataset("tiny", tmp_path / "b", {"test": records[:-1]}, contents)
    slower = dataclasses.replace(dataset.frontend, fps=2.0)
    write_dataset("tiny", tmp_path / "c", {"test": records}, dataclasses.replace(contents, frontend=slower))
    fingerprints = {open_dataset(tmp_path / part, "tiny").fingerprint for part in "abc"}
    assert len(fingerprints | {dataset.fingerprint}) == 4


def test_tilde_is_the_home_directory(dataset_dir, without_label, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    original = open_dataset(dataset_dir, "tiny")
    records = [without_label(record) for record in original.source("test")]
    write_dataset("tiny", "~/data", {"test": records}, Contents(original.frontend, jpeg_quality=98))
    assert open_dataset("~/data", "tiny").num_videos("test") == 5
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_splits_can_be_joined_and_have_further_names(dataset_dir, without_label, tmp_path):
    original = open_dataset(dataset_dir, "tiny")
    records = [without_label(record) for record in original.source("train")]
    folds = {"fold1": records[:3], "fold2": records[3:4], "fold3": records[4:]}
    names = {"train1": "fold2+fold3", "test1": "fold1"}
    write_dataset("folds", tmp_path, folds, Contents(original.frontend, 98, split_names=names))
    dataset = open_dataset(tmp_path, "folds")
    assert dataset.splits == ("fold1", "fold2", "fold3", "train1", "test1")

    def ids(split):
        found = [record["video_id"].decode() for record in pickle.loads(pickle.dumps(dataset.source(split)))]
        assert len(found) == dataset.num_videos(split)
        return found

    written = [record["video_id"] for record in records]
    assert ids("train1") == ids("fold2+fold3") == written[3:]
    assert ids("test1") == written[:3]
    assert ids("train1+fold2+test1") == written[3:] + written[:3]  # a record of two of them counts once
    with pytest.raises(DatasetError, match="has no split 'fold4'; it has fold1, fold2, fold3, train1, test1"):
        dataset.source("fold1+fold4")


def test_a_video_may_have_several_classes(dataset_dir, without_label, tmp_path):
    original = open_dataset(dataset_dir, "tiny")
    labels = [("b", "c"), (), ("a",)]
    records = [
        without_label(record) | {"labels": names}
        for record, names in zip(original.source("test"), labels, strict=False)
    ]
    write_dataset("many", tmp_path, {"test": records}, Contents(original.frontend, 98, ("a", "b", "c"), True))
    dataset = open_dataset(tmp_path, "many")
    assert dataset.multi_label and not original.multi_label
    assert [list(record["labels"]) for record in dataset.source("test")] == [[1, 2], [], [0]]


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


OWN = "tensorflow_datasets.core.features."
TEXT = {"pythonClassName": f"{OWN}text_feature.Text", "text": {}}
LEGACY = {"type": "payload.Text", "content": {}}
IN_JSON = {"json": json.dumps({"video_id": LEGACY})}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"pythonClassName": "payload.Text", "text": {}}, "could run code"),
        ({"python_class_name": "payload.Text", "text": {}}, "could run code"),
        (LEGACY, "damaged"),
        ({"pythonClassName": f"{OWN}features_dict.FeaturesDict", "jsonFeature": IN_JSON}, "could run code"),
        ({"pythonClassName": f"{OWN}sequence_feature.Sequence", "sequence": {"feature": {**TEXT}}}, ""),
        (
            {
                "pythonClassName": f"{OWN}sequence_feature.Sequence",
                "sequence": {"feature": {"pythonClassName": "payload.Text", "text": {}}},
            },
            "could run code",
        ),
        ({"pythonClassName": f"{OWN}nothing.Text", "text": {}}, "damaged"),
        ([], "damaged"),
    ],
)
def test_opening_a_data_set_runs_no_code_that_came_with_it(dataset_dir, tmp_path, monkeypatch, changed, expected):
    trace = tmp_path / "trace"
    (tmp_path / "payload.py").write_text(f"open({str(trace)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    directory = shutil.copytree(dataset_dir / "tiny", tmp_path / "tiny") / "1.0.0"
    features = json.loads((directory / "features.json").read_text())
    features["featuresDict"]["features"]["source_id"] = changed
    (directory / "features.json").write_text(json.dumps(features))
    if expected:
        with pytest.raises(DatasetError, match=expected):
            open_dataset(tmp_path, "tiny")
    else:
        open_dataset(tmp_path, "tiny")
    assert not trace.exists()


def test_features_in_the_other_description_are_refused_too(dataset_dir, tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    (tmp_path / "payload.py").write_text(f"open({str(trace)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    directory = shutil.copytree(dataset_dir / "tiny", tmp_path / "tiny") / "1.0.0"
    info = json.loads((directory / "dataset_info.json").read_text())
    info["features"] = {"pythonClassName": "payload.Text", "text": {}}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="the features in dataset_info.json could run code"):
        open_dataset(tmp_path, "tiny")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_damaged_description_is_a_sentence(dataset_dir, tmp_path, name, content):
    directory = shutil.copytree(dataset_dir / "tiny", tmp_path / "tiny") / "1.0.0"
    (directory / name).write_text(content)
    with pytest.raises(DatasetError, match="is damaged|was not written by avshare_jax.prepare"):
        open_dataset(tmp_path, "tiny")


def test_data_set_from_before_colors_were_converted_opens_with_a_note(dataset_dir, tmp_path, capsys):
    new = open_dataset(dataset_dir, "tiny")
    assert new.revision == 2 and capsys.readouterr().err == ""
    metadata = shutil.copytree(dataset_dir / "tiny", tmp_path / "tiny") / "1.0.0" / "metadata.json"
    content = json.loads(metadata.read_text())
    del content["revision"]
    metadata.write_text(json.dumps(content))
    old = open_dataset(tmp_path, "tiny")
    assert f"delete {tmp_path}/tiny and give the command of avshare_jax.prepare again" in capsys.readouterr().err
    assert old.revision == 1 and len(old.source("train")) == 11
    assert old.fingerprint == new.fingerprint  # So that runs find the data set that they were trained on.
    open_dataset(tmp_path, "tiny")
    assert capsys.readouterr().err == ""  # Once is enough.


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
    contents = Contents(open_dataset(dataset_dir, "tiny").frontend, jpeg_quality=90)
    with pytest.raises(DatasetError, match="cannot be a data set's name"):
        write_dataset(name, tmp_path, {}, contents)
