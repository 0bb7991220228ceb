"""Files of tensors: what is read equals what was written, and no code in a file is run."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from avshare_jax.interop.files import read_tensors, write_safetensors
from avshare_jax.settings import UserError

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.count": np.array(7)}


def assert_same(found):
    assert found.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", **TENSORS)
    assert_same(read_tensors(tmp_path / "a.npz"))


def test_safetensors(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    # In Fortran's order, as transposing leaves them.
    write_safetensors(path, {name: value.copy(order="F") for name, value in TENSORS.items()}, {"heads": "4"})
    assert_same(read_tensors(path))


@pytest.mark.parametrize("wrap", [dict, lambda tensors: {"state_dict": tensors, "epoch": 3}])
def test_pytorch(tmp_path, wrap):
    torch = pytest.importorskip("torch")
    torch.save(wrap({name: torch.tensor(value) for name, value in TENSORS.items()}), tmp_path / "a.pth")
    assert_same(read_tensors(tmp_path / "a.pth"))


def test_pytorch_half_precision(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.tensor([0.5, 3.0], dtype=torch.bfloat16)}, tmp_path / "a.pth")
    found = read_tensors(tmp_path / "a.pth")["a"]
    assert found.dtype == np.float32 and found.tolist() == [0.5, 3.0]


class Code:
    """Unpickled, makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pytorch_file_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {}, "more": Code(tmp_path / "made")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="without running code"):
        read_tensors(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


def test_code_in_an_npz_file_is_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Code(tmp_path / "made")], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        read_tensors(tmp_path / "a.npz")
    assert not (tmp_path / "made").exists()


def test_other_content_of_a_pytorch_file_is_a_sentence(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"a": torch.zeros(2), "b": 3}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"\['b'\] are none"):
        read_tensors(tmp_path / "a.pth")


def test_without_pytorch_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="needs PyTorch.*pip install"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no tensors" * 20])
def test_damaged_files_are_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="damaged or of another kind"):
        read_tensors(tmp_path / name)


def test_a_file_that_is_not_there_is_a_sentence():
    with pytest.raises(UserError, match="no file nowhere.npz"):
        read_tensors(Path("nowhere.npz"))


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_safetensors(tmp_path / "taken" / "a.safetensors", TENSORS, {})
