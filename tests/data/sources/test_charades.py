import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import charades
from tests.data.sources import trees

HEADER = "id,actions,length"


def test_videos_and_all_their_actions(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_charades)
    assert summary(listing, tmp_path / "videos") == {
        "test": {"YSKX3": ("YSKX3.mp4", ("Putting clothes somewhere",))},
        "train": {
            "-N11GT": ("-N11GT.mp4", ()),
            "46GP8": ("46GP8.mp4", ("Holding some clothes", "Taking some clothes from somewhere")),
        },
    }
    assert listing.multi_label
    assert listing.class_names == (
        "Holding some clothes",
        "Putting clothes somewhere",
        "Taking some clothes from somewhere",
    )
    train = tmp_path / "Charades" / "Charades_v1_train.csv"
    assert listing.missing == [("GONE1", f"{train}, line 8 names it, but there is no file for it.")]
    assert listing.unlisted == [str(tmp_path / "videos" / "OTHER.mp4")]


def test_classes_may_lie_elsewhere(tmp_path, find):
    arguments = trees.make_charades(tmp_path, lambda path: path.touch())
    classes = tmp_path / "classes.txt"
    (tmp_path / "Charades" / "Charades_v1_classes.txt").rename(classes)
    with pytest.raises(DatasetError, match="Charades_v1_classes.txt cannot be read"):
        find(arguments)
    assert len(find([*arguments, f"--classes={classes}"]).class_names) == 3


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ("c000 0.00 1.00;c157 0.00 1.00", "train.csv, line 2: the class 'c157' is not in the list of the 1 classes"),
        ("c000", "line 2: the action 'c000' should be a code and two times"),
        ("c000 0.00 end", "line 2: 'end' is not a time"),
    ],
)
def test_actions_that_make_no_sense(tmp_path, actions, message):
    path = trees.write(tmp_path / "Charades_v1_train.csv", HEADER, f"46GP8,{actions},24.83")
    trees.write(tmp_path / "Charades_v1_classes.txt", "c000 Holding some clothes")
    with pytest.raises(DatasetError, match=message):
        charades.find(tmp_path, [path])


def test_rows_need_an_id(tmp_path):
    path = trees.write(tmp_path / "Charades_v1_train.csv", HEADER, ",c000 0.00 1.00,24.83")
    with pytest.raises(DatasetError, match="line 2: the row has no id"):
        list(charades.read(path, {"c000": "Holding some clothes"}))


@pytest.mark.parametrize("rows", [("c001 Putting",), ("c000 Holding", "c002 Taking"), ("c000",)])
def test_list_of_classes_has_to_be_numbered(tmp_path, rows):
    code = f"c{len(rows) - 1:03d}"
    with pytest.raises(DatasetError, match=rf"classes.txt, line {len(rows)}: '.*' should be the code {code} and"):
        charades.read_classes(trees.write(tmp_path / "classes.txt", *rows))
