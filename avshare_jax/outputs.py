"""Checks, before long work, that its results can be written."""

import os
import tempfile
import uuid
from pathlib import Path

from etils import epath

from avshare_jax.settings import UserError, reason


def check_folder(folder: epath.PathLike) -> None:
    """Makes a folder, on this machine or in cloud storage, where it is missing, and writes a byte in it.

    Raises:
      UserError: it cannot be written.
    """
    path = epath.Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if "://" not in os.fspath(folder):
            with tempfile.TemporaryFile(dir=path) as file:  # Nothing of it is left, even of a killed process.
                file.write(b"0")
                file.flush()
        else:
            probe = path / f".{uuid.uuid4().hex}.probe"
            probe.write_text("0")
            probe.unlink()
    except Exception as error:  # Beside OSError, cloud storage has errors of its own.
        raise UserError(
            f"The folder {folder} cannot be written ({reason(error)}): repair its permissions, make room, or write "
            "elsewhere."
        ) from error


def check_file(path: str | os.PathLike[str]) -> None:
    """Opens a file on this machine for writing and leaves it as it was; `UserError` where that is not possible."""
    path = Path(path)
    try:
        is_new = not path.exists()
        with path.open("ab"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise UserError(f"The file {path} cannot be written ({reason(error)}): choose another.") from error
