"""Keeps videos that something will be evaluated on out of a data set to train on."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from etils import epath

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import composed, printable
from avshare_jax.data.outcomes import MISSING, REJECTED, UNLISTED, VIDEOS, Outcome, read_outcomes
from avshare_jax.data.records import dataset_directory
from avshare_jax.data.sources.annotations import csv_records, csv_rows, text_lines
from avshare_jax.data.sources.listing import Listing, Video
from avshare_jax.data.sources.media_files import YOUTUBE_CLIP, without_suffix, youtube_id

COLUMN = "youtube_id"
HEADERS = ("id", "filename", "video", "video_id")
"""First cells of csv files that are headers and no ids."""


@dataclasses.dataclass(frozen=True)
class ExcludedIds:
    """The ids that one `--exclude_ids` gives.

    Attributes:
      source: what the option says.
      names: what a video of each id may be called.
      without_id: videos of a data set that nothing but their place in a folder identifies.
    """

    source: str
    names: Mapping[str, tuple[str, ...]]
    without_id: int = 0


def read_ids(source: str, data_dir: epath.PathLike) -> ExcludedIds:
    """Reads the ids to exclude.

    Args:
      source: a text file with an id a line, a publisher's csv file with a column youtube_id or with ids as first cells,
        or the name of a data set in `data_dir`.
      data_dir: directory of data sets.

    Raises:
      DatasetError: there is no such thing, or the file cannot be understood.
    """
    path, prepared = Path(os.path.expanduser(source)), dataset_directory(data_dir, source) / VIDEOS
    if path.is_file():
        return ExcludedIds(source, {entry: _names_of_entry(entry) for entry in _entries(path)})
    if not prepared.exists():
        raise DatasetError(f"--exclude_ids={source} is neither a file with an id a line nor a data set in {data_dir}.")
    names: dict[str, dict[str, None]] = {}  # Dictionaries keep an order, sets do not.
    without_id = 0
    for outcome in read_outcomes(prepared):
        if outcome.outcome in (REJECTED, MISSING, UNLISTED):
            continue
        identity = identity_of(outcome)
        if identity is None:
            without_id += 1
            continue
        names.setdefault(identity, {identity: None})
        if not is_path(outcome.video_id):
            names[identity][composed(outcome.video_id)] = None
    return ExcludedIds(source, {identity: tuple(those) for identity, those in names.items()}, without_id)


def exclude(listing: Listing, ids: ExcludedIds) -> tuple[Listing, str]:
    """Leaves out the videos that one of the ids names.

    Args:
      listing: of a source.
      ids: to exclude.

    Returns:
      The listing, with these videos in `left_out`; and a line that says how many of the ids and videos were found.
    """
    excluded = {name for names in ids.names.values() for name in names}
    # Those that another option has left out are found as well.
    found = {name for _, video, _ in listing.left_out for name in names_of(video)} & excluded
    splits: dict[str, list[Video]] = {}
    left_out: list[tuple[str, Video, str]] = []
    for split, videos in listing.splits.items():
        for video in videos:
            if common := names_of(video) & excluded:
                found |= common
                left_out.append((split, video, f"Its id is in --exclude_ids={ids.source}."))
            else:
                splits.setdefault(split, []).append(video)
    here = sum(not found.isdisjoint(names) for names in ids.names.values())
    counts = f"{here:,} of its {len(ids.names):,} ids are here, {len(left_out):,} videos left out"
    line = f"--exclude_ids={ids.source}: {counts}."
    if not here:
        line += " Nothing was found: check that its ids and those of these videos are of the same kind."
    if ids.without_id:
        line += (
            f" {ids.without_id:,} of its videos are known by their paths in a folder only, and paths exclude nothing: "
            "list what to exclude in a file."
        )
    return dataclasses.replace(listing, splits=splits, left_out=[*listing.left_out, *left_out]), line


def _entries(path: Path) -> Iterator[str]:
    """Yields the ids of a file, maybe with the suffixes of media files."""
    _, first = next(text_lines(path), (None, ""))
    header = [cell.strip().strip('"') for cell in first.split(",")]
    if COLUMN in header:
        yield from (row[COLUMN] for _, row in csv_records(path, COLUMN) if row[COLUMN])
    elif path.suffix.lower() == ".csv":
        for number, (_, cells) in enumerate(csv_rows(path)):
            if cells[0] and not cells[0].startswith("#") and not (number == 0 and cells[0] in HEADERS):
                yield _without_number(cells[0])
    else:
        yield from (_without_number(line) for _, line in text_lines(path))


def _without_number(text: str) -> str:
    """Returns the path of a row `path number`, as in the lists of PySlowFast and UCF101."""
    path, _, number = text.rpartition(" ")
    return path.strip() if number.isdecimal() and is_path(path.strip()) else text


def _names_of_entry(entry: str) -> tuple[str, ...]:
    bare = without_suffix(entry)
    names = (entry, bare, youtube_id(PurePosixPath(bare).name))
    return tuple(dict.fromkeys(printable(name) for name in names if name))


def names_of(video: Video) -> set[str]:
    """What a video may be called, in form NFC; files named like YouTube clips tell the id of what they are cut from."""
    name = without_suffix(PurePosixPath(video.path).name)
    names = (video.video_id, without_suffix(video.video_id), video.source_id, name, youtube_id(name) or name)
    return {printable(composed(one)) for one in names}


def identity_of(outcome: Outcome) -> str | None:
    """What identifies a video also outside of its data set, or None: in folders of anybody's videos, 1.mp4 does not."""
    if not is_path(outcome.source_id):
        return composed(outcome.source_id)
    match = YOUTUBE_CLIP.fullmatch(without_suffix(PurePosixPath(outcome.path).name))
    # Without both times, only an id with small letters and capitals is taken for one, as almost all are: train_00001
    # and our_holiday_2 are none.
    if match and (match["end"] or not (match["id"].islower() or match["id"].isupper())):
        return match["id"]
    return None


def is_path(name: str) -> bool:
    """Whether an id is a path in a folder of media files."""
    return without_suffix(name) != name
