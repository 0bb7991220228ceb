"""Records that cannot be read: counted once each, named in the log, and too many of them end the run.

Readers find them in worker processes and send them along with the batch; only the main process counts.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.names import printable


class UnreadableError(Exception):
    """A record is damaged; the message says how."""


def read_id(record: Mapping[str, Any]) -> str:
    """Returns the id of a record's video as printable text; `UnreadableError` where it is not UTF-8."""
    try:
        return printable(record["video_id"].decode())
    except UnicodeDecodeError as error:
        raise UnreadableError(f"its video_id {record['video_id'][:100]!r} is not UTF-8 text") from error


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """One record that could not be read.

    Attributes:
      dataset: name of its data set.
      split: that it is in.
      number: of the record, from 0 in the order of the split.
      video_id: of its video; empty where not even that can be read.
      reason: what went wrong.
    """

    dataset: str
    split: str
    number: int
    video_id: str
    reason: str

    def __str__(self) -> str:
        video = f" (video {self.video_id})" if self.video_id else ""
        return f"record {self.number} of {self.dataset}, split {self.split}{video}: {self.reason}"


def to_text(found: Iterable[Unreadable]) -> str:
    """Writes records as text, which travels in a batch; none are the empty text."""
    rows = [dataclasses.astuple(record) for record in found]
    return json.dumps(rows) if rows else ""


def from_text(text: str) -> list[Unreadable]:
    """Reads the text of `to_text`."""
    return [Unreadable(*row) for row in json.loads(text)] if text else []


def max_unreadable(max_share: float, num_records: int) -> int:
    """How many of a split's records may be unreadable: the number's whole part."""
    return int(max_share * num_records)


class UnreadableRecords:
    """The unreadable records that a process has met since it started, each counted once.

    Attributes:
      max_share: of a data set's split that may be unreadable, 0 to 1.
    """

    def __init__(self, max_share: float = 1.0):
        """Starts with none; by default there may be any number."""
        self.max_share = max_share
        self._met: dict[tuple[str, str, int], Unreadable] = {}

    def __len__(self) -> int:
        return len(self._met)

    def __iter__(self) -> Iterator[Unreadable]:
        return iter(self._met.values())

    def note(self, found: Iterable[Unreadable], num_records: Mapping[str, int]) -> None:
        """Counts records and prints a line for each that is new.

        Args:
          found: any number of records, new or not.
          num_records: name of the data set → records of the split that is read.

        Raises:
          DatasetError: more than `max_share` of a split's records are now known to be unreadable.
        """
        for record in found:
            if (key := (record.dataset, record.split, record.number)) in self._met:
                continue
            self._met[key] = record
            print(f"Unreadable and left out: {record}", flush=True)
            count = sum(key[:2] == (record.dataset, record.split) for key in self._met)
            total = num_records[record.dataset]
            if count > max_unreadable(self.max_share, total):
                raise DatasetError(
                    f"{count} of the {total} records in split {record.split} of the data set {record.dataset} cannot "
                    f"be read, which is more than config.data.max_unreadable_share={self.max_share:g} allows; the last "
                    f"was {record}. Prepare or copy the data set again, or allow a larger share."
                )
