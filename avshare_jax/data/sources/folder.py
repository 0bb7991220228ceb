"""A folder of your own videos: in class folders, in split folders, with a file of labels, or without any labels.

    python -m avshare_jax.prepare folder --videos=DIR --name=my_videos

The folder holds videos or sound files in class folders, or without labels; its first-level folders may also be splits
(train, val, validation, test, in small letters or capitals), each with the same inside; then files elsewhere are left
out. Without such folders, a share of the files becomes the split test, chosen by their names so that it stays the same
when others are added. A csv file with the header video,label[,split] and paths relative to the folder replaces what the
folders say.
"""

import argparse
import hashlib
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import Place, csv_records, known_split
from avshare_jax.data.sources.listing import Listing, Video
from avshare_jax.data.sources.matching import labels_of
from avshare_jax.data.sources.media_files import MEDIA_SUFFIXES, iterate_media, printable

SPLITS = {name: name for name in ("train", "val", "validation", "test")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this source."""
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="the folder")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="file with the header video,label[,split]")
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share that becomes the split test where nothing gives splits (default: 0.1)",
    )


def find_videos(options: argparse.Namespace) -> Listing:
    """Finds the videos that the command line's options ask for; see `find`."""
    return find(options.videos, options.labels, options.holdout)


def find(videos: Path, labels: Path | None = None, holdout: float = 0.1) -> Listing:
    """Finds the media files of a folder.

    Args:
      videos: the folder; see the top of this module.
      labels: csv file with the header `video,label[,split]`, paths relative to the folder.
      holdout: share of the videos that becomes the split test where nothing gives splits.

    Returns:
      The videos by split; their ids are paths relative to the folder. Where some files are in folders of splits, the
      others are `unlisted`.

    Raises:
      DatasetError: the share is not one, the folder or the csv file is not there or cannot be understood, or there is
        no media file.
    """
    if not 0 <= holdout <= 1:
        raise DatasetError(f"--holdout={holdout} is no share: use a number from 0 to 1.")
    paths = sorted(path.relative_to(videos) for path in iterate_media(videos))
    listing = _of_folders(videos, paths, holdout) if labels is None else _of_csv(videos, paths, labels, holdout)
    if not listing.splits:
        raise DatasetError(f"There is no readable video in {videos}: {_why(paths, labels)}.")
    return listing


def _of_folders(root: Path, paths: list[Path], holdout: float) -> Listing:
    given_splits = any(_has_split(path) for path in paths)
    splits: dict[str, list[Video]] = {}
    unlisted: list[str] = []
    for path in paths:
        if given_splits and not _has_split(path):
            unlisted.append(printable(root / path))
            continue
        video_id = printable(path)
        split = SPLITS[path.parts[0].lower()] if given_splits else _held_out(video_id, holdout)
        folders = path.parts[given_splits:-1]
        labels = labels_of(printable(folders[0])) if folders else ()
        splits.setdefault(split, []).append(Video(video_id, str(root / path), labels))
    return _listing(splits, [], unlisted)


def _has_split(path: Path) -> bool:
    """Whether the first folder of a relative path is called like a split."""
    return len(path.parts) > 1 and path.parts[0].lower() in SPLITS


def _of_csv(root: Path, paths: list[Path], labels: Path, holdout: float) -> Listing:
    splits: dict[str, list[Video]] = {}
    missing: list[tuple[str, str]] = []
    first_places: dict[str, Place] = {}
    for place, row in sorted(csv_records(labels, "video", "label"), key=lambda item: item[1]["video"]):
        path = Path(row["video"])
        video_id = printable(path)
        split = known_split(row.get("split") or _held_out(video_id, holdout), SPLITS, place)
        if video_id in first_places:
            missing.append((video_id, f"{place} names what {first_places[video_id]} names."))
            continue
        first_places[video_id] = place
        if (root / path).is_file():
            splits.setdefault(split, []).append(Video(video_id, str(root / path), labels_of(row["label"])))
        else:
            missing.append((video_id, f"{place} names it, but it is not there."))
    unlisted = [printable(root / path) for path in paths if printable(path) not in first_places]
    return _listing(splits, missing, unlisted)


def _listing(splits: dict[str, list[Video]], missing: list[tuple[str, str]], unlisted: list[str]) -> Listing:
    classes = {label for videos in splits.values() for video in videos for label in video.labels}
    return Listing(splits, tuple(sorted(classes)), missing=missing, unlisted=unlisted)


def _held_out(video_id: str, share: float) -> str:
    """Returns "test" for about this share of all ids, always the same ones, else "train"."""
    digest = hashlib.sha256(video_id.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < share * 2**64 else "train"


def _why(paths: list[Path], labels: Path | None) -> str:
    if labels is None:
        return f"no file ends in {', '.join(MEDIA_SUFFIXES)}"
    example = f", for example {printable(paths[0])!r}" if paths else ""
    return f"nothing that {labels} names is there, but {len(paths)} other media files are{example}"
