"""A folder of your own videos: in class folders, in split folders, with a file of labels, or without any labels.

    python -m avshare_jax.prepare folder --videos=DIR --name=my_videos

The folder holds videos or sound files in class folders, or without labels; its first-level folders may also be splits
(train, val, validation, test, in small letters or capitals), each with the same inside; then files elsewhere are left
out. Without such folders, a share of the files becomes the split test, chosen by their names so that it stays the same
when others are added. A csv file with the header video,label[,split] replaces what the folders say; its paths are
relative to the folder, or absolute and in it.
"""

import argparse
import hashlib
import os
from pathlib import Path, PurePosixPath

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import composed, printable
from avshare_jax.data.sources.annotations import Place, csv_records, known_split
from avshare_jax.data.sources.listing import Listing, Video, check_distinct
from avshare_jax.data.sources.matching import labels_of, left_out
from avshare_jax.data.sources.media_files import MEDIA_SUFFIXES, FoundMedia, find_media

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
      labels: csv file with the header `video,label[,split]`; no path in it may lead out of the folder.
      holdout: share of the videos that becomes the split test where nothing gives splits.

    Returns:
      The videos by split; their ids are paths relative to the folder, in Unicode's form NFC. Where some files are in
      folders of splits, the others are `unlisted`.

    Raises:
      DatasetError: the share is not one, the folder or the csv file is not there or cannot be understood, there is no
        media file, or two files or classes would have the same name.
    """
    if not 0 <= holdout <= 1:
        raise DatasetError(f"--holdout={holdout} is no share: use a number from 0 to 1.")
    found = find_media(videos)
    check_distinct([_id(path, videos) for path in (*found.taken, *found.others)], f"files in {videos}")
    listing = _of_folders(videos, found, holdout) if labels is None else _of_csv(videos, found, labels, holdout)
    if not listing.splits:
        raise DatasetError(f"There is no readable video in {videos}: {_why(videos, found, labels)}.")
    return listing


def _id(path: Path, root: Path) -> str:
    """The id of a file: its path relative to the folder."""
    return composed(path.relative_to(root).as_posix())


def _of_folders(root: Path, found: FoundMedia, holdout: float) -> Listing:
    ids = {path: _id(path, root) for path in found.taken}
    given_splits = any(map(_has_split, ids.values()))
    splits: dict[str, list[Video]] = {}
    unlisted: list[str] = []
    for path, video_id in ids.items():
        if given_splits and not _has_split(video_id):
            unlisted.append(str(path))
            continue
        parts = PurePosixPath(video_id).parts
        split = SPLITS[parts[0].lower()] if given_splits else _held_out(video_id, holdout)
        folders = parts[given_splits:-1]
        labels = labels_of(folders[0]) if folders else ()
        splits.setdefault(split, []).append(Video(video_id, str(path), labels))
    return _listing(splits, left_out(root, found.others), [], unlisted)


def _has_split(video_id: str) -> bool:
    """Whether the first folder of a relative path is called like a split."""
    first, slash, _ = video_id.partition("/")
    return bool(slash) and first.lower() in SPLITS


def _of_csv(root: Path, found: FoundMedia, labels: Path, holdout: float) -> Listing:
    files = {_id(path, root): path for path in (*found.taken, *found.others)}
    splits: dict[str, list[Video]] = {}
    missing: list[tuple[str, str]] = []
    first_places: dict[str, Place] = {}
    rows = [(_inside(row["video"], root), place, row) for place, row in csv_records(labels, "video", "label")]
    for video_id, place, row in sorted(rows, key=lambda item: item[0] or item[2]["video"]):
        split = known_split(row.get("split") or _held_out(video_id or row["video"], holdout), SPLITS, place)
        if video_id is None:
            missing.append((row["video"], f"{place} names it, but it is not in {root}, where all videos must be."))
            continue
        if video_id in first_places:
            missing.append((video_id, f"{place} names what {first_places[video_id]} names."))
            continue
        first_places[video_id] = place
        # A file that is named may be hidden, or called as no media file is.
        path = files.get(video_id, root / video_id)
        if os.path.isfile(path):
            splits.setdefault(split, []).append(Video(video_id, str(path), labels_of(row["label"])))
        else:
            missing.append((video_id, f"{place} names it, but it is not there."))
    taken, others = ([path for path in some if _id(path, root) not in first_places] for some in found)
    return _listing(splits, left_out(root, others), missing, [str(path) for path in taken])


def _inside(text: str, root: Path) -> str | None:
    """The id of a file that a csv file names by a path, absolute or not; None where it leads out of the folder.

    What links lead to does not matter: to have them in the folder is the user's choice.
    """
    for folder in (os.path.abspath(root), os.path.realpath(root)):
        folder, path = (composed(os.path.normpath(name)) for name in (folder, os.path.join(folder, text)))
        relative = os.path.relpath("/" + path.lstrip("/"), folder)
        if relative.split("/")[0] != "..":
            return relative
    return None


def _listing(
    splits: dict[str, list[Video]],
    not_taken: list[tuple[str, Video, str]],
    missing: list[tuple[str, str]],
    unlisted: list[str],
) -> Listing:
    classes = {label for videos in splits.values() for video in videos for label in video.labels}
    return Listing(splits, tuple(sorted(classes)), missing=missing, unlisted=unlisted, left_out=not_taken)


def _held_out(video_id: str, share: float) -> str:
    """Returns "test" for about this share of all ids, always the same ones, else "train"."""
    digest = hashlib.sha256(video_id.encode(errors="surrogateescape")).digest()
    return "test" if int.from_bytes(digest[:8], "big") < share * 2**64 else "train"


def _why(root: Path, found: FoundMedia, labels: Path | None) -> str:
    if labels is None:
        others = f", and what {found.others[0].name!r} ends in is not taken" if found.others else ""
        return f"no file ends in {', '.join(MEDIA_SUFFIXES)}{others}"
    example = f", for example {printable(_id(found.taken[0], root))!r}" if found.taken else ""
    return f"nothing that {labels} names is there, but {len(found.taken)} other media files are{example}"
