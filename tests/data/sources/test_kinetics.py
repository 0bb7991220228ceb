import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import kinetics, kinetics_sounds
from tests.data.sources import trees

HEADER = "label,youtube_id,time_start,time_end,split"


def test_csv_files_of_the_publisher(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_kinetics)
    assert summary(listing, tmp_path / "videos") == {
        "test": {"test_test_1_1000000_1000010": ("test_test_1_1000000_1000010.mkv", ())},
        "train": {
            "-_0123456-9_000005_000015": (
                "train/catching or throwing, softball/-_0123456-9_000005_000015.mp4",
                ("catching or throwing, softball",),
            ),
            "abcdefghijk_000000_000010": (
                "train/playing_guitar/abcdefghijk_000000_000010.mp4",
                ("playing guitar",),
            ),
        },
        "val": {"bare-name-1_000010_000020": ("val/playing guitar/bare-name-1.webm", ("playing guitar",))},
    }
    assert [video.source_id for video in listing.splits["train"]] == ["-_0123456-9", "abcdefghijk"]
    assert listing.class_names == ("catching or throwing, softball", "playing guitar")
    train = tmp_path / "annotations" / "train.csv"
    assert listing.missing == [
        ("gone_56789a_000027_000037", f"{train}, line 4 names it, but there is no file for it."),
        ("abcdefghijk_000000_000010", f"{train}, line 5 names what {train}, line 3 names."),
    ]
    assert listing.unlisted == [
        str(tmp_path / "videos" / "nobody_knows_000000_000010.mp4"),
        str(tmp_path / "videos" / "train" / "z copy" / "abcdefghijk_000000_000010.mp4"),
    ]
    assert not listing.multi_label and not listing.split_names


def test_classes_do_not_depend_on_which_files_are_there(tree_listing, tmp_path, find):
    tree_listing(trees.make_kinetics)
    for path in (tmp_path / "videos" / "train" / "catching or throwing, softball").iterdir():
        path.unlink()
    listing = find(["kinetics", f"--videos={tmp_path / 'videos'}", f"--annotations={tmp_path / 'annotations'}"])
    assert listing.class_names == ("catching or throwing, softball", "playing guitar")


def test_one_bare_file_is_not_used_for_two_clips(tmp_path):
    (tmp_path / "abcdefghijk.mp4").touch()
    csv = trees.write(tmp_path / "train.csv", HEADER, "x,abcdefghijk,0,10,train", "x,abcdefghijk,20,30,train")
    listing = kinetics.find(tmp_path, [csv])
    assert [video.video_id for video in listing.splits["train"]] == ["abcdefghijk_000000_000010"]
    assert [video_id for video_id, _ in listing.missing] == ["abcdefghijk_000020_000030"]


def test_split_is_the_files_where_no_column_says_it(tmp_path):
    (tmp_path / "abcdefghijk.mp4").touch()
    rows = ("label,youtube_id,time_start,time_end", "x,abcdefghijk,0,10")
    assert list(kinetics.find(tmp_path, [trees.write(tmp_path / "k600_validate.csv", *rows)]).splits) == ["val"]
    with pytest.raises(DatasetError, match="has to say its split"):
        kinetics.find(tmp_path, [trees.write(tmp_path / "k600.csv", *rows)])


