import os

import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import folder
from avshare_jax.data.sources.listing import Video
from tests.data.sources import trees


def test_split_and_class_folders(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_folder)
    assert summary(listing, tmp_path / "my videos") == {
        "train": {
            "train/a cat/2.MP4": ("train/a cat/2.MP4", ("a cat",)),
            "train/a cat/3.mov": ("train/a cat/3.mov", ("a cat",)),
            "train/dog/-1 ü.mp4": ("train/dog/-1 ü.mp4", ("dog",)),
        },
        "val": {"val/dog/1.mp4": ("val/dog/1.mp4", ("dog",))},
    }
    assert listing.class_names == ("a cat", "dog")
    assert not listing.missing and not listing.unlisted and not listing.multi_label


def test_files_outside_of_split_folders_are_left_out(tmp_path):
    names = ("Train/a_cat/1.mp4", "TEST/2.wav", "other/deep/3.mp4", "train.mp4", ".cache/val/4.mp4")
    trees.write_all(tmp_path, lambda path: path.touch(), *names)
    listing = folder.find(tmp_path, holdout=0.0)
    assert {
        split: [(video.video_id, video.labels) for video in videos] for split, videos in listing.splits.items()
    } == {
        "train": [("Train/a_cat/1.mp4", ("a cat",))],
        "test": [("TEST/2.wav", ())],
    }
    assert listing.unlisted == [str(tmp_path / "other" / "deep" / "3.mp4"), str(tmp_path / "train.mp4")]
    assert listing.class_names == ("a cat",)


def test_labels_are_normalized_and_dangling_links_listed(tmp_path):
    (tmp_path / "a.mp4").symlink_to("nowhere")
    [video] = folder.find(tmp_path, holdout=0.0).splits["train"]
    assert (video.video_id, video.path) == ("a.mp4", str(tmp_path / "a.mp4"))
    (tmp_path / "b.mp4").touch()
    labels = trees.write(tmp_path / "labels.csv", "video,label", "a.mp4,x", "b.mp4,two_ words ")
    listing = folder.find(tmp_path, labels, 0.0)
    assert [(video.video_id, video.labels) for video in listing.splits["train"]] == [("b.mp4", ("two words",))]
    assert [video_id for video_id, _ in listing.missing] == ["a.mp4"]


@pytest.mark.parametrize("holdout", [-0.1, 1.1, float("nan")])
def test_holdout_is_a_share(tmp_path, holdout):
    with pytest.raises(DatasetError, match=f"--holdout={holdout} is no share: use a number from 0 to 1"):
        folder.find(tmp_path, holdout=holdout)


def test_flat_folder_is_unlabeled_and_holds_out_by_name(tmp_path):
    for number in range(1_000):
        (tmp_path / f"{number}.mp4").touch()
    listing = folder.find(tmp_path, holdout=0.1)
    sizes = {split: len(videos) for split, videos in listing.splits.items()}
    assert sizes.keys() == {"train", "test"} and 70 < sizes["test"] < 130 and sum(sizes.values()) == 1_000
    assert not listing.class_names
    held_out = {video.video_id for video in listing.splits["test"]}
    (tmp_path / "another.mp4").touch()
    assert {video.video_id for video in folder.find(tmp_path).splits["test"]} - {"another.mp4"} == held_out
    assert folder.find(tmp_path, holdout=0.0).splits.keys() == {"train"}


def test_labels_file(tree_listing, summary, tmp_path):
    listing = tree_listing(trees.make_folder_with_labels)
    assert summary(listing, tmp_path / "videos") == {
        "train": {"a.mp4": ("a.mp4", ("x, y",)), "c.mp4": ("c.mp4", ())},
        "val": {"sub/b.mp4": ("sub/b.mp4", ("z",))},
    }
    assert listing.class_names == ("x, y", "z")
    labels = tmp_path / "labels.csv"
    assert listing.missing == [
        ("a.mp4", f"{labels}, line 6 names what {labels}, line 2 names."),
        ("gone.mp4", f"{labels}, line 5 names it, but it is not there."),
    ]
    assert listing.unlisted == [str(tmp_path / "videos" / "sub" / "unnamed.mp4")]


def test_labels_file_without_splits_holds_out(tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.mp4").touch()
    labels = trees.write(tmp_path / "labels.csv", "video,label", *(f"{number}.mp4,x" for number in range(100)))
    by_csv, by_folder = folder.find(tmp_path, labels, 0.3), folder.find(tmp_path, None, 0.3)
    assert [video.video_id for video in by_csv.splits["test"]] == [video.video_id for video in by_folder.splits["test"]]
    assert by_csv.class_names == ("x",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "labels.csv cannot be read"),
        ("file,class\na.mp4,x\n", "needs a header with the columns video,label"),
        ("", "needs a header with the columns video,label"),
        ("video,label,split\na.mp4,x,trian\n", "line 2, has the split 'trian'; splits are train"),
        ("video,label\na.mp4\n", "line 2: the row has 1 values instead of 2"),
        ("video,label\na.mp4,x\n", "There is no readable video in .*: nothing that .*labels.csv names is there"),
    ],
)
def test_unusable_labels_file_gets_a_sentence(tmp_path, content, message):
    if content is not None:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        folder.find(tmp_path, tmp_path / "labels.csv")


