"""Shards: which videos of a split become records of which file, and where that lies."""

import dataclasses
import hashlib
from collections.abc import Sequence

from etils import epath

from avshare_jax.data import records
from avshare_jax.data.records import Contents
from avshare_jax.data.sources.listing import Video

MANY_SHARDS = 64
"""A split has about so many shards where it has enough videos, so that there is work for all workers."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How videos become records.

    Attributes:
      name: of the data set.
      data_dir: directory of data sets, maybe remote (`gs://…`).
      contents: what the records have in common.
      min_seconds: shorter videos are rejected.
      max_seconds: longer videos are cut.
      time_limit: seconds after which a file that is still being decoded is rejected.
      memory_limit: bytes that decoding a file may take, beyond which it is rejected; 0: for one worker process.
      videos_per_shard: at most so many; splits with few videos have less in each.
    """

    name: str
    data_dir: str
    contents: Contents
    min_seconds: float = 1.0
    max_seconds: float = 600.0
    time_limit: float = 300.0
    videos_per_shard: int = 128
    memory_limit: int = 0

    @property
    def directory(self) -> epath.Path:
        """Of the data set."""
        return records.dataset_directory(self.data_dir, self.name)

    @property
    def notes(self) -> epath.Path:
        """Directory of the preparation's own files."""
        return records.preparation_directory(self.data_dir, self.name)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard of a split.

    Attributes:
      split: name of the split.
      number: of the shard, from 0.
      count: of the split's shards.
      videos: that may become its records, in this order.
    """

    split: str
    number: int
    count: int
    videos: tuple[Video, ...]

    def path(self, settings: Settings) -> epath.Path:
        """Its ArrayRecord file."""
        return records.shard_path(settings.directory, settings.name, self.split, self.number, self.count)

    def outcomes(self, settings: Settings) -> epath.Path:
        """The file that says what became of its videos."""
        return settings.notes / f"{self.split}-{self.number:05d}-of-{self.count:05d}.jsonl"

    def is_finished(self, settings: Settings) -> bool:
        """Whether both files are there; the outcomes are written first."""
        return self.path(settings).exists() and self.outcomes(settings).exists()


def divide(split: str, videos: Sequence[Video], settings: Settings) -> list[Shard]:
    """Divides the videos of a split into shards, in an order that is random but depends on the ids alone.

    How many shards there are does not depend on the workers, so that the data set does not either.
    """
    order = sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())
    videos_per_shard = min(settings.videos_per_shard, max(1, -(-len(order) // MANY_SHARDS)))
    count = -(-len(order) // videos_per_shard)
    bounds = [number * len(order) // count for number in range(count + 1)] if count else []
    return [
        Shard(split, number, count, tuple(order[start:stop]))
        for number, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]
