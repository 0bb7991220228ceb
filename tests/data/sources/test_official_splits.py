from pathlib import Path

import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.annotations import Place
from avshare_jax.data.sources.official_splits import OfficialSplits

PLACE = Place(Path("testlist01.txt"), 3)


def test_parts_by_membership():
    official = OfficialSplits()
    memberships = {
        "a": [("test", 1), ("train", 3), ("train", 2)],
        "b": [("train", 1)],
        "c": [("train", 2), ("test", 1), ("train", 3)],
        "d": [(None, 1), (None, 2)],
        "e": [("train", 1), ("train", 2), ("train", 3)],
    }
    for name, those in memberships.items():
        for kind, number in those:
            official.add(name, kind, number, PLACE)
    assert [official.part(name) for name in "abcde"] == [
        "train23_test1",
        "train1_only",
        "train23_test1",
        "unused",
        "train123",
    ]
    assert official.unions() == {
        "test1": {"train23_test1"},
        "train1": {"train1_only", "train123"},
        "train2": {"train23_test1", "train123"},
        "train3": {"train23_test1", "train123"},
    }


def test_training_and_test_exclude_each_other():
    official = OfficialSplits()
    official.add("a.avi", "train", 1, PLACE)
    official.add("a.avi", "test", 2, PLACE)
    with pytest.raises(DatasetError, match=r"testlist01.txt, line 3: a.avi is in training and in test of .* split 1"):
        official.add("a.avi", "test", 1, PLACE)
