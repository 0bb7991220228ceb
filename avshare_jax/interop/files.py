"""Files that hold named tensors: PyTorch checkpoints, .npz and .safetensors."""

import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors.numpy

from avshare_jax.settings import UserError, listed

CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a file by name.

    Args:
      path: `.npz`, `.safetensors`, or anything else for a file of `torch.save` that holds tensors by name, or does so
        in an entry of `CONTAINERS`, itself or further in, which is then printed. No code in a file is ever run.

    Raises:
      UserError: the file is not there or not what its name says, or PyTorch is needed and not installed, or it
        claims to hold more than the memory does.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    readers = {".npz": read_npz, ".safetensors": safetensors.numpy.load_file}
    try:
        return readers.get(path.suffix, read_torch)(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or holds more than tensors, numbers and text, which cannot be read without running "
            "code from it: where you trust it, save its state_dict alone."
        ) from error
    except UserError:
        raise
    except Exception as error:  # What the readers raise for files that are damaged is theirs, and of many classes.
        kind = path.suffix if path.suffix in readers else "PyTorch"
        raise UserError(
            f"{path} cannot be read as a {kind} file of tensors, it is damaged or of another kind: {first_line(error)}."
        ) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads an .npz file; `ValueError` where an array claims another size than the file has for it."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            total += _array_bytes(archive, member)
    if total > psutil.virtual_memory().available:
        raise ValueError(f"it claims to hold {total:,} bytes, which is more memory than is free")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _array_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The size of an array, by its header. NumPy would make room for what that claims before it reads."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{member.filename} is not an array of numbers")
        shape, _, dtype = read_header[version](file)
        claimed, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which cannot be read without running code from it")
    if claimed != there:
        raise ValueError(f"{member.filename} claims to hold {claimed:,} bytes and has {there:,}")
    return claimed


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads a file of `torch.save`; floating-point tensors become float32."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"Reading {path} needs PyTorch: install it with `pip install 'torch>=2.6'`, or convert the file to "
            ".safetensors or .npz elsewhere."
        ) from error
    content = torch.load(path, map_location="cpu", weights_only=True)
    tensors, entry = open_containers(content if isinstance(content, Mapping) else {"the whole content": content})
    others = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(
            f"{path} should hold tensors by name, or an entry that does ({', '.join(CONTAINERS)}); these are none: "
            f"{listed(others)}."
        )
    if entry:
        print(f"The tensors of {path.name} are those of its entry {entry}.")

    def to_numpy(name: str, tensor: Any) -> np.ndarray:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} claims to be larger than what is stored of it")
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    return {str(name): to_numpy(name, tensor) for name, tensor in tensors.items()}


def open_containers(content: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str]:
    """Follows entries such as `state_dict` to the one that holds no other; returns it and its path, as `model.net`."""
    path = []
    while inner := [name for name in CONTAINERS if isinstance(content.get(name), Mapping)]:
        path.append(inner[0])
        content = content[inner[0]]
    return content, ".".join(path)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes tensors and some text to a .safetensors file; `UserError` where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
        safetensors.numpy.save_file(contiguous, path, metadata={**metadata})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} cannot be written: {first_line(error)}.") from error


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
