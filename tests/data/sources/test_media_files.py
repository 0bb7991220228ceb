import os
from pathlib import Path

import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources.media_files import (
    AUDIO_SUFFIXES,
    MEDIA_SUFFIXES,
    VIDEO_SUFFIXES,
    MediaFiles,
    find_media,
    without_suffix,
    youtube_id,
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def below(folder: Path, suffixes=(".mp4",)) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in find_media(folder, suffixes).taken)


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


def test_what_ffmpeg_opens_is_taken_and_what_else_looks_like_media_is_known(tmp_path):
    # The kinds that folders of recordings, rips and downloads are known to hold, and their siblings.
    video = "mxf f4v 3g2 dv m2v m1v MPE qt divx vob mod tod m2t m2p wtv dvr-ms rm rmvb ogm mk3d ismv h264 265 mjpeg y4m"
    audio = "mka aiff aif aifc oga spx au snd caf w64 wv ac3 eac3 dts amr ape m4b m4r mp2 ra weba voc tta sph"
    assert {f".{suffix.lower()}" for suffix in video.split()} <= set(VIDEO_SUFFIXES)
    assert {f".{suffix}" for suffix in audio.split()} <= set(AUDIO_SUFFIXES)
    assert not set(VIDEO_SUFFIXES) & set(AUDIO_SUFFIXES)
    names = [f"a.{suffix}" for suffix in (video + " " + audio).split()]
    other = ["b.braw", "b.mid", "b.PCM", "b.yuv"]
    touch(tmp_path, *names, *other, "c.ass", "c.srt", "c.txt", "c.jpg", "c.csv", "c", ".c.mid")
    found = find_media(tmp_path)
    assert sorted(path.name for path in found.taken) == sorted(names)
    assert sorted(path.name for path in found.others) == sorted(other)


def test_every_media_file_is_taken_or_told(tmp_path):
    touch(tmp_path, "one.mp4", "one.wav", "two.mid")
    media = MediaFiles(tmp_path, VIDEO_SUFFIXES)
    assert media.take(("one",)) == str(tmp_path / "one.mp4")
    assert media.left() == [str(tmp_path / "one.wav")] and media.not_taken == [tmp_path / "two.mid"]


def test_names_are_compared_composed(tmp_path):
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    touch(tmp_path, f"a/{composed}.mp4", f"b {decomposed}/{decomposed}.mp4")
    media = MediaFiles(tmp_path)
    assert media.take((composed,), f"b_{composed}") == str(tmp_path / f"b {decomposed}" / f"{decomposed}.mp4")
    assert media.take((decomposed,)) == str(tmp_path / "a" / f"{composed}.mp4")


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
    # The last is the time of a clip.
    assert [without_suffix(name) for name in ("a.264", "a/abcdefghijk_30.264")] == ["a", "a/abcdefghijk_30.264"]
