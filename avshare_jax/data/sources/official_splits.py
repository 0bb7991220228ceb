"""Official splits that overlap, such as the three of UCF101: every file is stored once, in the part that is its own."""

from collections.abc import Iterable

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import Place

UNUSED = "unused"
"""The part of files that are in no official split."""


class OfficialSplits:
    """Which official splits files are in; those in exactly the same ones make up a part."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, set[int]]] = {}

    def add(self, name: str, kind: str | None, number: int, place: Place) -> None:
        """Puts a file into an official split.

        Args:
          name: of the file.
          kind: "train", "test", or None for a file that is in neither.
          number: of the official split.
          place: that says so.

        Raises:
          DatasetError: the file is already in the other kind of the same number.
        """
        numbers = self._numbers.setdefault(name, {"train": set(), "test": set()})
        if kind is not None:
            numbers[kind].add(number)
        if numbers["train"] & numbers["test"]:
            raise DatasetError(f"{place}: {name} is in training and in test of the official split {number}.")

    def part(self, name: str) -> str:
        """Names the part of a file: `train23_test1` for training in 2 and 3 and test in 1.

        No official split has such a name: the part of files that are in training of 1 and in nothing else is
        `train1_only`.
        """
        numbers = self._numbers[name]
        words = [kind + "".join(map(str, sorted(those))) for kind, those in numbers.items() if those]
        if sum(map(len, numbers.values())) == 1:
            words.append("only")
        return "_".join(words) or UNUSED

    def unions(self) -> dict[str, set[str]]:
        """Returns the names of the parts that make up each official split, such as `train1`."""
        unions: dict[str, set[str]] = {}
        for name, numbers in self._numbers.items():
            for official in _names(numbers.items()):
                unions.setdefault(official, set()).add(self.part(name))
        return dict(sorted(unions.items()))


def _names(numbers: Iterable[tuple[str, set[int]]]) -> list[str]:
    return [f"{kind}{number}" for kind, those in numbers for number in those]
