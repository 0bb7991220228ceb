"""What became of each video in preparation: one JSON object a line, for the report and for whoever asks later."""

import dataclasses
import json
from collections.abc import Iterable, Iterator

from etils import epath

from avshare_jax.data.names import printable

VIDEOS = "videos.jsonl"
"""Name of the file of outcomes in the directory of a data set."""

USED, NO_AUDIO, NO_VIDEO, REJECTED, MISSING = "used", "used without audio", "used without video", "rejected", "missing"
UNLISTED = "unlisted"
"""A media file that no annotation names; the report counts these apart from the videos."""
OUTCOMES = (USED, NO_AUDIO, NO_VIDEO, REJECTED, MISSING)
"""Everything that can become of a video; `MISSING` is one that annotations name and whose media file is not there."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one video; its texts are printable, see `names.printable`.

    Attributes:
      video_id: of the video.
      source_id: see `Video`.
      split: that it is in, or would be in; empty where unknown.
      path: the media file; empty for `MISSING`.
      labels: names of its classes.
      outcome: one of `OUTCOMES`, or `UNLISTED`.
      reason: why it was not used, or not wholly; a sentence, empty for `USED`.
      notes: sentences about what was odd but usable, such as damage or silence.
      seconds: duration of what was used; 0 where nothing was.
      width: of the image before resizing, upright, in pixels; 0 without image.
      height: the same.
      fps: mean frames per second of the file; 0 without image.
      sample_rate: of the file's sound; 0 without sound.
      channels: of the file's sound; 0 without sound.
      loudness: root mean square of the sound in dB below full scale (0 or less); None without sound.
    """

    video_id: str
    source_id: str
    split: str
    path: str
    labels: tuple[str, ...]
    outcome: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    loudness: float | None = None

    def __post_init__(self) -> None:
        for name in ("video_id", "source_id", "path", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        for name in ("labels", "notes"):
            object.__setattr__(self, name, tuple(map(printable, getattr(self, name))))


def write_outcomes(path: epath.Path, outcomes: Iterable[Outcome]) -> None:
    """Writes outcomes, one JSON object a line."""
    path.write_text("".join(json.dumps(dataclasses.asdict(outcome)) + "\n" for outcome in outcomes))


def read_outcomes(path: epath.Path) -> Iterator[Outcome]:
    """Yields the outcomes of a file that `write_outcomes` has written."""
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        yield Outcome(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
