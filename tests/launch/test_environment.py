"""The installation script, as far as it goes without installing."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_python_that_is_named_and_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "environment.sh", tmp_path / "launch")
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    unusable = tmp_path / "python_2"
    unusable.write_text("#!/bin/sh\nexit 1\n")
    unusable.chmod(0o755)
    result = subprocess.run(
        ["bash", "-c", "set -e; source launch/environment.sh; echo went on"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(unusable)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1 and "went on" not in result.stdout
    assert f"needs Python 3.11, 3.12 or 3.13, and {unusable} is none of these" in result.stderr
    assert not (tmp_path / ".venv").exists()
