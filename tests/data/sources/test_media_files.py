import os
from pathlib import Path

import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.media_files import MEDIA_SUFFIXES, MediaFiles, iterate_media, without_suffix, youtube_id


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def below(folder: Path, suffixes=(".mp4",)) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in iterate_media(folder, suffixes))


def test_files_are_found_by_suffix_at_any_depth(tmp_path):
    touch(tmp_path, "a.mp4", "-b c/ü.MP4", "-b c/d/e.mp4", "f.wav", "g.mp4.txt", "._a.mp4", "mp4", ".h/i.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert below(tmp_path) == ["-b c/d/e.mp4", "-b c/ü.MP4", "a.mp4"]
    assert "f.wav" in below(tmp_path, MEDIA_SUFFIXES)
    with pytest.raises(DatasetError, match="There is no folder .*nowhere"):
        below(tmp_path / "nowhere")


def test_links_are_followed_without_end_or_repetition(tmp_path):
    touch(tmp_path, "videos/b/1.mp4", "elsewhere/2.mp4")
    links = {"a": "b", "b/up": "..", "c": "../elsewhere", "self": "self", "broken": "nowhere", "1.mp4": "b/1.mp4"}
    links |= {"gone.mp4": "nowhere", "loop.mp4": "loop.mp4"}
    for name, target in links.items():
        (tmp_path / "videos" / name).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to("../videos")
    assert below(tmp_path / "videos") == ["1.mp4", "b/1.mp4", "c/2.mp4", "gone.mp4", "loop.mp4"]


def test_an_unreadable_folder_is_not_passed_over(tmp_path, monkeypatch):
    touch(tmp_path, "1.mp4", "closed/2.mp4")
    scandir = os.scandir

    def deny(folder):
        if str(folder).endswith("closed"):  # permissions would not stop root
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DatasetError, match="closed cannot be read: Permission denied"):
        below(tmp_path)


def test_each_file_is_taken_once(tmp_path):
    touch(tmp_path, "z/one.mp4", "a/one.mp4", "audio/two.wav", "video/two.mkv", "-three.4.mp4", "b_c/one.mp4")
    media = MediaFiles(tmp_path, MEDIA_SUFFIXES)
    assert media.count == 6

    def take(*arguments):
        path = media.take(*arguments)
        return path and Path(path).relative_to(tmp_path).as_posix()

    assert take(("zero", "one"), "b c") == "b_c/one.mp4"
    assert take(("one",), "nowhere") == "a/one.mp4"
    assert take(("two",)) == "video/two.mkv"
    assert take(("-three.4",)) == "-three.4.mp4"
    assert take(("-three.4",)) is None
    assert media.left() == [str(tmp_path / "audio" / "two.wav"), str(tmp_path / "z" / "one.mp4")]


def test_names_that_are_not_utf8_can_be_reported(tmp_path):
    touch(tmp_path, os.fsdecode(b"\xff.mp4"))
    [name] = MediaFiles(tmp_path, MEDIA_SUFFIXES).left()
    assert name == f"{tmp_path}/?.mp4"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("-bcdefghij_", "-bcdefghij_"),
        ("Y-bcdefghij_", "-bcdefghij_"),
        ("Ybcdefghijk", "Ybcdefghijk"),
        ("abcdefghijk_000010", "abcdefghijk"),  # VGGSound
        ("abcdefghijk_30000_40000", "abcdefghijk"),
        ("Yabcdefghijk_30.500_40.500", "abcdefghijk"),  # AudioSet
        ("Ybcdefghijk_000010_000020", "Ybcdefghijk"),  # Kinetics
        ("abcdefghijk_1_2_3", None),
        ("abcdefghijk_one", None),
        ("abcdefghij", None),
        ("äbcdefghijk", None),
    ],
)
def test_youtube_ids_of_clips(name, expected):
    assert youtube_id(name) == expected


def test_suffixes_of_media_only_are_taken_off():
    assert [without_suffix(name) for name in ("a/b.MP4", "a.b.wma", "a.b", "mp4")] == ["a/b", "a.b", "a.b", "mp4"]
