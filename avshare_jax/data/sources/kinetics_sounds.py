"""Kinetics-Sounds: the classes of Kinetics-400 that can be heard, from the same csv files and clips.

    python -m avshare_jax.prepare kinetics_sounds --videos=DIR --annotations=train.csv --annotations=val.csv \\
        --name=kinetics_sounds

Annotations and clips are those of Kinetics-400; see the source kinetics. There is no official list of classes: without
--classes, they are the 32 that most projects use, but lists of 31, 33 and 34 are in use too, so compare the number of
classes that is printed with that of the results you compare with. Much of Kinetics-400's val lies in the train of
Kinetics-700: leave those clips out where a model was trained on the latter.
"""

import argparse
import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import kinetics
from avshare_jax.data.sources.annotations import add_options, annotation_files, check_unique, class_name, text_lines
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, match
from avshare_jax.data.sources.media_files import MediaFiles

CLASSES = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "strumming guitar",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(parser, "folder of clips of Kinetics-400", "csv file, or folder with csv files; repeat it")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="text file with one class a line instead of the 32 usual ones"
    )


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations, read_classes(options.classes) if options.classes else CLASSES)


def find(videos: Path, annotations: Sequence[Path], classes: Sequence[str] = CLASSES) -> Listing:
    """Finds the clips of some classes of Kinetics-400; clips of its other classes are neither used nor unlisted.

    Args:
      videos: folder of clips.
      annotations: csv files of Kinetics-400, or folders of them.
      classes: the classes, which are numbered in alphabetical order.

    Returns:
      Splits train and val.

    Raises:
      DatasetError: as in `kinetics.find`, or annotations know no such class.
    """
    files = annotation_files(annotations, "*.csv")
    if any(map(kinetics.is_numbered, files)):
        raise DatasetError("Kinetics-Sounds needs the names of classes: give the publisher's csv files with a header.")
    entries = [entry for path in files for entry in kinetics.read(path)]
    _check_known(classes, {label for entry in entries for label in entry.labels})
    return match(_chosen(entries, set(classes)), MediaFiles(videos), tuple(sorted(classes)))


def read_classes(path: Path) -> tuple[str, ...]:
    """Reads a list of classes, one a line.

    Raises:
      DatasetError: it cannot be read, is empty, or has a class twice.
    """
    return check_unique([class_name(line) for _, line in text_lines(path)], path)


def _check_known(classes: Sequence[str], known: set[str]) -> None:
    """Catches misspelled classes; the usual ones may be absent from what was cut out of the publisher's files."""
    for name in classes:
        if name not in known and name not in CLASSES:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
            raise DatasetError(f"The class {name!r} occurs nowhere in the annotations{hint}.")


def _chosen(entries: Iterable[Entry], classes: set[str]) -> Iterator[Entry]:
    """Yields entries of the classes, and then the others as not wanted: a file goes to an entry that wants it first."""
    others = []
    for entry in entries:
        if classes.intersection(entry.labels):
            yield entry
        else:
            others.append(dataclasses.replace(entry, split=None))
    yield from others
