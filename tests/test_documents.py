"""What the documents name is there: commands of the package, and its modules, functions and files."""

import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "BUILD.md", *sorted((ROOT / "docs").glob("*.md"))]
# Names that scripts of other projects may use, whether or not a document mentions them at the time.
PUBLIC = ["avshare_jax.interop.avbert.from_torch", "avshare_jax.interop.avbert.to_torch", "avshare_jax.features.load"]


def found(pattern: str) -> set[str]:
    return {name for document in DOCUMENTS for name in re.findall(pattern, document.read_text())}


COMMANDS = sorted(found(r"python3? -m (avshare_jax[\w.]*\w)"))
NAMES = sorted({*found(r"\b(avshare_jax(?:\.[A-Za-z_]\w*)+)"), *PUBLIC})
FILES = sorted(found(r"\b((?:avshare_jax|configs|tests|launch)/[\w/]+\.\w+)"))


def test_there_is_something_to_check():
    assert len(COMMANDS) >= 8 and len(NAMES) >= 8 and len(FILES) >= 20


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_can_be_run(name):
    module = importlib.util.find_spec(name)
    assert module, f"there is no module {name}"
    main = importlib.util.find_spec(f"{name}.__main__") if module.submodule_search_locations else module
    assert main and '__name__ == "__main__"' in Path(main.origin).read_text(), f"{name} is no command"


@pytest.mark.parametrize("name", NAMES)
def test_names_can_be_imported(name):
    pkgutil.resolve_name(name)


@pytest.mark.parametrize("name", FILES)
def test_files_are_there(name):
    assert (ROOT / name).exists()
