import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import hmdb51
from tests.data.sources import trees


def test_splits_and_each_file_once(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_hmdb51)
    brush, rhythm = "April_09_brush_hair_u_nm_np1_ba_goo_0", "#20_Rhythm_clap_u_nm_np1_fr_goo_0"
    assert summary(listing, tmp_path / "videos") == {
        "train12": {"clap/same(1)": ("clap/same(1).avi", ("clap",))},
        "train1_only": {f"clap/{rhythm}": (f"clap/{rhythm}.avi", ("clap",))},
        "train1_test2": {f"brush_hair/{brush}": (f"brush hair/{brush}.avi", ("brush hair",))},
        "train2_test1": {"brush_hair/same(1)": ("brush hair/same(1).avi", ("brush hair",))},
        "unused": {"brush_hair/unused": ("brush hair/unused.avi", ("brush hair",))},
    }
    assert listing.class_names == ("brush hair", "clap")
    assert listing.split_names == {
        "test1": "train2_test1",
        "test2": "train1_test2",
        "train1": "train12+train1_only+train1_test2",
        "train2": "train12+train2_test1",
    }
    place = f"{tmp_path / 'testTrainMulti_7030_splits' / 'brush_hair_test_split1.txt'}, line 4"
    assert listing.missing == [("brush_hair/gone", f"{place} names it, but there is no file for it.")]
    assert listing.unlisted == [str(tmp_path / "videos" / "clap" / "extra.avi")]


def test_flat_folder(tmp_path):
    (tmp_path / "a.avi").touch()
    trees.write(tmp_path / "shoot_ball_test_split3.txt", "a.avi 2")
    listing = hmdb51.find(tmp_path, [tmp_path])
    assert listing.split_names == {"test3": "test3_only"} and listing.class_names == ("shoot ball",)


def test_a_list_that_is_lost(tmp_path):
    arguments = trees.make_hmdb51(tmp_path, lambda path: path.touch())
    lists = tmp_path / "testTrainMulti_7030_splits"
    (lists / "brush_hair_test_split2.txt").unlink()
    with pytest.raises(DatasetError, match="lack brush_hair_test_split2.txt, which other classes have"):
        hmdb51.find(tmp_path / "videos", [lists])
    assert f"--annotations={lists}" in arguments


@pytest.mark.parametrize("row", ["a.avi", "a.avi 3", "2", "a.avi train"])
def test_rows_that_make_no_sense(tmp_path, row):
    path = trees.write(tmp_path / "clap_test_split1.txt", "b.avi 1", row)
    with pytest.raises(DatasetError, match="clap_test_split1.txt, line 2: .* should be a file's name and 0, 1 or 2"):
        hmdb51.find(tmp_path, [path])


def test_lists_have_to_be_called_as_the_publishers(tmp_path):
    with pytest.raises(DatasetError, match="should be called CLASS_test_split1.txt"):
        hmdb51.find(tmp_path, [trees.write(tmp_path / "split1.txt", "a.avi 1")])
