"""Files that hold named tensors: PyTorch checkpoints, .npz and .safetensors."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from avshare_jax.settings import UserError


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a file by name.

    Args:
      path: `.npz`, `.safetensors`, or anything else for a file of `torch.save` that holds tensors by name or, in its
        entry `state_dict`, does so. No code in a file is ever run.

    Raises:
      UserError: the file is not there or not what its name says, or PyTorch is needed and not installed.
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
    except (
        # What the three readers raise for files that are damaged or of another kind.
        *(OSError, EOFError, ValueError, RuntimeError, KeyError),
        *(zipfile.BadZipFile, safetensors.SafetensorError),
    ) as error:
        kind = path.suffix if path.suffix in readers else "PyTorch"
        raise UserError(
            f"{path} cannot be read as a {kind} file of tensors, it is damaged or of another kind: {first_line(error)}."
        ) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads an .npz file."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


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
    tensors = content.get("state_dict", content) if isinstance(content, Mapping) else {"the whole content": content}
    others = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"{path} should hold tensors by name, or an entry `state_dict` that does: {others} are none.")

    def to_numpy(tensor: Any) -> np.ndarray:
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    return {name: to_numpy(tensor) for name, tensor in tensors.items()}


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
