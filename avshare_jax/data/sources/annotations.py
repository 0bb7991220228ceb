"""Reading of publishers' annotation files: whatever is wrong with one becomes a sentence with its name and line."""

import argparse
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import composed


class Place(NamedTuple):
    """Where in an annotation file something stands; as text, `FILE, line N`."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


def add_options(parser: argparse.ArgumentParser, media: str, annotations: str) -> None:
    """Adds `--videos` and the repeatable `--annotations`.

    Args:
      parser: of one source.
      media: what the help says about the folder.
      annotations: what the help says about the annotation files.
    """
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help=media)
    parser.add_argument(
        "--annotations", type=Path, required=True, action="append", metavar="FILE_OR_DIR", help=annotations
    )


def annotation_files(paths: Sequence[Path], *patterns: str) -> list[Path]:
    """Lists annotation files.

    Args:
      paths: files, which are taken whatever they are called, and folders.
      patterns: of which a file directly in one of the folders has to match one, for example `*.csv`.

    Returns:
      The files in the order of `paths`, those of a folder by name.

    Raises:
      DatasetError: there is no such file or folder, or nothing in a folder matches.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file for file in path.iterdir() if file.is_file() and any(fnmatch(file.name, p) for p in patterns)
            )
            if not inside:
                raise DatasetError(f"The folder of annotations {path} holds no {' or '.join(patterns)}.")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise DatasetError(f"There is no annotation file or folder {path}.")
    return files


def text_lines(path: Path) -> Iterator[tuple[Place, str]]:
    """Yields the lines of a text file that are not blank, without the space around them, in Unicode's form NFC.

    Raises:
      DatasetError: the file cannot be read or is not UTF-8 text.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Place(path, number), composed(line.strip())
    except UnicodeDecodeError as error:
        raise DatasetError(f"The annotation file {path} is not UTF-8 text: convert it to UTF-8.") from error
    except OSError as error:
        raise DatasetError(f"The annotation file {path} cannot be read: {error.strerror}.") from error


def csv_rows(path: Path) -> Iterator[tuple[Place, list[str]]]:
    """Yields the rows of a csv file that are not blank; a header is a row like any other.

    Cells lose the space around them and are in Unicode's form NFC. Quoted cells may hold commas and newlines; a row's
    place is its first line.

    Raises:
      DatasetError: the file cannot be read, is not UTF-8 text, or its quotes do not match.
    """
    last_line = 0
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            # Strict, because otherwise a quote that is never closed swallows the rest of the file without a word.
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for row in reader:
                cells = [composed(cell.strip()) for cell in row]
                if any(cells):
                    yield Place(path, last_line + 1), cells
                last_line = reader.line_num
    except UnicodeDecodeError as error:
        raise DatasetError(f"The annotation file {path} is not UTF-8 text: convert it to UTF-8.") from error
    except csv.Error as error:
        raise DatasetError(f"{Place(path, last_line + 1)}: this is no valid csv row: {error}.") from error
    except OSError as error:
        raise DatasetError(f"The annotation file {path} cannot be read: {error.strerror}.") from error


def csv_records(path: Path, *required: str) -> Iterator[tuple[Place, dict[str, str]]]:
    """Yields the rows of a csv file with a header as dictionaries.

    Args:
      path: the file.
      required: columns that there must be.

    Raises:
      DatasetError: as in `csv_rows`, a column is not there, or a row has too few or too many cells.
    """
    rows = csv_rows(path)
    _, header = next(rows, (None, []))
    absent = [column for column in required if column not in header]
    if absent:
        raise DatasetError(
            f"The annotation file {path} needs a header with the columns {','.join(required)}; "
            f"it lacks {', '.join(absent)}."
        )
    for place, cells in rows:
        yield place, dict(zip(header, exactly(cells, len(header), place), strict=True))


def exactly(cells: list[str], number: int, place: Place) -> list[str]:
    """Returns a row's cells without empty ones at the end that are too many.

    Raises:
      DatasetError: there are not as many as `number`.
    """
    while len(cells) > number and not cells[-1]:
        cells = cells[:-1]
    if len(cells) != number:
        raise DatasetError(f"{place}: the row has {len(cells)} values instead of {number}.")
    return cells


def seconds(text: str, place: Place) -> float:
    """Reads a time in seconds.

    Raises:
      DatasetError: it is not a number of 0 or more.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise DatasetError(f"{place}: {text!r} is not a time in seconds.")
    return value


def known_split(name: str, splits: Mapping[str, str], place: Place) -> str:
    """Returns our name of a publisher's split.

    Args:
      name: the publisher's; upper and lower case are the same.
      splits: our names by the publisher's.
      place: of the name.

    Raises:
      DatasetError: the name is none of them.
    """
    split = splits.get(name.lower())
    if split is None:
        raise DatasetError(f"{place}, has the split {name!r}; splits are {', '.join(splits)}.")
    return split


def split_of_file(path: Path, splits: Mapping[str, str]) -> str:
    """Returns the split that a file's name says, such as `train` for `Charades_v1_train.csv`.

    Args:
      path: the file.
      splits: our names by the words that may stand in the name.

    Raises:
      DatasetError: it says none, or more than one.
    """
    words = re.split(r"[^a-z]+", path.stem.lower())
    found = {splits[word] for word in words if word in splits}
    if len(found) != 1:
        raise DatasetError(
            f"The name of the annotation file {path} has to say its split, one of {', '.join(splits)}: rename it."
        )
    return found.pop()


def class_name(text: str) -> str:
    """Returns a class's name in form NFC, with spaces for underscores: folders and annotations differ in both."""
    return " ".join(composed(text).replace("_", " ").split())


def known_class(label: str, classes: Mapping[str, str], place: Place) -> str:
    """Returns the name of a class.

    Args:
      label: what annotations say, for example a code.
      classes: names by what annotations may say.
      place: of the label.

    Raises:
      DatasetError: the label is none of them.
    """
    name = classes.get(label)
    if name is None:
        raise DatasetError(f"{place}: the class {label!r} is not in the list of the {len(classes)} classes.")
    return name


def check_unique(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """Returns the names of classes as a tuple.

    Raises:
      DatasetError: there is none, or a name stands twice, which would make numbers of classes ambiguous.
    """
    if not names:
        raise DatasetError(f"The list of classes {path} is empty.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"The list of classes {path} has {twice[0]!r} more than once.")
    return tuple(names)
