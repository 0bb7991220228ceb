"""Generated videos in which sound and image are tied, for trying things out.

Videos that are not in DIR yet are rendered first: real files, H.264 and AAC in mp4, the same for the same seed.

    python -m avshare_jax.prepare demo --videos=data/demo_videos --name=my_demo
"""

import argparse
import dataclasses
import os
from pathlib import Path

from etils import epath

from avshare_jax.data.demo import write_demo_videos
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import folder
from avshare_jax.data.sources.listing import Listing
from avshare_jax.progress import ProgressLine

RECORD = "made_with.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this source's own options."""
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="where the videos are or will be")
    parser.add_argument("--num_train", type=int, default=1200, help="videos of the split train")
    parser.add_argument("--num_test", type=int, default=400, help="videos of the split test")
    parser.add_argument("--seed", type=int, default=0, help="of the videos")


def find_videos(options: argparse.Namespace) -> Listing:
    """Renders what is missing and finds it; see `find`."""
    return find(options.videos, options.num_train, options.num_test, options.seed)


def find(videos: Path, num_train: int, num_test: int, seed: int) -> Listing:
    """Renders the videos that are not in the folder yet, and lists them.

    Raises:
      DatasetError: a number is too small, the folder's videos were made with other numbers, or it cannot be written.
    """
    for name, number, least in (("num_train", num_train, 1), ("num_test", num_test, 0), ("seed", seed, 0)):
        if number < least:
            raise DatasetError(f"--{name}={number} is too small: use {least} or more.")
    numbers = demo_numbers(num_train, num_test, seed)
    check_made_with(videos, numbers)
    # Before the videos: what an interrupted call leaves is not to be mixed with others.
    note_made_with(videos, numbers)
    counts, workers = {"train": num_train, "test": num_test}, os.cpu_count() or 1
    write_demo_videos(videos, counts, seed, workers, ProgressLine("videos made"))
    return _with_underscores(folder.find(videos))


def _with_underscores(listing: Listing) -> Listing:
    """The listing with the classes' names `<shape>_<timbre>`, which the linear probe takes apart."""
    splits = {
        split: [dataclasses.replace(video, labels=tuple(map(_underscored, video.labels))) for video in videos]
        for split, videos in listing.splits.items()
    }
    return dataclasses.replace(listing, splits=splits, class_names=tuple(map(_underscored, listing.class_names)))


def _underscored(label: str) -> str:
    return label.replace(" ", "_")


def demo_numbers(num_train: int, num_test: int, seed: int) -> str:
    """What the videos depend on, as text."""
    return f"num_test={num_test}, num_train={num_train}, seed={seed}"


def check_made_with(directory: epath.PathLike, numbers: str) -> None:
    """Raises `DatasetError` where a directory's videos, or data set, were made with other numbers."""
    record = epath.Path(directory) / RECORD
    if record.exists() and (found := record.read_text()) != numbers:
        raise DatasetError(
            f"What is in {directory} was made with {found}, and not with {numbers}: delete it or choose another folder."
        )


def note_made_with(directory: epath.PathLike, numbers: str) -> None:
    """Notes in a directory what is made in it; `DatasetError` where that cannot be written."""
    try:
        epath.Path(directory).mkdir(parents=True, exist_ok=True)
        (epath.Path(directory) / RECORD).write_text(numbers)
    except OSError as error:
        raise DatasetError(f"The directory {directory} cannot be written: {error.strerror}.") from error
