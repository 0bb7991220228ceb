"""HMDB51: the publisher's lists of three splits and a folder of videos.

    python -m avshare_jax.prepare hmdb51 --videos=DIR --annotations=testTrainMulti_7030_splits --name=hmdb51

The folder of annotations holds a file such as brush_hair_test_split1.txt for each class and split, with rows of a
file's name and 0 for unused, 1 for training or 2 for test. Each video is stored once; train1, test1, train2 and so on
name the official splits, which overlap. Videos that no official split uses are in the split unused.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import Place, add_options, annotation_files, class_name, text_lines
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.sources.matching import Entry, match
from avshare_jax.data.sources.media_files import MediaFiles
from avshare_jax.data.sources.official_splits import OfficialSplits

LIST = re.compile(r"(.+)_test_split([123])\.txt")
KINDS = {"0": None, "1": "train", "2": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    add_options(parser, "folder of videos, in class folders or not", "folder with the files *_test_split?.txt")


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.annotations)


def find(videos: Path, annotations: Sequence[Path]) -> Listing:
    """Finds the videos that the lists name.

    Args:
      videos: folder of videos.
      annotations: the folder with the lists, or the lists.

    Returns:
      A split for each set of official splits that files are in, and the official ones as `split_names`; class names
      in alphabetical order.

    Raises:
      DatasetError: a file is not there or cannot be understood, or there is no video at all.
    """
    lists = [(path, *_class_and_number(path)) for path in annotation_files(annotations, "*_test_split[123].txt")]
    _check_complete(lists)
    official = OfficialSplits()
    rows: dict[str, tuple[Place, str, str]] = {}
    for path, label, number in lists:
        for place, name, kind in read(path):
            # The class is part of the id, because names need not be unique across classes.
            video_id = f"{label.replace(' ', '_')}/{name}"
            rows.setdefault(video_id, (place, name, label))
            official.add(video_id, kind, number, place)
    entries = [
        Entry(place, video_id, (name,), official.part(video_id), (label,), class_folder=label)
        for video_id, (place, name, label) in rows.items()
    ]
    class_names = tuple(sorted({label for _, label, _ in lists}))
    return match(entries, MediaFiles(videos), class_names, unions=official.unions())


def _class_and_number(path: Path) -> tuple[str, int]:
    name = LIST.fullmatch(path.name)
    if name is None:
        raise DatasetError(f"The annotation file {path} should be called CLASS_test_split1.txt, or with 2 or 3.")
    return class_name(name[1]), int(name[2])


def _check_complete(lists: Sequence[tuple[Path, str, int]]) -> None:
    """A list that is lost would leave a class out of an official split."""
    present = {(label, number) for _, label, number in lists}
    labels, numbers = ({pair[index] for pair in present} for index in (0, 1))
    for label in sorted(labels):
        for number in sorted(numbers):
            if (label, number) not in present:
                raise DatasetError(
                    f"The annotations lack {label.replace(' ', '_')}_test_split{number}.txt, which other classes have."
                )


def read(path: Path) -> Iterator[tuple[Place, str, str | None]]:
    """Yields the rows of a list: place, the file's name without suffix, and `train`, `test` or None for unused.

    Raises:
      DatasetError: a row cannot be understood; the sentence says which line.
    """
    for place, line in text_lines(path):
        name, *kind = line.rsplit(maxsplit=1)
        if len(kind) != 1 or kind[0] not in KINDS:
            raise DatasetError(f"{place}: {line!r} should be a file's name and 0, 1 or 2.")
        yield place, PurePosixPath(name).stem, KINDS[kind[0]]
