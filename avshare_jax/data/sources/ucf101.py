"""UCF101: the publisher's lists of three splits and a folder of videos.

    python -m avshare_jax.prepare ucf101 --videos=UCF-101 --annotations=ucfTrainTestlist --name=ucf101

The folder of annotations holds classInd.txt and trainlist01.txt to testlist03.txt, or those of fewer splits. Each video
is stored once; train1, test1, train2 and so on name the official splits, which overlap. About half of the classes have
sound.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import (
    Place,
    add_options,
    annotation_files,
    check_unique,
    known_class,
    text_lines,
)
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, match
from avshare_jax.data.sources.media_files import MediaFiles
from avshare_jax.data.sources.official_splits import OfficialSplits

CLASSES_FILE = "classInd.txt"
LISTS = {f"{kind}list{number:02d}.txt": (kind, number) for kind in ("train", "test") for number in (1, 2, 3)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(parser, "folder of videos, in class folders or not", "folder with classInd.txt and the lists")


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations)


def find(videos: Path, annotations: Sequence[Path]) -> Listing:
    """Finds the videos that the lists name.

    Args:
      videos: folder of videos.
      annotations: the folder with the class index and the lists, or these files.

    Returns:
      A split for each set of official splits that files are in, and the official ones as `split_names`; class names
      in the publisher's order.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no video at all.
    """
    files = {path.name: path for path in annotation_files(annotations, CLASSES_FILE, *LISTS)}
    lists = {files[name]: kind_and_number for name, kind_and_number in LISTS.items() if name in files}
    if CLASSES_FILE not in files or not lists:
        raise DatasetError(f"Annotations of UCF101 need {CLASSES_FILE} and lists such as trainlist01.txt.")
    class_names = read_classes(files[CLASSES_FILE])
    official = OfficialSplits()
    rows: dict[str, tuple[Place, str]] = {}
    for path, (kind, number) in lists.items():
        for place, line in text_lines(path):
            name, label = read_row(line, class_names, place)
            rows.setdefault(name, (place, label))
            official.add(name, kind, number, place)
    entries = [_entry(name, label, official.part(name), place) for name, (place, label) in rows.items()]
    return match(entries, MediaFiles(videos), class_names, unions=official.unions())


def read_classes(path: Path) -> tuple[str, ...]:
    """Reads the class index, rows `1 ApplyEyeMakeup` that are numbered from 1.

    Raises:
      DatasetError: it cannot be read, or numbers do not run from 1.
    """
    names = []
    for place, line in text_lines(path):
        number, _, name = line.partition(" ")
        if number != str(len(names) + 1) or not name.strip():
            raise DatasetError(f"{place}: {line!r} should be the number {len(names) + 1} and a class.")
        names.append(name.strip())
    return check_unique(names, path)


def read_row(line: str, class_names: Sequence[str], place: Place) -> tuple[str, str]:
    """Reads a row of a list, `CLASS/NAME.avi` and, in training lists, the number of the class.

    Returns:
      The file's name without suffix, and its class.

    Raises:
      DatasetError: the class is unknown, or its number is another's.
    """
    path, _, number = line.partition(" ")
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if len(parts) < 2:
        raise DatasetError(f"{place}: {line!r} should name a file in the folder of its class.")
    classes: Mapping[str, str] = {name: name for name in class_names}
    label = known_class(parts[-2], classes, place)
    number = number.strip()
    if number and number != str(class_names.index(label) + 1):
        raise DatasetError(f"{place}: {number} is not the number of the class {label!r} in {CLASSES_FILE}.")
    return PurePosixPath(parts[-1]).stem, label


def _entry(name: str, label: str, part: str, place: Place) -> Entry:
    # Files of HandstandPushups are called v_HandStandPushups_…, but some copies have mended that.
    mended = "_".join(["v", label, *name.split("_")[2:]])
    # Videos of one group, such as g08, were cut out of the same one.
    group = name.rpartition("_c")[0]
    return Entry(place, name, (name, mended), part, (label,), group, label)