def test_folders_without_media(tmp_path):
    with pytest.raises(DatasetError, match="There is no folder .*nowhere"):
        folder.find(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError, match=r"no file ends in \.264, .*\.wmv, .*\.wav, .*\.wv\."):
        folder.find(tmp_path)
    (tmp_path / "shot.braw").touch()
    with pytest.raises(DatasetError, match=r"and what 'shot.braw' ends in is not taken"):
        folder.find(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    """Two classes in GBK, as an archive from Windows unpacks, with the same files, stay two."""
    classes = ("狗".encode("gbk"), "鱼".encode("gbk"))
    names = [os.fsdecode(name + b"/1.mp4") for name in classes]
    trees.write_all(tmp_path, lambda path: path.touch(), *names, os.fsdecode(b"caf\xe9/\xff.mp4"))
    listing = folder.find(tmp_path, holdout=0.0)
    videos = listing.splits["train"]
    assert [(video.video_id, video.labels) for video in videos] == [
        (r"caf\xe9/\xff.mp4", (r"caf\xe9",)),
        (r"\xb9\xb7/1.mp4", (r"\xb9\xb7",)),
        (r"\xd3\xe3/1.mp4", (r"\xd3\xe3",)),
    ]
    assert sorted(listing.class_names) == sorted(label for video in videos for label in video.labels)
    assert all(os.path.isfile(video.path) for video in videos)
    # The escape of one is the name of another.
    trees.write_all(tmp_path, lambda path: path.touch(), r"caf\xe9/2.mp4")
    with pytest.raises(DatasetError, match=r"Two classes would have the same name 'caf.*xe9': rename one"):
        folder.find(tmp_path)


def test_names_never_command_a_terminal(tmp_path):
    names = ("\x1b[31mred/one\ntwo.mp4", "\x1b[31mred/\u202egnp.braw", "\x85/x.mid")
    trees.write_all(tmp_path, lambda path: path.touch(), *names)
    listing = folder.find(tmp_path, holdout=0.0)
    [video] = listing.splits["train"]
    assert (video.video_id, video.labels) == (r"\u001b[31mred/one\u000atwo.mp4", (r"\u001b[31mred",))
    assert listing.class_names == video.labels
    ids = [video.video_id for _, video, _ in listing.left_out]
    assert ids == [r"\u001b[31mred/\u202egnp.braw", r"\u0085/x.mid"]


def test_media_that_are_not_taken_are_listed(tmp_path):
    trees.write_all(tmp_path, lambda path: path.touch(), "cat/1.MXF", "cat/2.mka", "cat/3.mid", "notes.txt")
    listing = folder.find(tmp_path, holdout=0.0)
    assert [video.video_id for video in listing.splits["train"]] == ["cat/1.MXF", "cat/2.mka"]
    [(split, video, reason)] = listing.left_out
    assert (split, video.video_id, video.path) == ("", "cat/3.mid", str(tmp_path / "cat" / "3.mid"))
    assert reason == "Files that end in .mid are not taken: convert it, for example to mp4, mkv or wav."
    labels = trees.write(tmp_path / "labels.csv", "video,label", "cat/3.mid,x")
    named = folder.find(tmp_path, labels, 0.0)  # Whoever names a file wants it to be tried.
    assert [video.video_id for video in named.splits["train"]] == ["cat/3.mid"] and not named.left_out


def test_letters_are_composed(tmp_path):
    """macOS writes é as two characters, csv files have it as one."""
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    trees.write_all(tmp_path, lambda path: path.touch(), f"{decomposed}/1.mp4", f"{decomposed}/2.mp4")
    labels = trees.write(tmp_path / "labels.csv", "video,label", f"{composed}/1.mp4,{decomposed}")
    listing = folder.find(tmp_path, labels, 0.0)
    assert listing.splits["train"] == [Video(f"{composed}/1.mp4", f"{tmp_path}/{decomposed}/1.mp4", (composed,))]
    assert not listing.missing and listing.unlisted == [f"{tmp_path}/{decomposed}/2.mp4"]
    by_folder = folder.find(tmp_path, holdout=0.0)
    assert [video.video_id for video in by_folder.splits["train"]] == [f"{composed}/1.mp4", f"{composed}/2.mp4"]
    trees.write_all(tmp_path, lambda path: path.touch(), f"{composed}/1.mp4")
    with pytest.raises(DatasetError, match=f"Two files in .* would have the same name '{composed}/1.mp4': rename one"):
        folder.find(tmp_path)


def test_paths_of_a_labels_file_are_resolved_and_stay_in_the_folder(tmp_path):
    root, outside = tmp_path / "videos", tmp_path / "secret.mp4"
    trees.write_all(root, lambda path: path.touch(), *(f"a/{number}.mp4" for number in range(5)))
    outside.touch()
    (root / "linked.mp4").symlink_to(outside)
    (tmp_path / "link").symlink_to(root)
    paths = [f"{root}/a/0.mp4", "a/../a/1.mp4", "a/1.mp4", "./a//2.mp4", f"{tmp_path}/x/../link/a/3.mp4", "linked.mp4"]
    paths += ["../secret.mp4", str(outside), "a/../../secret.mp4", "../videos2/1.mp4", ".", "/", "x" * 300, "\x1b.mp4"]
    labels = trees.write(tmp_path / "labels.csv", "video,label", *(f"{path},x" for path in paths))
    listing = folder.find(tmp_path / "link", labels, 0.0)
    assert [video.video_id for video in listing.splits["train"]] == [
        *(f"a/{number}.mp4" for number in range(4)),
        "linked.mp4",
    ]
    assert listing.unlisted == [str(tmp_path / "link" / "a" / "4.mp4")]
    reasons = dict(listing.missing)
    assert {
        name for name, reason in reasons.items() if f"is not in {tmp_path / 'link'}, where all videos" in reason
    } == {
        *("../secret.mp4", str(outside), "a/../../secret.mp4", "../videos2/1.mp4", "/"),
    }
    assert reasons["a/1.mp4"].endswith("labels.csv, line 4 names what " + str(labels) + ", line 3 names.")
    assert {name for name, reason in reasons.items() if reason.endswith("it is not there.")} == {
        *(".", "x" * 300, r"\u001b.mp4"),
    }
