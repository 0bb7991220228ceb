"""Keeps videos that something will be evaluated on out of a data set to train on."""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from etils import epath

from avshare_jax.data.building import VIDEOS
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.outcomes import MISSING, REJECTED, read_outcomes
from avshare_jax.data.records import dataset_directory
from avshare_jax.data.sources.listing import Listing, Video

YOUTUBE_CLIP = re.compile(r"(?P<id>[\w-]{11})_\d+_\d+")


def exclude(listing: Listing, ids: Collection[str], reason: str) -> Listing:
    """Returns the listing without the videos that one of the ids names; these are in `left_out`.

    Args:
      listing: of a source.
      ids: video ids, ids of what they were cut from (such as YouTube's), or names of files without suffix.
      reason: a sentence for the report.
    """
    splits: dict[str, list[Video]] = {}
    left_out = list(listing.left_out)
    for split, videos in listing.splits.items():
        for video in videos:
            if any(name in ids for name in _names(video.video_id, video.source_id, video.path)):
                left_out.append((split, video, reason))
            else:
                splits.setdefault(split, []).append(video)
    return dataclasses.replace(listing, splits=splits, left_out=left_out)


def read_ids(source: str, data_dir: epath.PathLike) -> set[str]:
    """Reads the ids to exclude.

    Args:
      source: a text file with an id a line, or the name of a data set in `data_dir`.
      data_dir: directory of data sets.

    Raises:
      DatasetError: there is neither.
    """
    path, prepared = epath.Path(source).expanduser(), dataset_directory(data_dir, source) / VIDEOS
    if path.is_file():
        return {line.strip() for line in path.read_text().splitlines()} - {""}
    if not prepared.exists():
        raise DatasetError(f"--exclude_ids={source} is neither a file with an id a line nor a data set in {data_dir}.")
    used = (outcome for outcome in read_outcomes(prepared) if outcome.outcome not in (REJECTED, MISSING))
    # Not the names of files: in folders of anybody's videos, 1.mp4 is no identity.
    return {name for outcome in used for name in _names(outcome.video_id, outcome.source_id, outcome.path, stem=False)}


def _names(video_id: str, source_id: str, path: str, stem: bool = True) -> Iterator[str]:
    """Yields what a video may be called; files named like YouTube clips tell the id of what they were cut from."""
    yield video_id
    yield source_id
    name = Path(path).stem
    if stem:
        yield name
    if match := YOUTUBE_CLIP.fullmatch(name):
        yield match["id"]
