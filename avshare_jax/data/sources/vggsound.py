"""VGGSound: the publisher's vggsound.csv and a folder of clips of 10 seconds.

    python -m avshare_jax.prepare vggsound --videos=DIR --annotations=vggsound.csv --name=vggsound

The csv file has no header; its rows are id, start in seconds, label and split. Clips are called YOUTUBEID_START or
YOUTUBEID_START_END with six digits for the seconds, YOUTUBEID_START_END in milliseconds, or just YOUTUBEID. They may be
videos or sound alone.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import (
    add_options,
    annotation_files,
    csv_rows,
    exactly,
    known_split,
    seconds,
)
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, alphabetical_classes, labels_of, match
from avshare_jax.data.sources.media_files import MEDIA_SUFFIXES, MediaFiles

SPLITS = {"train": "train", "test": "test"}
CLIP_SECONDS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(parser, "folder of clips or sound files", "vggsound.csv, or the folder with it")


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations)


def find(videos: Path, annotations: Sequence[Path]) -> Listing:
    """Finds the clips that annotations name.

    Args:
      videos: folder of clips.
      annotations: csv files, or folders of them.

    Returns:
      Splits train and test; class names in alphabetical order.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no clip at all.
    """
    entries = [entry for path in annotation_files(annotations, "vggsound*.csv") for entry in read(path)]
    return match(entries, MediaFiles(videos, MEDIA_SUFFIXES), alphabetical_classes(entries))


def read(path: Path) -> Iterator[Entry]:
    """Yields what an annotation file names.

    Raises:
      DatasetError: it cannot be understood; the sentence says which line.
    """
    for place, cells in csv_rows(path):
        youtube_id, start, label, split = exactly(cells, 4, place)
        if not youtube_id:
            raise DatasetError(f"{place}: the row has no YouTube id.")
        first = int(seconds(start, place))
        last = first + CLIP_SECONDS
        clip = f"{youtube_id}_{first:06d}"
        names = (clip, f"{clip}_{last:06d}", f"{youtube_id}_{1000 * first}_{1000 * last}", youtube_id)
        yield Entry(place, clip, names, known_split(split, SPLITS, place), labels_of(label), youtube_id)
