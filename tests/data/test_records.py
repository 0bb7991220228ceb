"""Files of records: the same bytes each time, whole or not there."""

import os
import subprocess
import sys

import pytest
from etils import epath

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import Contents, dataset_directory, new_file, write_dataset

WRITE = """
import sys
import numpy as np
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import Contents, dataset_info, write_records
contents = Contents(FrontEnd(mels=2), 90, ("a", "b"))
record = {"video_id": "v", "source_id": "s", "frames": [b"1", b"2"], "log_mel": np.ones((3, 2), np.float32)}
record |= {"has_video": True, "has_audio": True, "labels": ("b",)}
write_records(sys.argv[1], dataset_info("name", "data", contents), ("a", "b"), [record] * 3)
"""


def test_records_are_the_same_bytes_in_every_process(tmp_path):
    files = [tmp_path / str(number) for number in range(3)]
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE, file], env=os.environ | {"PYTHONHASHSEED": str(number)})
        for number, file in enumerate(files)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len({file.read_bytes() for file in files}) == 1


def test_a_new_file_appears_whole_or_not_at_all(tmp_path):
    path = epath.Path(tmp_path) / "file"
    with new_file(path) as partial:
        epath.Path(partial).write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    with pytest.raises(KeyboardInterrupt), new_file(path) as partial:
        epath.Path(partial).write_text("half of")
        raise KeyboardInterrupt
    assert path.read_text() == "content"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_owners_without_a_name_and_users_without_a_home(tmp_path, monkeypatch):
    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    write_dataset("nobodys", tmp_path, {"train": []}, Contents(FrontEnd(), 90))
    assert dataset_directory(tmp_path, "nobodys").exists()
    monkeypatch.delenv("HOME")
    with pytest.raises(DatasetError, match="~/data names no folder: there is no home"):
        dataset_directory("~/data", "nobodys")
