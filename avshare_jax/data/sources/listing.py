"""What every source gives: the videos of each split, their classes, and what does not match."""

import dataclasses
from collections.abc import Collection

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import printable


@dataclasses.dataclass(frozen=True)
class Video:
    """One media file of a source.

    Attributes:
      video_id: unique within the data set.
      path: the media file.
      labels: names of its classes; at most one unless the source is multi-label.
      source_id: of what this and maybe other files were cut from, such as a YouTube id; as `video_id` where unknown.
    """

    video_id: str
    path: str
    labels: tuple[str, ...] = ()
    source_id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "source_id", self.source_id or self.video_id)


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the annotations of a source name and its folder holds; every name but the paths of videos is printable.

    Names that it is made with may have control characters or bytes that are not UTF-8; see `names.printable`.

    Attributes:
      splits: the videos of each split in the order of their ids; no video is in two of them.
      class_names: the classes in the order of their numbers; empty where nothing has labels.
      multi_label: whether a video may have several classes.
      split_names: further names for unions of splits, such as `train1` → `both+train1_only`.
      missing: (id, reason) of what annotations name and cannot be used: no media file, or a row that makes no sense.
      unlisted: media files that no annotation names.
      left_out: (split, video, reason) of what the user does not want, or, without a split, of media that is not taken.

    Raises:
      DatasetError: two videos have the same id, or two classes the same printable name.
    """

    splits: dict[str, list[Video]]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    split_names: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    unlisted: list[str] = dataclasses.field(default_factory=list)
    left_out: list[tuple[str, Video, str]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        videos = [video for some in self.splits.values() for video in some]
        check_distinct([video.video_id for video in videos], "videos")
        check_distinct({*self.class_names, *(label for video in videos for label in video.labels)}, "classes")
        plain = {
            "splits": {split: [_printable(video) for video in some] for split, some in self.splits.items()},
            "class_names": tuple(map(printable, self.class_names)),
            "missing": [(printable(video_id), printable(reason)) for video_id, reason in self.missing],
            "unlisted": [printable(path) for path in self.unlisted],
            "left_out": [(split, _printable(video), printable(reason)) for split, video, reason in self.left_out],
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)


def check_distinct(names: Collection[str], what: str) -> None:
    """Raises `DatasetError` where two names are the same as printable text; the sentence calls them `what`."""
    seen = set()
    for name in map(printable, names):
        if name in seen:
            raise DatasetError(
                f"Two {what} would have the same name {name!r}: rename one. Accents may be written in two ways, and "
                "what is not UTF-8 is written as an escape."
            )
        seen.add(name)


def _printable(video: Video) -> Video:
    labels = tuple(map(printable, video.labels))
    return dataclasses.replace(
        video, video_id=printable(video.video_id), labels=labels, source_id=printable(video.source_id)
    )
