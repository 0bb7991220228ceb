"""Which videos `--exclude_ids` leaves out, by files of ids and by data sets."""

from pathlib import Path

import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.exclusion import exclude, read_ids
from avshare_jax.data.outcomes import MISSING, USED, VIDEOS, Outcome, write_outcomes
from avshare_jax.data.records import dataset_directory
from avshare_jax.data.sources.listing import Listing, Video

HERE = ("-bcdefghij_.mp4", "Yabcdefghijk.wav", "dog/ABCDEFGHIJK_000010.mp4", "cat/vwxyz-vwxyz_1_2.mp4", "cat/1.mp4")


def listing_of(*video_ids: str) -> Listing:
    return Listing({"train": [Video(video_id, f"/videos/{video_id}") for video_id in video_ids]})


def left_out(listing: Listing, source: Path | str, data_dir: Path) -> tuple[list[str], str]:
    excluded, line = exclude(listing, read_ids(str(source), data_dir))
    kept = [video for videos in excluded.splits.values() for video in videos]
    assert len(kept) + len(excluded.left_out) == sum(map(len, listing.splits.values()))
    assert all(reason == f"Its id is in --exclude_ids={source}." for _, _, reason in excluded.left_out)
    return [video.video_id for _, video, _ in excluded.left_out], line


def prepared(data_dir: Path, name: str, *videos: Video, outcome: str = USED) -> str:
    """Writes what is left of a data set of these videos for exclusion."""
    directory = dataset_directory(data_dir, name)
    directory.mkdir(parents=True)
    outcomes = [Outcome(v.video_id, v.source_id, "test", v.path, v.labels, outcome) for v in videos]
    write_outcomes(directory / VIDEOS, outcomes)
    return name


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"\xef\xbb\xbf-bcdefghij_\r\n\r\nnobody\r\n", [HERE[0]]),
        ("a.txt", b"-bcdefghij_.MP4\nabcdefghijk.mkv", HERE[:2]),
        ("a.txt", b"Y-bcdefghij__0.000_10.000\nabcdefghijk_30000_40000.mp4\n", HERE[:2]),
        ("a.txt", b"elsewhere/ABCDEFGHIJK_000050_000060.mp4", [HERE[2]]),
        ("a.txt", b"dog/1.mp4", []),
        ("a.txt", b"cat/1", [HERE[4]]),
        ("a.txt", b"1", [HERE[4]]),
        ("a.txt", b"label,youtube_id,time_start\nx,vwxyz-vwxyz,3\n", [HERE[3]]),
        ("kinetics.csv", b'\xef\xbb\xbf"youtube_id",label\r\nvwxyz-vwxyz,"a, b"\r\n', [HERE[3]]),
        ("vggsound.csv", b'ABCDEFGHIJK,7,"a, b",test\nabcdefghijk,1,x,test\n', HERE[1:3]),
        ("eval_segments.csv", b'# a, 1\n-bcdefghij_, 0.000, 10.000, "/m/1,/m/2"\n', [HERE[0]]),
        ("Charades.csv", b"id,subject\n-bcdefghij_,x\n", [HERE[0]]),
        ("pyslowfast.csv", b"/data/abcdefghijk_000001_000011.mp4 12\n", [HERE[1]]),
        ("testlist01.txt", b"cat/1.mp4 3\r\n", [HERE[4]]),
    ],
)
def test_files_of_ids(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    found, line = left_out(listing_of(*HERE), tmp_path / name, tmp_path)
    assert found == list(expected)
    assert f"{len(expected)} videos left out." in line and ("Nothing was found" in line) == (not expected)


def test_line_counts_ids_and_videos(tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("abcdefghijk\nnobody\nabcdefghijk\n")
    listing = listing_of("abcdefghijk_1_2.mp4", "abcdefghijk_3_4.mp4", "other.mp4")
    found, line = left_out(listing, ids, tmp_path)
    assert len(found) == 2 and line == f"--exclude_ids={ids}: 1 of its 2 ids are here, 2 videos left out."
    once, _ = exclude(listing, read_ids(str(ids), tmp_path))
    again, line = exclude(once, read_ids(str(ids), tmp_path))
    assert again == once and line == f"--exclude_ids={ids}: 1 of its 2 ids are here, 0 videos left out."


def test_unusable_sources_get_a_sentence(tmp_path):
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DatasetError, match="binary is not UTF-8 text"):
        read_ids(str(tmp_path / "binary"), tmp_path)
    with pytest.raises(DatasetError, match="--exclude_ids=nothing is neither a file .* nor a data set"):
        read_ids("nothing", tmp_path)


def test_publishers_ids_of_a_data_set(tmp_path):
    clip = Video("abcdefghijk_30000", "/audioset/Yabcdefghijk_30.000_40.000.wav", (), "abcdefghijk")
    charades = Video("46GP8", "/charades/46GP8.mp4")
    name = prepared(tmp_path, "evaluation", clip, charades)
    found, line = left_out(listing_of("x/46GP8.mp4", "abcdefghijk_000001.mp4", "1.mp4"), name, tmp_path)
    assert found == ["x/46GP8.mp4", "abcdefghijk_000001.mp4"]
    assert line == "--exclude_ids=evaluation: 2 of its 2 ids are here, 2 videos left out."
    vggsound = Listing({"test": [Video("abcdefghijk_000002", "/v/abcdefghijk_2000_12000.mp4", (), "abcdefghijk")]})
    assert left_out(vggsound, name, tmp_path)[0] == ["abcdefghijk_000002"]
    missing = prepared(tmp_path, "missing", clip, outcome=MISSING)
    assert left_out(vggsound, missing, tmp_path)[0] == []


def test_ids_are_compared_composed(tmp_path):
    """macOS writes é as two characters; a data set from before ids were composed has them so."""
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    name = prepared(tmp_path, "decomposed", Video(decomposed, f"/v/{decomposed}.mp4"))
    assert left_out(listing_of(f"{composed}.mp4", "1.mp4"), name, tmp_path)[0] == [f"{composed}.mp4"]
    (tmp_path / "ids.txt").write_text(f"{composed}\n")
    assert left_out(listing_of(f"{decomposed}.mp4"), str(tmp_path / "ids.txt"), tmp_path)[0] == [f"{decomposed}.mp4"]


def test_equal_paths_in_two_folders_exclude_nothing(tmp_path):
    names = ("dog/1.mp4", "train_00001.mp4", "our_holiday_2.mp4")
    name = prepared(tmp_path, "mine", *(Video(video_id, f"/other/{video_id}") for video_id in names))
    found, line = left_out(listing_of(*names, "our_holiday_3.mp4"), name, tmp_path)
    assert not found and line.startswith("--exclude_ids=mine: 0 of its 0 ids are here, 0 videos left out.")
    assert "Nothing was found" in line and "3 of its videos are known by their paths in a folder only" in line


def test_clips_of_youtube_in_a_folder_are_known_by_their_ids(tmp_path):
    names = ("a/abcdefghijk_000001_000011.mp4", "YaBcdefghijk.wav", "-BCdefghijk_12.mp4", "1.mp4")
    name = prepared(tmp_path, "mine", *(Video(video_id, f"/other/{video_id}") for video_id in names))
    here = ("abcdefghijk.mp4", "aBcdefghijk_7.mp4", "-BCdefghijk.mp4", "1.mp4")
    found, line = left_out(listing_of(*here), name, tmp_path)
    assert found == list(here[:3]) and "3 of its 3 ids are here, 3 videos left out." in line
    assert "1 of its videos are known by their paths" in line
