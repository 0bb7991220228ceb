"""Finding media files in a folder, however it is laid out."""

import collections
import mimetypes
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import composed
from avshare_jax.data.sources.annotations import class_name

VIDEO_SUFFIXES = (
    *(".264", ".265", ".3g2", ".3gp", ".3gp2", ".3gpp", ".3gpp2", ".amv", ".asf", ".avc", ".avi", ".bik", ".cine"),
    *(".dif", ".divx", ".dv", ".dvr-ms", ".evo", ".f4p", ".f4v", ".flc", ".fli", ".flv", ".gif", ".gxf", ".h261"),
    *(".h263", ".h264", ".h265", ".hevc", ".ism", ".ismv", ".ivf", ".lxf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v"),
    *(".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mlv", ".mod", ".mov", ".movie", ".mp2v", ".mp4", ".mpe"),
    *(".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nsv", ".nut", ".nuv", ".obu", ".ogm", ".ogv", ".ogx", ".psp", ".qt"),
    *(".rm", ".rmvb", ".rv", ".smk", ".swf", ".tod", ".tp", ".trp", ".ts", ".ty", ".vc1", ".viv", ".vob", ".vro"),
    *(".webm", ".wm", ".wmv", ".wtv", ".xvid", ".y4m"),
)
AUDIO_SUFFIXES = (
    *(".3ga", ".aa", ".aa3", ".aac", ".aax", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".awb"),
    *(".bwf", ".caf", ".dff", ".dsf", ".dss", ".dts", ".dtshd", ".eac3", ".ec3", ".f4a", ".f4b", ".flac", ".g722"),
    *(".gsm", ".isma", ".loas", ".m2a", ".m4a", ".m4b", ".m4p", ".m4r", ".mka", ".mlp", ".mp1", ".mp2", ".mp3"),
    *(".mpa", ".mpc", ".nist", ".oga", ".ogg", ".oma", ".opus", ".qcp", ".qoa", ".ra", ".rf64", ".shn", ".snd"),
    *(".sph", ".spx", ".tak", ".thd", ".tta", ".voc", ".vqf", ".w64", ".wav", ".wave", ".weba", ".wma", ".wv"),
)
MEDIA_SUFFIXES = VIDEO_SUFFIXES + AUDIO_SUFFIXES
"""What files end in that FFmpeg opens. Bare samples without a header, whose rates or sizes nobody knows, are not it."""

_TABLES = mimetypes.MimeTypes().types_map
MIME_TYPES = {**_TABLES[False], **_TABLES[True]}
"""Types by suffix, registered ones first: Python's own tables, which are the same on every machine."""
OTHER_MEDIA = (".ac4", ".braw", ".crm", ".kar", ".pcm", ".r3d", ".rgb", ".rmi", ".usm", ".vox", ".yuv")
"""Suffixes of media that are neither taken nor in that table."""
NO_MEDIA = (".ass",)
"""Subtitles, which the table calls sound."""

YOUTUBE_CLIP = re.compile(r"Y?(?P<id>[\w-]{11})(?:_[\d.]+(?P<end>_[\d.]+)?)?", re.ASCII)
"""What clips of YouTube's videos are called before their suffix: a Y or not, the id, start and end or less."""


class FoundMedia(NamedTuple):
    """The media files below a folder, each sorted by path.

    Attributes:
      taken: files with one of the suffixes that were asked for, in upper or lower case.
      others: files that look like media by their suffix and were not asked for.
    """

    taken: list[Path]
    others: list[Path]


def find_media(folder: Path, suffixes: tuple[str, ...] = MEDIA_SUFFIXES) -> FoundMedia:
    """Finds the media files below a folder; see `iterate_files`.

    Raises:
      DatasetError: the folder is not there, or one below it cannot be read.
    """
    found = FoundMedia([], [])
    for path in iterate_files(folder):
        if path.name.lower().endswith(suffixes):
            found.taken.append(path)
        elif path.name.lower().endswith(MEDIA_SUFFIXES) or is_other_media(path.name):
            found.others.append(path)
    return FoundMedia(*map(sorted, found))


def is_other_media(path: str | os.PathLike[str]) -> bool:
    """Whether a file's suffix says that it is video or sound, but of a kind that is not taken."""
    suffix = PurePath(path).suffix.lower()
    if suffix in MEDIA_SUFFIXES + NO_MEDIA:
        return False
    return suffix in OTHER_MEDIA or MIME_TYPES.get(suffix, "").startswith(("video/", "audio/"))


def why_not_taken(path: str | os.PathLike[str]) -> str:
    """The sentence for a file that `is_other_media`."""
    suffix = PurePath(path).suffix.lower()
    return f"Files that end in {suffix} are not taken: convert it, for example to mp4, mkv or wav."


def iterate_files(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder.

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
            elif is_file:
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


def without_suffix(name: str) -> str:
    """Returns the name or path of a file without its suffix if that is one of media files."""
    stem, dot, suffix = name.rpartition(".")
    # The name of a clip may end in a time such as 10.264.
    if suffix.isdecimal() and YOUTUBE_CLIP.fullmatch(PurePath(name).name):
        return name
    return stem if (dot + suffix).lower() in MEDIA_SUFFIXES else name


def youtube_id(name: str) -> str | None:
    """Returns the YouTube id that a clip's name without folder and suffix says, or None if it is none."""
    match = YOUTUBE_CLIP.fullmatch(name)
    return match["id"] if match else None


class MediaFiles:
    """The media files below a folder by name without suffix, of which each can be taken once.

    Names are compared in Unicode's form NFC.

    Attributes:
      folder: where they are.
      count: how many there are.
      example: the name of one of them without folder and suffix, or empty.
      not_taken: files that look like media and are of no kind that can be decoded.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...] = VIDEO_SUFFIXES):
        self.folder = folder
        found = find_media(folder, suffixes)
        # Of files with the same name, a video goes before sound alone: that is a track taken out of it.
        paths = sorted(found.taken, key=lambda path: (path.suffix.lower() in AUDIO_SUFFIXES, str(path)))
        self.count = len(paths)
        self.example = paths[0].stem if paths else ""
        self._free: dict[str, list[Path]] = {}
        for path in paths:
            self._free.setdefault(composed(path.stem), []).append(path)
        self.not_taken = [path for path in found.others if is_other_media(path)]
        self._other_kind = [path for path in found.others if not is_other_media(path)]

    def take(self, names: Iterable[str], class_folder: str = "") -> str | None:
        """Takes the file with the first of the names that one has; of several with that name, the first by its path.

        Args:
          names: without folder and suffix.
          class_folder: a folder with this name, or with spaces for underscores, goes before all others.

        Returns:
          Its path, or None if no file with such a name is left.
        """
        for name in names:
            paths = self._free.get(composed(name))
            if paths:
                wanted = (path for path in paths if class_name(path.parent.name) == class_name(class_folder))
                path = next(wanted, paths[0])
                paths.remove(path)
                return str(path)
        return None

    def left(self) -> list[str]:
        """Returns the files that were not taken by path: also further ones with a name that was, and other kinds.

        A file of another kind is sound where only videos are asked for, or the reverse.
        """
        free = (path for paths in self._free.values() for path in paths)
        return sorted(str(path) for path in (*free, *self._other_kind))
