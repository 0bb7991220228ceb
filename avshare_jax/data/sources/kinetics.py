"""Kinetics-400, -600 or -700: the publisher's csv files and a folder of clips.

    python -m avshare_jax.prepare kinetics --videos=DIR --annotations=train.csv --annotations=val.csv --name=kinetics400

Annotations are csv files with the header label,youtube_id,time_start,time_end,split, in any order and maybe with
further columns; files of the test split may lack the label, and where there is no column split, the file's name has to
say train, val or test. Clips are called YOUTUBEID_START_END with six digits for the seconds, as the usual downloaders
do, or just YOUTUBEID; they may lie in class folders, with spaces or underscores, or not.

Lists of PySlowFast, rows `path label` without a header in train.csv, val.csv and test.csv, will do as well: files are
looked for by the last part of the path, and classes are called by their numbers.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import (
    Place,
    add_options,
    annotation_files,
    csv_records,
    known_split,
    seconds,
    split_of_file,
    text_lines,
)
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, alphabetical_classes, labels_of, match
from avshare_jax.data.sources.media_files import MediaFiles, youtube_id

SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
COLUMNS = ("youtube_id", "time_start", "time_end")
PATH_AND_NUMBER = re.compile(r"(.*[^\s,])(?:\s*,\s*|\s+)(\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(parser, "folder of clips, in class folders or not", "csv file, or folder with csv files; repeat it")


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations)


def find(videos: Path, annotations: Sequence[Path]) -> Listing:
    """Finds the clips that annotations name.

    Args:
      videos: folder of clips.
      annotations: csv files, or folders of them.

    Returns:
      Splits train, val and test; class names in alphabetical order.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no clip at all.
    """
    files = annotation_files(annotations, "*.csv")
    numbered = {is_numbered(path) for path in files}
    if len(numbered) > 1:
        raise DatasetError("Annotations with class names and rows `path label` do not go together: give one kind only.")
    entries = [entry for path in files for entry in read(path)]
    class_names = alphabetical_classes(entries)
    if numbered == {True}:  # Their numbers are the classes' numbers already: they stay what they are.
        class_names = tuple(str(number) for number in range(1 + max(map(int, class_names))))
    return match(entries, MediaFiles(videos), class_names)


def is_numbered(path: Path) -> bool:
    """Whether a file has rows `path label` with numbers as labels, instead of a header.

    Raises:
      DatasetError: it has neither, or cannot be read.
    """
    _, line = next(text_lines(path), (None, ""))
    if "youtube_id" in line:
        return False
    if PATH_AND_NUMBER.fullmatch(line):
        return True
    raise DatasetError(
        f"The annotation file {path} has neither a header with the columns label,{','.join(COLUMNS)},split nor rows "
        "`path label` with a number as the label."
    )


def read(path: Path) -> Iterator[Entry]:
    """Yields what an annotation file of either kind names.

    Raises:
      DatasetError: it cannot be understood; the sentence says which line.
    """
    return _read_numbered(path) if is_numbered(path) else _read_named(path)


def _read_named(path: Path) -> Iterator[Entry]:
    for place, row in csv_records(path, *COLUMNS):
        split = known_split(row["split"], SPLITS, place) if "split" in row else split_of_file(path, SPLITS)
        yield clip(place, row["youtube_id"], row["time_start"], row["time_end"], split, row.get("label", ""))


def clip(place: Place, youtube_id: str, start: str, end: str, split: str, label: str) -> Entry:
    """Returns the entry of a clip from the cells of its row.

    Raises:
      DatasetError: there is no id, or times are not numbers.
    """
    if not youtube_id:
        raise DatasetError(f"{place}: the row has no youtube_id.")
    name = f"{youtube_id}_{int(seconds(start, place)):06d}_{int(seconds(end, place)):06d}"
    return Entry(place, name, (name, youtube_id), split, labels_of(label), youtube_id)


def _read_numbered(path: Path) -> Iterator[Entry]:
    split = split_of_file(path, SPLITS)
    for place, line in text_lines(path):
        row = PATH_AND_NUMBER.fullmatch(line)
        if row is None:
            raise DatasetError(f"{place}: {line!r} is no row `path label` with a number as the label.")
        name = Path(row[1]).stem
        yield Entry(place, name, (name,), split, (str(int(row[2])),), youtube_id(name) or name)
