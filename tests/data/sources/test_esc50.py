import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import esc50
from tests.data.sources import trees

HEADER = "filename,fold,target,category,esc10,src_file,take"


def test_folds(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_esc50)
    assert summary(listing, tmp_path / "ESC-50-master" / "audio") == {
        "fold1": {
            "1-100032-A-0": ("1-100032-A-0.wav", ("dog",)),
            "1-100032-B-0": ("1-100032-B-0.wav", ("dog",)),
        },
        "fold2": {"2-100038-A-14": ("2-100038-A-14.wav", ("chirping birds",))},
        "fold3": {"3-100210-A-36": ("3-100210-A-36.wav", ("airplane",))},
    }
    assert [video.source_id for video in listing.splits["fold1"]] == ["100032", "100032"]
    assert listing.class_names == ("dog", "chirping birds", "airplane")
    assert listing.split_names == {
        "test1": "fold1",
        "test2": "fold2",
        "test3": "fold3",
        "train1": "fold2+fold3",
        "train2": "fold1+fold3",
        "train3": "fold1+fold2",
        "train4": "fold1+fold2+fold3",
        "train5": "fold1+fold2+fold3",
    }
    assert [video_id for video_id, _ in listing.missing] == ["3-gone-A-36"]
    assert listing.unlisted == [str(tmp_path / "ESC-50-master" / "audio" / "5-unnamed-A-1.wav")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav,6,0,dog,True,1,A", "esc50.csv, line 3: '6' is not the number of a fold"),
        ("a.wav,1,dog,dog,True,1,A", "line 3: the row needs a filename and a number"),
        (",1,0,dog,True,1,A", "line 3: the row needs a filename and a number"),
        ("a.wav,1,0,cat,True,1,A", "line 3: other rows pair the target 0 or the class 'cat' differently"),
        ("a.wav,1,1,dog,True,1,A", "line 3: other rows pair the target 1 or the class 'dog' differently"),
    ],
)
def test_rows_that_make_no_sense(tmp_path, row, message):
    trees.write(tmp_path / "meta" / "esc50.csv", HEADER, "b.wav,1,0,dog,True,1,A", row)
    with pytest.raises(DatasetError, match=message):
        esc50.find(tmp_path)


def test_another_folder_than_the_release(tmp_path):
    with pytest.raises(DatasetError, match="is no release of ESC-50: it has no meta/esc50.csv"):
        esc50.find(tmp_path)
