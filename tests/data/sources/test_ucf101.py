import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import ucf101
from tests.data.sources import trees


def test_three_splits_and_each_file_once(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_ucf101)
    eye, push = "ApplyEyeMakeup", "HandstandPushups"
    assert summary(listing, tmp_path / "UCF-101") == {
        "train1_only": {
            "v_HandStandPushups_g09_c01": ("HandstandPushups/v_HandstandPushups_g09_c01.avi", (push,)),
        },
        "train13_test2": {"v_ApplyEyeMakeup_g08_c01": ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", (eye,))},
        "train23_test1": {"v_ApplyEyeMakeup_g01_c01": ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", (eye,))},
        "train2_test13": {"v_HandStandPushups_g01_c01": ("HandstandPushups/v_HandStandPushups_g01_c01.avi", (push,))},
    }
    assert listing.class_names == (eye, push)
    assert listing.split_names == {
        "test1": "train23_test1+train2_test13",
        "test2": "train13_test2",
        "test3": "train2_test13",
        "train1": "train13_test2+train1_only",
        "train2": "train23_test1+train2_test13",
        "train3": "train13_test2+train23_test1",
    }
    assert listing.splits["train13_test2"][0].source_id == "v_ApplyEyeMakeup_g08"
    train = tmp_path / "ucfTrainTestlist" / "trainlist01.txt"
    assert listing.missing == [
        ("v_HandStandPushups_g10_c01", f"{train}, line 3 names it, but there is no file for it.")
    ]
    assert listing.unlisted == [str(tmp_path / "UCF-101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g25_c07.avi")]


def test_one_split_and_a_flat_folder(tmp_path):
    for name in ("v_ApplyEyeMakeup_g01_c01.avi", "v_ApplyEyeMakeup_g08_c01.avi"):
        (tmp_path / name).touch()
    classes = trees.write(tmp_path / "classInd.txt", "1 ApplyEyeMakeup")
    train = trees.write(tmp_path / "trainlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1")
    test = trees.write(tmp_path / "testlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi")
    listing = ucf101.find(tmp_path, [classes, train, test])
    assert listing.split_names == {"test1": "test1_only", "train1": "train1_only"}
    with pytest.raises(DatasetError, match="need classInd.txt and lists"):
        ucf101.find(tmp_path, [train, test])
    with pytest.raises(DatasetError, match="need classInd.txt and lists"):
        ucf101.find(tmp_path, [classes])
    trees.write(test, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi")
    with pytest.raises(DatasetError, match="testlist01.txt, line 1: v_Apply.* is in training and in test"):
        ucf101.find(tmp_path, [classes, train, test])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Archery/v_Archery_g01_c01.avi 1", "trainlist01.txt, line 1: the class 'Archery' is not in the list"),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2", "line 1: 2 is not the number of the class 'ApplyEyeMakeup'"),
        ("v_ApplyEyeMakeup_g08_c01.avi 1", "line 1: .* should name a file in the folder of its class"),
    ],
)
def test_rows_that_make_no_sense(tmp_path, row, message):
    trees.write(tmp_path / "classInd.txt", "1 ApplyEyeMakeup")
    trees.write(tmp_path / "trainlist01.txt", row)
    with pytest.raises(DatasetError, match=message):
        ucf101.find(tmp_path, [tmp_path])


@pytest.mark.parametrize("rows", [("0 ApplyEyeMakeup",), ("1 ApplyEyeMakeup", "3 Archery"), ("1",)])
def test_class_index_has_to_be_numbered(tmp_path, rows):
    with pytest.raises(DatasetError, match=rf"classInd.txt, line {len(rows)}: '.*' should be the number {len(rows)}"):
        ucf101.read_classes(trees.write(tmp_path / "classInd.txt", *rows))
