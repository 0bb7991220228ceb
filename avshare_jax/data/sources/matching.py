"""From what annotations name and what a folder holds to a listing."""

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import composed
from avshare_jax.data.sources.annotations import Place, class_name
from avshare_jax.data.sources.listing import Listing, Video
from avshare_jax.data.sources.media_files import MediaFiles, why_not_taken


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video that annotations name.

    Attributes:
      place: where they do.
      video_id: of the video.
      names: how its file may be called, without folder and suffix, most exact first; at least one.
      split: that it belongs to; None if it is not wanted, and only its file is to count as named.
      labels: names of its classes.
      source_id: see `Video`.
      class_folder: name of the folder in which to look first.
    """

    place: Place
    video_id: str
    names: tuple[str, ...]
    split: str | None
    labels: tuple[str, ...] = ()
    source_id: str = ""
    class_folder: str = ""


def match(
    entries: Iterable[Entry],
    media: MediaFiles,
    class_names: tuple[str, ...],
    *,
    multi_label: bool = False,
    unions: Mapping[str, Collection[str]] | None = None,
) -> Listing:
    """Finds the files of entries.

    Args:
      entries: what annotations name; of several with one `video_id`, the first counts.
      media: the files; those with a wanted name are taken.
      class_names: the classes in the order of their numbers.
      multi_label: whether a video may have several classes.
      unions: the splits that make up each further name of one; those that turn out empty are left out.

    Returns:
      The listing. Further files with a name that was taken, and those without one, are its `unlisted`.

    Raises:
      DatasetError: there is not a single file that is named and wanted.
    """
    splits: dict[str, list[Video]] = {}
    missing: list[tuple[str, str]] = []
    first_places: dict[str, Place] = {}
    expected = ""
    for entry in entries:
        if entry.video_id in first_places:
            if entry.split is not None:
                missing.append((entry.video_id, f"{entry.place} names what {first_places[entry.video_id]} names."))
            continue
        first_places[entry.video_id] = entry.place
        path = media.take(entry.names, entry.class_folder)
        if entry.split is None:
            continue
        expected = expected or entry.names[0]
        if path is None:
            missing.append((entry.video_id, f"{entry.place} names it, but there is no file for it."))
        else:
            video = Video(entry.video_id, path, entry.labels, entry.source_id)
            splits.setdefault(entry.split, []).append(video)
    if not splits:
        raise DatasetError(_nothing(media, len(missing), expected))
    for videos in splits.values():
        videos.sort(key=lambda video: video.video_id)
    return Listing(
        splits=dict(sorted(splits.items())),
        class_names=class_names,
        multi_label=multi_label,
        split_names=_split_names(unions or {}, splits),
        missing=missing,
        unlisted=media.left(),
        left_out=left_out(media.folder, media.not_taken),
    )


def left_out(folder: Path, paths: Iterable[Path]) -> list[tuple[str, Video, str]]:
    """Returns files below a folder that look like media and cannot be taken, as `Listing.left_out` has them."""
    return [
        ("", Video(composed(os.fspath(path.relative_to(folder))), str(path)), why_not_taken(path)) for path in paths
    ]


def _split_names(unions: Mapping[str, Collection[str]], splits: Collection[str]) -> dict[str, str]:
    present = {name: sorted(set(parts).intersection(splits)) for name, parts in unions.items()}
    return {name: "+".join(parts) for name, parts in present.items() if parts}


def _nothing(media: MediaFiles, named: int, expected: str) -> str:
    """The sentence for a folder in which nothing is what annotations name."""
    if not named:
        return f"The annotations name no video that is wanted from {media.folder}."
    there = f"{media.count} media files, for example {media.example!r}" if media.count else "no media file at all"
    return (
        f"There is none of the {named} videos that the annotations name in {media.folder}: files are expected to be "
        f"called like {expected!r} before their suffix, and the folder holds {there}."
    )


def alphabetical_classes(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Returns the classes of entries, found or not, so that numbers do not depend on which files are there."""
    return tuple(sorted({label for entry in entries for label in entry.labels}))


def labels_of(text: str) -> tuple[str, ...]:
    """Returns the label that a cell says, normalized, or none if it is empty."""
    return (class_name(text),) if class_name(text) else ()
