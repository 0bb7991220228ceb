"""Keeps what JAX has compiled on disk, so that the same program starts faster the next time."""

import hashlib
import os
import platform
from pathlib import Path

import jax
from etils import epath

from avshare_jax.settings import reason

SMALLEST_SECONDS = 0.2
"""What compiles faster is not kept: reading it back would take as long."""


def keep_compiled_programs(directory: str | None = None) -> epath.Path | None:
    """Has JAX read and write compiled programs in a folder; call it once devices may be looked at.

    Programs for CPUs get a folder for each kind of processor in it: they contain instructions that others lack, which
    JAX does not check. Nothing goes wrong where the folder cannot be used, programs are then compiled.

    Args:
      directory: the folder, or an address such as `gs://...`; None: the default; "": none.

    Returns:
      The folder, or None where nothing is kept.
    """
    if directory is None:
        directory = os.environ.get("JAX_COMPILATION_CACHE_DIR") or default_directory()
        if directory is None:
            print("Compiled programs are not kept: this user has no home folder; see --compilation_cache.", flush=True)
    if not directory:
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    folder = epath.Path(directory).expanduser()
    if jax.default_backend() == "cpu":
        folder = folder / f"cpu-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # Cloud storage raises errors of its own libraries.
        print(f"Compiled programs cannot be kept in {folder} ({reason(error)}); see --compilation_cache.", flush=True)
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SMALLEST_SECONDS)
    return folder


def default_directory() -> Path | None:
    """The user's place for what can be made again; None for one without a home, as in containers."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return cache / "avshare_jax" / "compiled" if cache.is_absolute() else None


def _processor() -> str:
    """Eight hexadecimal digits that differ for processors with different instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # "flags" on x86, "Features" on ARM.
    described = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join([platform.machine(), *described]).encode()).hexdigest()[:8]
