"""What cannot be written is known before anything is computed; a file in a folder's place works for root, too."""

from types import SimpleNamespace

import pytest
from etils import epath

from avshare_jax import outputs
from avshare_jax.settings import UserError


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path):
    outputs.check_folder(tmp_path / "a" / "b")
    outputs.check_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"^The folder .*file.* cannot be written \((File exists|Not a directory)\)"):
        outputs.check_folder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "said"), [(PermissionError(13, "Permission denied"), "Permission denied"), (OSError(28, "Full"), "Full")]
)
def test_a_folder_that_is_there_but_cannot_be_written(tmp_path, monkeypatch, error, said):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=rf"cannot be written \({said}\): repair its permissions, make room, or"):
        outputs.check_folder(tmp_path)


def test_a_folder_of_cloud_storage_is_written_to(tmp_path, monkeypatch):
    """Cloud storage has no temporary files, and errors of its own."""

    class Refusing:
        def mkdir(self, **_):
            raise LookupError("403: no access.\nRequest 7")

    places = {"gs://mine": epath.Path(tmp_path / "run"), "gs://yours": Refusing()}
    monkeypatch.setattr(outputs, "epath", SimpleNamespace(Path=places.get))
    outputs.check_folder("gs://mine")
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(UserError, match=r"^The folder gs://yours cannot be written \(403: no access\): "):
        outputs.check_folder("gs://yours")


def test_a_file_is_left_as_it_was(tmp_path):
    (tmp_path / "old.json").write_text("mine")
    outputs.check_file(tmp_path / "old.json")
    outputs.check_file(tmp_path / "new.json")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "mine"


@pytest.mark.parametrize(("place", "said"), [(".", "Is a directory"), ("no/a.png", "No such file or directory")])
def test_a_file_that_cannot_be_written(tmp_path, place, said):
    with pytest.raises(UserError, match=rf"cannot be written \({said}\): choose another"):
        outputs.check_file(tmp_path / place)
