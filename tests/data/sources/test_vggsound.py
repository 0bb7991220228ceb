import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import vggsound
from tests.data.sources import trees


def test_clips(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_vggsound)
    assert summary(listing, tmp_path / "videos") == {
        "test": {"---g-f_I2yQ_000001": ("---g-f_I2yQ_000001.mp4", ("people marching",))},
        "train": {
            "--0PQM4-hqg_000030": ("--0PQM4-hqg_30000_40000.mp4", ("waterfall burbling",)),
            "--Lj4Y_96f0_000120": ("bees/--Lj4Y_96f0_000120_000130.mp4", ("bee, wasp, etc. buzzing",)),
            "--bare_name_000004": ("video/--bare_name.mp4", ("people marching",)),
        },
    }
    assert listing.splits["test"][0].source_id == "---g-f_I2yQ"
    assert listing.class_names == (
        "bee, wasp, etc. buzzing",
        "people marching",
        "playing tennis",
        "waterfall burbling",
    )
    csv = tmp_path / "vggsound.csv"
    assert listing.missing == [("--56QUhyDQM_000185", f"{csv}, line 4 names it, but there is no file for it.")]
    assert listing.unlisted == [str(tmp_path / "videos" / "audio" / "--bare_name.wav")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("---g-f_I2yQ,1,people marching", "line 1: the row has 3 values instead of 4"),
        ("---g-f_I2yQ,1,bee, wasp,test", "line 1: the row has 5 values instead of 4"),
        ("---g-f_I2yQ,one,people marching,test", "line 1: 'one' is not a time"),
        ("---g-f_I2yQ,1,people marching,tset", "line 1, has the split 'tset'; splits are train, test"),
        (",1,people marching,test", "line 1: the row has no YouTube id"),
    ],
)
def test_rows_that_make_no_sense(tmp_path, row, message):
    with pytest.raises(DatasetError, match=message):
        vggsound.find(tmp_path, [trees.write(tmp_path / "vggsound.csv", row)])
