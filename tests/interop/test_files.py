"""Files of tensors: what is read equals what was written, and no code in a file is run."""

import contextlib
import json
import os
import pickle
import resource
import struct
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avshare_jax.interop import files
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
    with pytest.raises(UserError, match="these are none: b"):
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


def npz_that_claims(path, shape, descr="<f4", data=b"1234"):
    """Writes an .npz file with an array whose header says another size than it has."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        file.write(data)


@pytest.mark.parametrize(
    ("shape", "claimed"), [((10**13,), "40,000,000,000,000"), ((10**7, 10**6, 3), "120,"), ((2,), "8")]
)
def test_an_npz_file_that_claims_more_than_it_has_is_a_sentence(tmp_path, shape, claimed):
    npz_that_claims(tmp_path / "a.npz", shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        UserError, match=rf"damaged or of another kind: a.npy claims to hold {claimed}.* bytes and has 4"
    ):
        read_tensors(tmp_path / "a.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


def test_an_npz_file_of_more_than_the_memory_is_a_sentence(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000, np.float32))
    monkeypatch.setattr(files.psutil, "virtual_memory", lambda: SimpleNamespace(available=3999))
    with pytest.raises(UserError, match="claims to hold 4,000 bytes, which is more memory than is free"):
        read_tensors(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("descr", "data"),
    [("<f4", b""), ("|O", b"12345678"), ("<Q9", b"1234"), ("<U1000000000000", b"1234"), ([("a", "<f4")], b"12345")],
)
def test_other_damage_of_an_npz_file_is_a_sentence(tmp_path, descr, data):
    npz_that_claims(tmp_path / "a.npz", (1,), descr, data)
    with pytest.raises(UserError, match="damaged or of another kind"):
        read_tensors(tmp_path / "a.npz")


def test_an_npz_file_cut_or_changed_anywhere_is_a_sentence_or_is_read(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", **TENSORS)
    whole, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "a.npz"
    for place in range(0, len(whole), 3):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x5F]) + whole[place + 1 :]):
            path.write_bytes(content)
            with contextlib.suppress(UserError):
                assert_same(read_tensors(path))


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**13], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4 * 10**13]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        {"shape": [1]},
    ],
)
def test_a_safetensors_file_that_lies_is_a_sentence(tmp_path, tensor):
    header = json.dumps({"a": tensor}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    try:
        found = read_tensors(tmp_path / "a.safetensors")
    except UserError as error:
        assert "damaged or of another kind" in str(error)
    else:
        assert tensor["dtype"] == "BF16" and found["a"].shape == (2,)


def test_a_safetensors_file_whose_header_claims_more_than_the_file_is_a_sentence(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 10**13) + b"{}")
    with pytest.raises(UserError, match="damaged or of another kind"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_pytorch_tensor_that_claims_more_than_is_stored_is_a_sentence(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1).expand(10**10)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="a claims to be larger than what is stored of it"):
        read_tensors(tmp_path / "a.pth")


def test_containers_are_opened_to_the_innermost():
    tensors = {"module.a": 1, "b": 2}
    assert files.open_containers(tensors) == (tensors, "")
    nested = {"epoch": 3, "model": {"state_dict": tensors, "name": "x"}, "optimizer": {"state": {}}}
    assert files.open_containers(nested) == (tensors, "model.state_dict")
    assert files.open_containers({"model": 1, "a": 2}) == ({"model": 1, "a": 2}, ""), "a tensor may have such a name"


def test_a_file_that_is_not_there_is_a_sentence():
    with pytest.raises(UserError, match="no file nowhere.npz"):
        read_tensors(Path("nowhere.npz"))


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_safetensors(tmp_path / "taken" / "a.safetensors", TENSORS, {})