def test_lists_of_pyslowfast(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_pyslowfast)
    assert summary(listing, tmp_path / "videos") == {
        "train": {
            "-_0123456-9_000005_000015": ("-_0123456-9_000005_000015.mp4", ("0",)),
            "abcdefghijk_000000_000010": ("playing guitar/abcdefghijk_000000_000010.mp4", ("2",)),
        },
        "val": {"short name": ("short name.mp4", ("2",))},
    }
    assert listing.class_names == ("0", "1", "2")
    assert [video.source_id for video in listing.splits["train"]] == ["-_0123456-9", "abcdefghijk"]
    assert [video_id for video_id, _ in listing.missing] == ["gone_56789a_000001_000011"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((HEADER, "x,abcdefghijk,0,10,train", "x,abcdefghijk,0,ten,train"), "train.csv, line 3: 'ten' is not a time"),
        ((HEADER, "x,,0,10,train"), "train.csv, line 2: the row has no youtube_id"),
        ((HEADER, "x,abcdefghijk,0,10,trian"), "train.csv, line 2, has the split 'trian'; splits are train, val"),
        (("label,youtube_id,split", "x,abcdefghijk,train"), "it lacks time_start, time_end"),
        (("label,id", "x,abcdefghijk"), "neither a header with the columns .* nor rows `path label`"),
        (("a.mp4 0", "b.mp4"), "train.csv, line 2: 'b.mp4' is no row `path label`"),
        ((), "neither a header"),
    ],
)
def test_annotations_that_make_no_sense(tmp_path, rows, message):
    with pytest.raises(DatasetError, match=message):
        kinetics.find(tmp_path, [trees.write(tmp_path / "train.csv", *rows)])


def test_both_kinds_of_annotations_do_not_mix(tmp_path):
    named = trees.write(tmp_path / "train.csv", HEADER, "x,abcdefghijk,0,10,train")
    numbered = trees.write(tmp_path / "val.csv", "a.mp4 0")
    with pytest.raises(DatasetError, match="do not go together"):
        kinetics.find(tmp_path, [named, numbered])


def test_kinetics_sounds(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_kinetics_sounds)
    assert listing.class_names == tuple(sorted(kinetics_sounds.CLASSES)) and len(listing.class_names) == 32
    assert {split: list(videos) for split, videos in summary(listing, tmp_path / "videos").items()} == {
        "train": ["-tap_dance1_000000_000010", "blow_nose-1_000003_000013"],
        "val": ["blow_nose-3_000003_000013"],
    }
    assert [video_id for video_id, _ in listing.missing] == ["blow_nose-2_000003_000013"]
    assert listing.unlisted == [str(tmp_path / "videos" / "blowing nose" / "blow_nose-4_000003_000013.mp4")]


def test_kinetics_sounds_of_other_classes(tmp_path, find):
    arguments = trees.make_kinetics_sounds(tmp_path, lambda path: path.touch())
    classes = trees.write(tmp_path / "classes.txt", "tap_dancing", "abseiling", newline="\r\n")
    listing = find([*arguments, f"--classes={classes}"])
    assert listing.class_names == ("abseiling", "tap dancing")
    assert list(listing.splits) == ["train"] and len(listing.splits["train"]) == 2 and not listing.missing
    trees.write(classes, "tap dancin")
    with pytest.raises(DatasetError, match="'tap dancin' occurs nowhere in the annotations; .* 'tap dancing'"):
        find([*arguments, f"--classes={classes}"])
    trees.write(classes, "abseiling", "abseiling")
    with pytest.raises(DatasetError, match="more than once"):
        find([*arguments, f"--classes={classes}"])


def test_kinetics_sounds_needs_names(tmp_path, find):
    arguments = trees.make_pyslowfast(tmp_path, lambda path: path.touch())
    with pytest.raises(DatasetError, match="needs the names of classes"):
        find(["kinetics_sounds", *arguments[1:]])


def test_a_bare_file_goes_to_the_class_that_is_wanted(tmp_path):
    (tmp_path / "abcdefghijk.mp4").touch()
    rows = ("abseiling,abcdefghijk,0,10,train", "bowling,abcdefghijk,20,30,train", "abseiling,lmnopqrstuv,0,10,train")
    listing = kinetics_sounds.find(tmp_path, [trees.write(tmp_path / "train.csv", HEADER, *rows)])
    assert [video.video_id for video in listing.splits["train"]] == ["abcdefghijk_000020_000030"]
    assert not listing.missing and not listing.unlisted
