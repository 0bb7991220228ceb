"""The lock file names, with hashes, all that the package and its development need."""

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def entries() -> list[str]:
    """What pip sees: lines without comments, those that go on joined."""
    lines = re.sub(r"^\s*#.*\n", "", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    return lines.replace("\\\n", " ").splitlines()


@pytest.fixture(scope="module")
def locked(entries) -> dict[str, Requirement]:
    requirements = [Requirement(entry.split(" --hash=")[0]) for entry in entries]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.fixture(scope="module")
def ranges() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]


def needed(requirements: list[Requirement]) -> Iterator[Requirement]:
    """Yields the requirements and those of what is installed for them, and so on."""
    todo, seen = list(requirements), set()
    while todo:
        requirement = todo.pop()
        yield requirement
        for extra in {"", *requirement.extras}:
            key = (canonicalize_name(requirement.name), extra)
            if key in seen:
                continue
            seen.add(key)
            further = map(Requirement, metadata.requires(requirement.name) or [])
            todo += [each for each in further if each.marker is None or each.marker.evaluate({"extra": extra})]


def test_each_entry_is_one_version_with_hashes(entries):
    assert len(entries) > 100
    entry = re.compile(r"[\w.-]+==[\w.]+ (; [^#]+?)?\s*(--hash=sha256:[0-9a-f]{64}\s*)+")
    assert [line for line in entries if not entry.fullmatch(line)] == []


def test_lock_satisfies_what_is_needed_and_holds_no_more_than_that(locked, ranges):
    names = set()
    for requirement in needed(ranges):
        name = canonicalize_name(requirement.name)
        (pin,) = locked[name].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement}, but requirements.txt has {pin.version}"
        names.add(name)
    here = {name for name, pin in locked.items() if pin.marker is None or pin.marker.evaluate()}
    assert here - names == set()


def test_ranges_begin_at_versions_that_were_run(locked, ranges):
    for requirement in ranges:
        (pin,) = locked[canonicalize_name(requirement.name)].specifier
        assert not requirement.specifier.contains("0"), f"{requirement} has no lowest version"
        assert requirement.specifier.contains(pin.version)
