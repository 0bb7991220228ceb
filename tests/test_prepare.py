import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.dataset import DatasetError, open_dataset
from avshare_jax.data.demo import encode_video
from avshare_jax.data.frontend import PRESETS, FrontEnd, log_mel
from avshare_jax.data.media import read_audio
from avshare_jax.prepare import ProgressLine, find_videos, main, prepare_folder

FRONTEND = FrontEnd(fps=8.0, short_side=16, sample_rate=8_000, n_fft=200, hop_length=100, mels=8)


def write_gray_video(path: Path, gray: int) -> Path:
    """Half a second of one gray value with a faint tone, at the demo's 16 frames and 16,000 samples a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.1 * np.sin(np.arange(8_000) * 0.2)
    encode_video(path, np.full((8, 32, 48, 3), gray, np.uint8), tone.astype(np.float32))
    return path


def prepare(videos: Path, data_dir: Path, **options):
    return prepare_folder(videos, "videos", data_dir, FRONTEND, workers=1, progress=lambda done, total: None, **options)


def contents(data_dir: Path, split: str) -> dict[str, tuple[int, int]]:
    """Label and gray value by video id."""
    return {
        record["video_id"].decode(): (record.get("label"), simplejpeg.decode_jpeg(record["frames"][0])[8, 8, 0])
        for record in open_dataset(data_dir, "videos").source(split)
    }


def test_folder_with_splits_classes_and_unreadable_files(tmp_path):
    folder = tmp_path / "my videos"
    for split, label, gray in [("train", "dog", 40), ("train", "a cat", 80), ("test", "dog", 120)]:
        write_gray_video(folder / split / label / f"-{gray} ü.mp4", gray)
    (folder / "train" / "dog" / "broken.mp4").write_bytes(b"no video")
    (folder / "train" / "dog" / "empty.mp4").touch()
    (folder / "train" / "dog" / "notes.txt").write_text("no video either")
    seen = []
    report = prepare_folder(
        folder, "videos", tmp_path / "data", FRONTEND, workers=1, progress=lambda *counts: seen.append(counts)
    )
    assert report.counts == {"train": 2, "test": 1}
    assert report.class_names == open_dataset(tmp_path / "data", "videos").class_names == ("a cat", "dog")
    assert [Path(path).name for path, _ in report.skipped] == ["broken.mp4", "empty.mp4"]
    assert all("cannot be decoded" in reason for _, reason in report.skipped)
    assert "Skipped 2" in str(report) and "broken.mp4" in str(report)
    assert sorted(seen) == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]

    train = contents(tmp_path / "data", "train")
    assert train == {
        "train/a cat/-80 ü.mp4": (0, pytest.approx(80, abs=4)),
        "train/dog/-40 ü.mp4": (1, pytest.approx(40, abs=4)),
    }
    [record] = open_dataset(tmp_path / "data", "videos").source("test")
    assert len(record["frames"]) == 4
    assert simplejpeg.decode_jpeg(record["frames"][3]).shape == (16, 24, 3)
    assert record["log_mel"].shape[1] == 8 and 40 <= len(record["log_mel"]) <= 52
    assert record["has_video"] and record["has_audio"]


def test_flat_folder_is_unlabeled_and_holds_out_by_name(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"{number}.mp4" for number in range(1_000)]
    for name in names:
        (folder / name).touch()
    sources, skipped = find_videos(folder, None, holdout=0.1)
    assert not skipped
    assert 70 < len(sources["test"]) < 130 and len(sources["test"]) + len(sources["train"]) == 1_000
    assert {video.label for split in sources.values() for video in split} == {None}
    held_out = {video.video_id for video in sources["test"]}
    (folder / "another.mp4").touch()
    assert {video.video_id for video in find_videos(folder, None, 0.1)[0]["test"]} - {"another.mp4"} == held_out
    assert "test" not in find_videos(folder, None, 0.0)[0]


def test_labels_file(tmp_path):
    folder = tmp_path / "videos"
    for name, gray in [("a.mp4", 40), ("sub/b.mp4", 80), ("c.mp4", 120), ("unnamed.mp4", 160)]:
        write_gray_video(folder / name, gray)
    labels = tmp_path / "labels.csv"
    rows = [
        "video,label,split",
        'a.mp4,"x, y",train',
        "sub/b.mp4,z,val",
        "c.mp4,,train",
        "gone.mp4,z,train",
        "a.mp4,z,val",
    ]
    labels.write_text("\r\n".join(rows), encoding="utf-8-sig")
    report = prepare(folder, tmp_path / "data", labels=labels)
    assert report.counts == {"train": 2, "val": 1}
    assert report.class_names == ("x, y", "z")
    assert {Path(path).name: "not there" in reason for path, reason in report.skipped} == {
        "gone.mp4": True,
        "a.mp4": False,
    }
    assert contents(tmp_path / "data", "train") == {
        "a.mp4": (0, pytest.approx(40, abs=4)),
        "c.mp4": (-1, pytest.approx(120, abs=4)),
    }
    assert contents(tmp_path / "data", "val") == {"sub/b.mp4": (1, pytest.approx(80, abs=4))}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "labels.csv cannot be read"),
        ("file,class\na.mp4,x\n", "needs a header with the columns video,label"),
        ("", "needs a header with the columns video,label"),
        ("video,label,split\na.mp4,x,trian\n", "has the split 'trian'; splits are train"),
    ],
)
def test_unusable_labels_file_gets_a_sentence(tmp_path, content, message):
    if content is not None:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        find_videos(tmp_path, tmp_path / "labels.csv", 0.1)


def test_command_line_without_a_readable_video(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    command = [sys.executable, "-m", "avshare_jax.prepare", "folder", f"--videos={folder}", "--name=videos"]
    command += [f"--data_dir={tmp_path / 'data'}", "--workers=1"]

    def failure() -> str:
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 1
        assert len(result.stderr.strip().splitlines()[-1:]) == 1 and "Traceback" not in result.stderr
        return result.stderr

    assert "There is no readable video" in failure() and "no file ends in .avi" in failure()
    (folder / "broken.mp4").write_bytes(b"no video")
    assert "1 failed, for example" in failure()
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_command_line_writes_a_data_set_only_once(tmp_path):
    for number in range(3):
        write_gray_video(tmp_path / "videos" / f"{number}.mp4", 50)
    command = [
        sys.executable,
        "-m",
        "avshare_jax.prepare",
        "folder",
        f"--videos={tmp_path / 'videos'}",
        "--name=videos",
    ]
    command += [f"--data_dir={tmp_path / 'data'}", "--workers=1", "--short_side=16", "--fps=4", "--holdout=0"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "train 3 videos, no labels" in result.stdout
    assert "videos prepared: 3 of 3" in result.stderr
    dataset = open_dataset(tmp_path / "data", "videos")
    assert dataset.frontend == FrontEnd(fps=4.0, short_side=16)
    assert len(dataset.source("train")[0]["frames"]) == 2
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    assert "exists already: delete it, or use another name" in again.stderr


def test_front_end_is_chosen_by_name_and_single_values(tmp_path, capsys):
    video = write_gray_video(tmp_path / "videos" / "a.mp4", 50)
    common = ["folder", f"--videos={tmp_path / 'videos'}", f"--data_dir={tmp_path / 'data'}", "--workers=1"]
    main([*common, "--name=modern", "--frontend=16khz", "--mels=40", "--short_side=16", "--holdout=0"])
    dataset = open_dataset(tmp_path / "data", "modern")
    assert dataset.frontend == dataclasses.replace(PRESETS["16khz"], mels=40, short_side=16)
    [record] = dataset.source("train")
    np.testing.assert_array_equal(record["log_mel"], log_mel(read_audio(video, 16_000), dataset.frontend))

    overrides = re.findall(r" --config\.data\.frontend\.(\w+)=(\S+)", capsys.readouterr().out)
    told = {name: type(getattr(dataset.frontend, name))(value) for name, value in overrides}
    assert FrontEnd(**told) == dataset.frontend  # What differs from the recipe's front end, and nothing else.
    assert told.keys() == {"sample_rate", "n_fft", "hop_length", "win_length", "mels", "short_side"}
    with pytest.raises(SystemExit, match="error: A window of win_length=700 samples does not fit into n_fft=690"):
        main([*common, "--name=other", "--win_length=700"])
    with pytest.raises(SystemExit):
        main([*common, "--name=other", "--frontend=8khz"])
    assert "invalid choice: '8khz'" in capsys.readouterr().err


def test_unwritable_places_get_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        prepare(tmp_path, tmp_path / "file")
    with pytest.raises(DatasetError, match="There is no folder"):
        prepare(tmp_path / "nowhere", tmp_path / "data")


def test_progress_line_says_count_rate_and_time_left(monkeypatch):
    stderr, clock = io.StringIO(), iter([0.0, 10.0, 10.1, 20.0])
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr("avshare_jax.prepare.time.monotonic", lambda: next(clock))
    progress = ProgressLine("videos")
    for done in (25, 26, 100):  # the second comes a moment after the first
        progress(done, 100)
    assert stderr.getvalue().splitlines() == [
        "videos: 25 of 100, 2.5 a second, ETA 0:30",
        "videos: 100 of 100, 5.0 a second, took 0:20",
    ]
