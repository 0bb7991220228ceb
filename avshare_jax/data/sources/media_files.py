"""Finding media files in a folder, however it is laid out."""

import collections
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import class_name

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
AUDIO_SUFFIXES = (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".wma")
MEDIA_SUFFIXES = VIDEO_SUFFIXES + AUDIO_SUFFIXES
YOUTUBE_CLIP = re.compile(r"Y?(?P<id>[\w-]{11})(?:_[\d.]+(?P<end>_[\d.]+)?)?", re.ASCII)
"""What clips of YouTube's videos are called before their suffix: a Y or not, the id, start and end or less."""


def iterate_media(folder: Path, suffixes: tuple[str, ...] = MEDIA_SUFFIXES) -> Iterator[Path]:
    """Yields the files below a folder that have one of the suffixes, in upper or lower case.

    What is hidden is left out, files and folders. Links to files count as files, also where they lead nowhere, so that
    extraction says so. Links to folders are followed, but no folder is visited twice, so that links in a circle come to
    an end.

    Raises:
      DatasetError: the folder is not there, or one below it cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    # Links wait until last: a folder that is there and also linked to is known by its own place.
    folders, links = collections.deque([str(folder)]), collections.deque()
    visited: set[str] = set()
    while folders or links:
        directory = (folders or links).popleft()
        real = os.path.realpath(directory)
        if real in visited:
            continue
        visited.add(real)
        for entry in _entries(directory):
            if entry.name.startswith("."):
                continue
            is_folder, is_file = _kind(entry)
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif is_file and entry.name.lower().endswith(suffixes):
                yield Path(entry.path)


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether an entry is a folder, and whether it is a file or a link that leads nowhere.

    Only links take a call to the file system.
    """
    if entry.is_symlink():  # Its own methods would raise an error for a link to itself.
        return os.path.isdir(entry.path), os.path.isfile(entry.path) or not os.path.exists(entry.path)
    return entry.is_dir(), entry.is_file()


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"The folder {directory} cannot be read: {error.strerror}.") from error


def printable(path: str | os.PathLike[str]) -> str:
    """Returns a path as text that can be written anywhere: bytes that are not UTF-8 become question marks."""
    return Path(path).as_posix().encode(errors="replace").decode()


def without_suffix(name: str) -> str:
    """Returns the name or path of a file without its suffix if that is one of media files."""
    stem, dot, suffix = name.rpartition(".")
    return stem if (dot + suffix).lower() in MEDIA_SUFFIXES else name


def youtube_id(name: str) -> str | None:
    """Returns the YouTube id that a clip's name without folder and suffix says, or None if it is none."""
    match = YOUTUBE_CLIP.fullmatch(name)
    return match["id"] if match else None


class MediaFiles:
    """The media files below a folder by name without suffix, of which each can be taken once.

    Attributes:
      folder: where they are.
      count: how many there are.
      example: the name of one of them without folder and suffix, or empty.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...] = VIDEO_SUFFIXES):
        self.folder = folder
        # Of files with the same name, a video goes before sound alone: that is a track taken out of it.
        paths = sorted(
            iterate_media(folder, suffixes), key=lambda path: (path.suffix.lower() in AUDIO_SUFFIXES, str(path))
        )
        self.count = len(paths)
        self.example = paths[0].stem if paths else ""
        self._free: dict[str, list[Path]] = {}
        for path in paths:
            self._free.setdefault(path.stem, []).append(path)

    def take(self, names: Iterable[str], class_folder: str = "") -> str | None:
        """Takes the file with the first of the names that one has; of several with that name, the first by its path.

        Args:
          names: without folder and suffix.
          class_folder: a folder with this name, or with spaces for underscores, goes before all others.

        Returns:
          Its path, or None if no file with such a name is left.
        """
        for name in names:
            paths = self._free.get(name)
            if paths:
                wanted = (path for path in paths if class_name(path.parent.name) == class_name(class_folder))
                path = next(wanted, paths[0])
                paths.remove(path)
                return str(path)
        return None

    def left(self) -> list[str]:
        """Returns the files that were not taken, among them further files with a name that was taken, by path."""
        return sorted(printable(path) for paths in self._free.values() for path in paths)
