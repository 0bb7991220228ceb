"""What every source gives: the videos of each split, their classes, and what does not match."""

import dataclasses


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
    """What the annotations of a source name and its folder holds.

    Attributes:
      splits: the videos of each split in the order of their ids; no video is in two of them.
      class_names: the classes in the order of their numbers; empty where nothing has labels.
      multi_label: whether a video may have several classes.
      split_names: further names for unions of splits, such as `train1` → `both+train1_only`.
      missing: (id, reason) of what annotations name and cannot be used: no media file, or a row that makes no sense.
      unlisted: media files that no annotation names.
      left_out: (split, video, reason) of what the user does not want.
    """

    splits: dict[str, list[Video]]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    split_names: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    unlisted: list[str] = dataclasses.field(default_factory=list)
    left_out: list[tuple[str, Video, str]] = dataclasses.field(default_factory=list)
