"""AudioSet: the publisher's lists of segments with several labels each, and a folder of clips or sound files.

    python -m avshare_jax.prepare audioset --videos=DIR --annotations=DIR --class_labels=class_labels_indices.csv \\
        --name=audioset

Annotations are balanced_train_segments.csv, unbalanced_train_segments.csv and eval_segments.csv, or some of them, or
the folder with them; their names say the splits, and train is the two training splits together. The publisher gives no
media: files may be called YOUTUBEID, or YOUTUBEID_START or YOUTUBEID_START_END in seconds, with six digits or as they
are, or in milliseconds; each also with a Y in front. They may be videos or sound alone.
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
    csv_rows,
    exactly,
    known_class,
    seconds,
)
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, match
from avshare_jax.data.sources.media_files import MEDIA_SUFFIXES, MediaFiles

PATTERNS = ("balanced_train_segments*.csv", "unbalanced_train_segments*.csv", "eval_segments*.csv")
UNIONS = {"train": ("balanced_train", "unbalanced_train")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(
        parser, "folder of clips or sound files", "file of segments, or folder with the publisher's files; repeat it"
    )
    parser.add_argument(
        "--class_labels", type=Path, required=True, metavar="FILE", help="the publisher's class_labels_indices.csv"
    )


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations, options.class_labels)


def find(videos: Path, annotations: Sequence[Path], class_labels: Path) -> Listing:
    """Finds the segments that annotations name.

    Args:
      videos: folder of media.
      annotations: files of segments, or folders of them.
      class_labels: table of classes.

    Returns:
      Splits balanced_train, unbalanced_train and eval, and train for the first two together; class names in the
      order of their numbers.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no segment at all.
    """
    classes = read_classes(class_labels)
    files = annotation_files(annotations, *PATTERNS)
    entries = (entry for path in files for entry in read(path, classes))
    return match(entries, MediaFiles(videos, MEDIA_SUFFIXES), tuple(classes.values()), multi_label=True, unions=UNIONS)


def read_classes(path: Path) -> dict[str, str]:
    """Reads the table of classes, with or without its header `index,mid,display_name`.

    Returns:
      Names by their codes, in the order of their numbers.

    Raises:
      DatasetError: the file cannot be read, or numbers do not run from 0.
    """
    rows: list[tuple[int, str, str]] = []
    for place, cells in csv_rows(path):
        number, mid, name = exactly(cells, 3, place)
        if number == "index":
            continue
        if not number.isdecimal():
            raise DatasetError(f"{place}: {number!r} is not the number of a class.")
        rows.append((int(number), mid, name))
    rows.sort()
    if [number for number, _, _ in rows] != list(range(len(rows))):
        raise DatasetError(f"The numbers of classes in {path} do not run from 0 without gaps: get the file again.")
    names = check_unique([name for _, _, name in rows], path)
    check_unique([mid for _, mid, _ in rows], path)
    return {mid: name for (_, mid, _), name in zip(rows, names, strict=True)}


def split_of(path: Path) -> str:
    """Returns the split of a file of segments.

    Raises:
      DatasetError: its name does not say it.
    """
    for word, split in (("unbalanced", "unbalanced_train"), ("balanced", "balanced_train"), ("eval", "eval")):
        if word in path.name.lower():
            return split
    raise DatasetError(
        f"The name of the annotation file {path} has to say its split, one of balanced, unbalanced, eval: rename it."
    )


def read(path: Path, classes: Mapping[str, str]) -> Iterator[Entry]:
    """Yields what a file of segments names.

    Args:
      path: the file.
      classes: names by their codes.

    Raises:
      DatasetError: it cannot be understood, or a code is not in the table; the sentence says which line.
    """
    split = split_of(path)
    for place, cells in csv_rows(path):
        if cells[0].startswith("#"):
            continue
        youtube_id, start, end, mids = exactly(cells, 4, place)
        labels = [known_class(mid.strip(), classes, place) for mid in mids.split(",") if mid.strip()]
        yield _segment(place, youtube_id, start, end, split, tuple(dict.fromkeys(labels)))


def _segment(place: Place, youtube_id: str, start: str, end: str, split: str, labels: tuple[str, ...]) -> Entry:
    if not youtube_id:
        raise DatasetError(f"{place}: the row has no YouTube id.")
    first, last = round(1000 * seconds(start, place)), round(1000 * seconds(end, place))
    whole = [(first // 1000, last // 1000)] if first % 1000 == last % 1000 == 0 else []
    # Codes of publishers' later releases are the id and the start in milliseconds.
    spans = [f"_{a:06d}_{b:06d}" for a, b in whole] + [f"_{a}_{b}" for a, b in whole] + [f"_{start}_{end}"]
    spans += [f"_{first}_{last}"] + [f"_{a:06d}" for a, _ in whole] + [f"_{a}" for a, _ in whole] + [f"_{first}", ""]
    names = tuple(f"{prefix}{youtube_id}{span}" for span in dict.fromkeys(spans) for prefix in ("", "Y"))
    return Entry(place, f"{youtube_id}_{first}", names, split, labels, youtube_id)
