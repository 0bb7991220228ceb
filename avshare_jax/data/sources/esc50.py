"""ESC-50: the release of environmental sounds as it is, five folds of sound without images.

    python -m avshare_jax.prepare esc50 --videos=ESC-50-master --name=esc50

The folder holds meta/esc50.csv and the sounds in audio/. Each fold is a split, fold1 to fold5; test1 names the first
and train1 the four others, and so on. Other splits would leak: clips that were cut out of one recording share a fold.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import class_name, csv_records
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, match
from avshare_jax.data.sources.media_files import AUDIO_SUFFIXES, MediaFiles

COLUMNS = ("filename", "fold", "target", "category", "src_file")
FOLDS = ("1", "2", "3", "4", "5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="the release, with audio/ and meta/")


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the sounds that the command line's options ask for; see `find`."""
    return find(options.videos)


def find(root: Path) -> Listing:
    """Finds the sounds of the release.

    Args:
      root: folder of the release.

    Returns:
      Splits fold1 to fold5, and train1 to test5 as `split_names`; class names in the publisher's order.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no sound at all.
    """
    table = root / "meta" / "esc50.csv"
    if not table.is_file():
        raise DatasetError(f"The folder {root} is no release of ESC-50: it has no meta/esc50.csv.")
    names: dict[int, str] = {}
    entries = list(read(table, names))
    class_names = tuple(names[target] for target in sorted(names))
    unions = {}
    for fold in FOLDS:
        unions[f"train{fold}"] = [f"fold{other}" for other in FOLDS if other != fold]
        unions[f"test{fold}"] = [f"fold{fold}"]
    return match(entries, MediaFiles(root / "audio", AUDIO_SUFFIXES), class_names, unions=unions)


def read(path: Path, names: dict[int, str]) -> Iterator[Entry]:
    """Yields what the table names.

    Args:
      path: the table.
      names: becomes the names of classes by their numbers.

    Raises:
      DatasetError: it cannot be understood, or a number has two classes; the sentence says which line.
    """
    for place, row in csv_records(path, *COLUMNS):
        if row["fold"] not in FOLDS:
            raise DatasetError(f"{place}: {row['fold']!r} is not the number of a fold, 1 to 5.")
        if not row["target"].isdecimal() or not row["filename"]:
            raise DatasetError(f"{place}: the row needs a filename and a number as its target.")
        label = class_name(row["category"])
        if names.setdefault(int(row["target"]), label) != label or list(names.values()).count(label) > 1:
            raise DatasetError(
                f"{place}: other rows pair the target {row['target']} or the class {label!r} differently."
            )
        name = Path(row["filename"]).stem
        yield Entry(place, name, (name,), f"fold{row['fold']}", (label,), row["src_file"])
