"""The command that makes the report of any data set."""

import json
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from avshare_jax.data.dataset import DatasetError, open_dataset
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.inspect import inspect_dataset, main
from avshare_jax.data.outcomes import NO_AUDIO, REJECTED, USED, Outcome, write_outcomes
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.data.report import write_report


def read(folder):
    return json.loads((folder / "prepare_report.json").read_text())


def test_a_data_set_without_a_list_of_videos_is_counted_from_its_records(dataset_dir, tmp_path):
    page = inspect_dataset(dataset_dir, "tiny", tmp_path / "report")
    facts = read(tmp_path / "report")
    # See the fixture: 10 s at 4 frames a second in training; in test one of 0.75 s and four of 7.5 s.
    assert facts["outcomes"][USED] == {"test": 5, "train": 10} and facts["outcomes"][NO_AUDIO] == {"train": 1}
    assert facts["seconds"] == 11 * 10 + 0.75 + 4 * 7.5
    assert facts["resolutions"] == {"24×16": 16}
    assert facts["class_balance"] == {"even": {"train": 6}, "odd": {"train": 5}}
    assert facts["unlabeled"] == {"test": 5}
    assert "no videos.jsonl" in page.read_text()


def test_damaged_records_are_counted(tmp_path):
    record = {"source_id": "", "log_mel": np.zeros((9, 80), np.float32), "has_video": True, "has_audio": True}
    records = [record | {"video_id": name, "frames": [b"no picture"], "labels": ()} for name in "ab"]
    write_dataset("damaged", tmp_path, {"train": records}, Contents(FrontEnd(), jpeg_quality=90))
    inspect_dataset(tmp_path, "damaged", tmp_path / "report")
    facts = read(tmp_path / "report")
    assert facts["outcomes"][REJECTED] == {"train": 2} and facts["videos"]["used"] == 0
    [reason] = facts["reasons"]
    assert reason["count"] == 2 and reason["sentence"].startswith("Its record cannot be read: ")
    assert reason["examples"][1]["video_id"] == "record 1 of train"


def test_an_id_that_is_not_utf8_is_damage(dataset_dir, without_label, tmp_path):
    original = open_dataset(dataset_dir, "tiny")
    good, bad = (without_label(record) for record in list(original.source("test"))[:2])
    write_dataset("odd", tmp_path, {"train": [good, bad | {"video_id": b"\xff"}]}, Contents(original.frontend, 90))
    main(["odd", f"--data_dir={tmp_path}", f"--output={tmp_path / 'report'}"])
    facts = read(tmp_path / "report")
    assert facts["outcomes"][REJECTED] == {"train": 1} and facts["outcomes"][USED] == {"train": 1}
    assert facts["reasons"][0]["sentence"] == "Its record cannot be read: its video_id b'\\xff' is not UTF-8 text"


@pytest.fixture
def prepared(dataset_dir, tmp_path):
    """A copy of the data set "tiny" with what a preparation writes beside the records."""
    directory = epath.Path(dataset_dir) / "tiny" / "1.0.0"
    copy = epath.Path(tmp_path) / "data" / "tiny" / "1.0.0"
    copy.mkdir(parents=True)
    for path in directory.iterdir():
        path.copy(copy / path.name)
    outcomes = [
        Outcome("a", "a", "train", "/a", ("odd",), USED, seconds=3.0, loudness=-9.0),
        Outcome("b", "b", "", "/b", (), REJECTED, "It is empty."),
    ]
    write_outcomes(copy / "videos.jsonl", outcomes)
    write_report(open_dataset(tmp_path / "data", "tiny"), outcomes, ["/x.mp4", "/y.mp4"], copy)
    return copy


def test_the_report_of_the_preparation_is_made_anew(prepared, tmp_path):
    inspect_dataset(tmp_path / "data", "tiny", tmp_path / "report")
    for path in (tmp_path / "report").iterdir():
        assert path.read_bytes() == (prepared / path.name).read_bytes()
    assert read(tmp_path / "report")["unlisted"] == {"count": 2, "examples": ["/x.mp4", "/y.mp4"]}


def test_the_data_set_is_never_written_to(prepared, tmp_path):
    before = {path.name: path.read_bytes() for path in prepared.iterdir()}
    for output in (prepared, prepared / ".." / "1.0.0", prepared / "inside"):
        with pytest.raises(DatasetError, match="belongs to the data set: choose another folder"):
            inspect_dataset(tmp_path / "data", "tiny", output)
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before


@pytest.mark.parametrize("name", ["videos.jsonl", "prepare_report.json"])
def test_a_truncated_file_gets_a_sentence(prepared, tmp_path, name):
    whole = (prepared / name).read_text()
    (prepared / name).write_text(whole[: len(whole) - 20])
    with pytest.raises(DatasetError, match=rf"{name} is damaged: delete it, and the report"):
        inspect_dataset(tmp_path / "data", "tiny", tmp_path / "report")
    (prepared / name).unlink()
    inspect_dataset(tmp_path / "data", "tiny", tmp_path / "report")


def test_a_folder_that_cannot_be_written(dataset_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("avshare_jax.data.inspect.write_files", None)  # Nothing is read before that is said.
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file cannot be written"):
        inspect_dataset(dataset_dir, "tiny", tmp_path / "file")


def test_command_line(dataset_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["tiny", f"--data_dir={dataset_dir}"])
    assert capsys.readouterr().out == "runs/inspect/tiny/prepare_report.html\n"
    assert (tmp_path / "runs" / "inspect" / "tiny" / "prepare_report.html").stat().st_size > 10_000


def test_a_missing_data_set_gets_a_sentence(tmp_path):
    command = [sys.executable, "-m", "avshare_jax.data.inspect", "nothing", f"--data_dir={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is no data set") and "Traceback" not in result.stderr
