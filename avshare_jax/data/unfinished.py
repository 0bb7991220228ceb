"""A data set that is not finished: what is being made and of what, so that only the same is gone on with; its lock."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from etils import epath

from avshare_jax.data import records
from avshare_jax.data.dataset import is_unfinished
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import printable
from avshare_jax.data.records import SETTINGS
from avshare_jax.data.shards import Settings
from avshare_jax.data.sources.listing import Listing
from avshare_jax.settings import differences

LISTING, LOCK = "listing.json", "lock"
EXAMPLES = 3


def check_new(settings: Settings) -> None:
    """Raises `DatasetError` where the name cannot be one, or is that of a finished data set."""
    records.check_name(settings.name)
    if settings.directory.exists() and not is_unfinished(settings.data_dir, settings.name):
        raise DatasetError(f"The data set {settings.directory} exists already: delete it, or use another name.")


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Keeps other processes from preparing the same data set; `DatasetError` where one does. Object stores cannot.

    Afterwards, the notes of a preparation that has ended are removed; open files of network file systems could not be.
    """
    with contextlib.ExitStack() as stack:
        if "://" not in os.fspath(settings.notes):
            settings.notes.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(settings.notes / LOCK, "w"))
            _lock(file, settings)
        try:
            yield
        finally:
            stack.close()
            if settings.notes.exists() and not is_unfinished(settings.data_dir, settings.name):
                settings.notes.rmtree()
                if not any(settings.notes.parent.iterdir()):
                    settings.notes.parent.rmdir()


def _lock(file: TextIO, settings: Settings) -> None:
    """Locks a file until it is closed, or the process ends in any way; `DatasetError` where another has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise _running(settings) from error
    except OSError:  # Some network file systems have no locks.
        pass
    # The other may have finished, and removed the file, after it was opened here.
    if not os.path.exists(file.name) or not os.path.samestat(os.stat(file.name), os.fstat(file.fileno())):
        raise _running(settings)


def _running(settings: Settings) -> DatasetError:
    return DatasetError(f"Another preparation of the data set {settings.directory} is running: wait until it ends.")


def begin(listing: Listing, settings: Settings) -> None:
    """Notes what is being made; `DatasetError` where that is done, or something else was begun under the name."""
    check_new(settings)
    path, wanted, videos = settings.notes / SETTINGS, _identity(settings), _listed(listing)
    if is_unfinished(settings.data_dir, settings.name):
        begun = _read_note(path, settings)
        _check_revision(begun, settings)  # First: an older version names some files in other ways, too.
        _check_same_videos(_read_note(settings.notes / LISTING, settings), videos, settings)
        if changed := list(differences(begun, wanted)):
            phrases = "; ".join(f"{name} was {old} and is now {new}" for name, old, new in changed)
            raise DatasetError(
                f"The preparation of {settings.directory} was begun with other settings: {phrases}. "
                f"Repeat those to go on with it, or delete {settings.directory.parent} to begin anew."
            )
    else:
        _write_note(settings.notes / LISTING, videos)
        _write_note(path, wanted)  # From here on, it has begun.
    settings.directory.mkdir(parents=True, exist_ok=True)
    for directory in (settings.directory, settings.notes):
        for partial in directory.glob(".*.partial"):  # Of a killed process.
            partial.unlink()


def _check_revision(begun: Mapping[str, Any], settings: Settings) -> None:
    """Raises `DatasetError` where finished shards hold other pictures than those that would follow."""
    contents = begun.get("contents")
    if isinstance(contents, dict) and contents.get("revision", 1) != settings.contents.revision:
        raise DatasetError(
            f"The preparation of {settings.directory} was begun by a version of avshare_jax whose pictures have other "
            f"colors: delete {settings.directory.parent} to begin anew, or go on with that version."
        )


def _write_note(path: epath.Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.new_file(path) as partial, open(partial, "w") as file:
        json.dump(content, file)


def _read_note(path: epath.Path, settings: Settings) -> dict[str, Any]:
    """Reads what `_write_note` has written."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, FileNotFoundError):
        content = None
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is damaged or missing: delete {settings.directory.parent} to begin anew.")
    return content


def _identity(settings: Settings) -> dict[str, object]:
    """What the data set depends on besides the videos, as JSON gives it back."""
    # The directory may be called by another name, and the rest may have to be made with more or less memory.
    identity = {**dataclasses.asdict(settings), "data_dir": None}
    del identity["memory_limit"]
    return json.loads(json.dumps(identity))


def _listed(listing: Listing) -> dict[str, dict[str, object]]:
    """The videos of a listing by their ids, as JSON gives them back."""
    return {
        video.video_id: {"split": split, "labels": list(video.labels), "path": printable(video.path)}
        for split, videos in sorted(listing.splits.items())
        for video in videos
    }


def _check_same_videos(begun: Mapping[str, Any], wanted: Mapping[str, Any], settings: Settings) -> None:
    """Raises `DatasetError` where there are other ids, or some in other splits or classes; paths do not count."""
    changed = [name for name in begun if name in wanted and {**begun[name], "path": ""} != {**wanted[name], "path": ""}]
    groups = {
        "appeared": [name for name in wanted if name not in begun],
        "vanished": [name for name in begun if name not in wanted],
        "changed split or classes": changed,
    }
    differences = [_with_examples(sorted(names), verb) for verb, names in groups.items() if names]
    if differences:
        only_new = groups["appeared"] and len(differences) == 1
        undo = "Move the new files away" if only_new else "Undo that"
        raise DatasetError(
            f"The videos are not those that the preparation of {settings.directory} was begun with: "
            f"{'; '.join(differences)}. {undo} to go on with it, or delete {settings.directory.parent} to begin anew."
        )


def _with_examples(names: Sequence[str], verb: str) -> str:
    noun = "video" if len(names) == 1 else "videos"
    examples = ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
    return f"{len(names):,} {noun} {verb} ({examples})"
