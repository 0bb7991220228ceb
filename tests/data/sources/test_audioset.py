import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import audioset
from tests.data.sources import trees


def test_segments(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_audioset)
    assert summary(listing, tmp_path / "media") == {
        "balanced_train": {
            "--PJHxphWEs_30000": ("balanced/--PJHxphWEs.wav", ("Speech", "Gush")),
            "--ZhevVpy1s_50000": ("balanced/Y--ZhevVpy1s.wav", ("Speech",)),
        },
        "eval": {
            "--4gqARaEJE_0": ("eval/--4gqARaEJE_0_9000.flac", ("Male speech, man speaking",)),
            "--5_digits6_7000": ("eval/--5_digits6_000007_000017.mp4", ("Gush",)),
            "--6_fraction_7000": ("eval/--6_fraction_7.000_17.000.mp4", ("Gush",)),
        },
        "unbalanced_train": {
            "---1_cCGK4M_0": ("unbalanced/---1_cCGK4M_0_10.mp4", ("Male speech, man speaking", "Speech")),
            "--2_BBVHAA0_30500": ("unbalanced/--2_BBVHAA0_30500_40500.mp4", ("Gush",)),
            "--3_start_s_7000": ("unbalanced/--3_start_s_7.mp4", ("Gush",)),
        },
    }
    assert listing.multi_label
    assert listing.class_names == ("Speech", "Male speech, man speaking", "Gush", "Spray")
    assert listing.split_names == {"train": "balanced_train+unbalanced_train"}
    assert listing.splits["balanced_train"][0].source_id == "--PJHxphWEs"
    assert [video_id for video_id, _ in listing.missing] == ["--gone_gone_0"]
    assert listing.unlisted == [str(tmp_path / "media" / "eval" / "other.mp4")]


def test_only_some_of_the_files(tmp_path, find):
    arguments = trees.make_audioset(tmp_path, lambda path: path.touch())
    labels = arguments[-1]
    files = {name: tmp_path / "annotations" / f"{name}_segments.csv" for name in ("balanced_train", "eval")}
    balanced = find([*arguments[:2], f"--annotations={files['balanced_train']}", labels])
    assert balanced.split_names == {"train": "balanced_train"} and list(balanced.splits) == ["balanced_train"]
    assert find([*arguments[:2], f"--annotations={files['eval']}", labels]).split_names == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('-PJHxphWEs_, 30.000, 40.000, "/m/09x0r,/m/none"', "eval.csv, line 2: the class '/m/none' is not in the list"),
        ("-PJHxphWEs_, 30.000, 40.000, /m/09x0r,/m/none", "eval.csv, line 2: the row has 5 values instead of 4"),
        ('-PJHxphWEs_, 30.000, end, "/m/09x0r"', "eval.csv, line 2: 'end' is not a time"),
        (', 30.000, 40.000, "/m/09x0r"', "eval.csv, line 2: the row has no YouTube id"),
    ],
)
def test_segments_that_make_no_sense(tmp_path, row, message):
    path = trees.write(tmp_path / "eval.csv", "# comment", row)
    with pytest.raises(DatasetError, match=message):
        list(audioset.read(path, {"/m/09x0r": "Speech"}))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0,/m/1,A", "2,/m/2,B"), "do not run from 0 without gaps"),
        (("0,/m/1,A", "x,/m/2,B"), "labels.csv, line 2: 'x' is not the number of a class"),
        (("0,/m/1,A", "1,/m/2,A"), "has 'A' more than once"),
        (("0,/m/1,A", "1,/m/1,B"), "has '/m/1' more than once"),
        (("0,/m/1,Male speech, man speaking",), "line 1: the row has 4 values instead of 3"),
        (("index,mid,display_name",), "is empty"),
    ],
)
def test_table_of_classes_that_makes_no_sense(tmp_path, rows, message):
    with pytest.raises(DatasetError, match=message):
        audioset.read_classes(trees.write(tmp_path / "labels.csv", *rows))


def test_table_of_classes_is_ordered_by_number_with_or_without_header(tmp_path):
    rows = ("1,/m/2,B", '0,/m/1,"A, a"')
    expected = [("/m/1", "A, a"), ("/m/2", "B")]
    path = trees.write(tmp_path / "labels.csv", *rows)
    assert list(audioset.read_classes(path).items()) == expected
    trees.write(path, "index,mid,display_name", *rows)
    assert list(audioset.read_classes(path).items()) == expected


def test_split_is_in_the_name(tmp_path):
    assert audioset.split_of(tmp_path / "Unbalanced_train.csv") == "unbalanced_train"
    with pytest.raises(DatasetError, match="one of balanced, unbalanced, eval: rename it"):
        audioset.split_of(tmp_path / "train.csv")
