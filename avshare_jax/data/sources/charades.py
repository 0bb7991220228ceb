"""Charades: the publisher's csv files and a folder of videos with several actions each.

    python -m avshare_jax.prepare charades --videos=Charades_v1 --annotations=DIR --name=charades

The folder of annotations holds Charades_v1_train.csv, Charades_v1_test.csv and Charades_v1_classes.txt; with --classes,
the last may lie elsewhere. A video's labels are all of its actions, whenever they happen; there may be none.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import (
    Place,
    add_options,
    annotation_files,
    check_unique,
    csv_records,
    known_class,
    seconds,
    split_of_file,
    text_lines,
)
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, match
from avshare_jax.data.sources.media_files import MediaFiles

SPLITS = {"train": "train", "test": "test"}
CLASSES_FILE = "Charades_v1_classes.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(parser, "folder of videos", "csv file, or folder with the publisher's files; repeat it")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help=f"{CLASSES_FILE}, if it does not lie beside the annotations"
    )


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations, options.classes)


def find(videos: Path, annotations: Sequence[Path], classes: Path | None = None) -> Listing:
    """Finds the videos that annotations name.

    Args:
      videos: folder of videos.
      annotations: csv files, or folders of them.
      classes: list of classes; by default, the publisher's file beside the first csv file.

    Returns:
      Splits train and test; class names in the publisher's order.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no video at all.
    """
    files = annotation_files(annotations, "Charades*_train.csv", "Charades*_test.csv")
    names = read_classes(classes or files[0].parent / CLASSES_FILE)
    entries = [entry for path in files for entry in read(path, names)]
    return match(entries, MediaFiles(videos), tuple(names.values()), multi_label=True)


def read_classes(path: Path) -> dict[str, str]:
    """Reads the list of classes, rows `c000 Holding some clothes` that are numbered from 0.

    Returns:
      Names by their codes, in the order of their numbers.

    Raises:
      DatasetError: it cannot be read, or numbers do not run from 0.
    """
    names: dict[str, str] = {}
    for place, line in text_lines(path):
        code, _, name = line.partition(" ")
        if code != f"c{len(names):03d}" or not name.strip():
            raise DatasetError(f"{place}: {line!r} should be the code c{len(names):03d} and a class.")
        names[code] = name.strip()
    check_unique(list(names.values()), path)
    return names


def read(path: Path, classes: Mapping[str, str]) -> Iterator[Entry]:
    """Yields what an annotation file names.

    Args:
      path: the file.
      classes: names by their codes.

    Raises:
      DatasetError: it cannot be understood, or an action is not in the list of classes; the sentence says which line.
    """
    split = split_of_file(path, SPLITS)
    for place, row in csv_records(path, "id", "actions"):
        if not row["id"]:
            raise DatasetError(f"{place}: the row has no id.")
        yield Entry(place, row["id"], (row["id"],), split, read_actions(row["actions"], classes, place))


def read_actions(text: str, classes: Mapping[str, str], place: Place) -> tuple[str, ...]:
    """Reads actions and their times in seconds, such as `c092 11.90 21.20;c147 0.00 12.60`.

    Returns:
      The names of the classes, each once, in the order of their numbers.

    Raises:
      DatasetError: it cannot be understood, or an action is not in the list of classes.
    """
    found = set()
    for action in filter(None, map(str.strip, text.split(";"))):
        code, *times = action.split()
        if len(times) != 2:
            raise DatasetError(f"{place}: the action {action!r} should be a code and two times.")
        for time in times:  # When actions happen is not used, but what is no time shows that the row is broken.
            seconds(time, place)
        found.add(known_class(code, classes, place))
    return tuple(name for name in classes.values() if name in found)
