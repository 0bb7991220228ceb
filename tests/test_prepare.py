"""The command that makes data sets: each source from its publisher's files, and what it says."""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.frontend import PRESETS, FrontEnd, log_mel
from avshare_jax.data.media import read_audio
from avshare_jax.data.names import printable
from avshare_jax.prepare import SOURCES, end_without_memory, main, make_parser
from avshare_jax.progress import ProgressLine
from tests.data.sources import trees
from tests.data.test_building import write_video

SMALL = ("--fps=8", "--short_side=16", "--sample_rate=8000", "--n_fft=200", "--hop_length=100", "--mels=8")


def prepare(*arguments: str, data_dir: Path) -> None:
    main([*arguments, f"--data_dir={data_dir}", "--workers=1", *SMALL])


def test_folder_with_splits_classes_and_unreadable_files(tmp_path, capsys):
    folder = tmp_path / "my videos"
    for split, label, seed in [("train", "dog", 0), ("train", "a cat", 1), ("test", "dog", 2)]:
        write_video(folder / split / label / f"-{seed} ü.mp4", seed)
    (folder / "train" / "dog" / "broken.mp4").write_bytes(b"no video")
    (folder / "train" / "dog" / "empty.mp4").touch()
    (folder / "train" / "dog" / "notes.txt").write_text("no video either")
    prepare("folder", f"--videos={folder}", "--name=videos", data_dir=tmp_path / "data")
    said = capsys.readouterr().out
    assert "videos by split: test 1, train 2; 2 classes" in said
    assert "Rejected: 2" in said and "broken.mp4" in said and "empty.mp4" in said and "notes" not in said
    dataset = open_dataset(tmp_path / "data", "videos")
    assert dataset.class_names == ("a cat", "dog")
    labels = {record["video_id"].decode(): record["label"] for record in dataset.source("train")}
    assert labels == {"train/a cat/-1 ü.mp4": 0, "train/dog/-0 ü.mp4": 1}
    [record] = dataset.source("test")
    assert len(record["frames"]) == 8 and simplejpeg.decode_jpeg(record["frames"][3]).shape == (16, 24, 3)
    assert record["log_mel"].shape[1] == 8 and 75 <= len(record["log_mel"]) <= 85


def test_every_file_has_a_line_whatever_it_is_called(tmp_path, monkeypatch):
    """Names in bytes that are not UTF-8 and with commands for terminals, on a console that takes UTF-8 only."""
    folder = tmp_path / "videos"
    video = write_video(tmp_path / "video.mp4", 0)
    names = (b"\xb9\xb7/1.mp4", b"\xd3\xe3/1.mp4", b"\x1b[31mred/bad\xff\n.mp4", b"red/2.mid", b"red/3.braw")
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video.read_bytes() if name.endswith(b"1.mp4") else b"none")
    console = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    prepare("folder", f"--videos={folder}", "--name=videos", "--holdout=0", data_dir=tmp_path / "data")
    console.flush()
    said = console.buffer.getvalue().decode()
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    assert "3 classes" in said and "Rejected: 3" in said and r"\u001b[31mred/bad\xff\u000a.mp4: " in said
    assert f"Files that look like media and are not taken: 2, for example {folder}/red/2.mid" in said
    lines = [json.loads(line) for line in (tmp_path / "data/videos/1.0.0/videos.jsonl").read_text().splitlines()]
    expected = {printable(os.fsdecode(name)) for name in names}
    assert {line["video_id"] for line in lines} == expected and len(lines) == len(expected) == 5
    json.dumps(lines, ensure_ascii=False).encode()
    dataset = open_dataset(tmp_path / "data", "videos")
    assert dataset.class_names == (r"\u001b[31mred", r"\xb9\xb7", r"\xd3\xe3")
    labels = {record["video_id"].decode(): record["label"] for record in dataset.source("train")}
    assert labels == {r"\xb9\xb7/1.mp4": 1, r"\xd3\xe3/1.mp4": 2}


def write_media(path: Path) -> None:
    """Writes a second of sound to `path`, with image unless its suffix is that of a sound file; content is its own."""
    seed = sum(path.name.encode()) % 13
    if path.suffix == ".wav":
        tone = (8_000 * np.sin(np.arange(16_000) * (0.05 + 0.01 * seed))).astype(np.int16)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w") as container:
            stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        write_video(path.with_suffix(".mp4"), seed).rename(path)


@pytest.mark.parametrize("make_tree", trees.MAKERS.values())
def test_data_sets_from_their_publishers_files(make_tree, tmp_path, capsys):
    """What the listing of each tree should hold, `tests/data/sources` says; here, all of it arrives in the data set."""
    command = make_tree(tmp_path / "tree", write_media)
    prepare(*command, "--name=public", data_dir=tmp_path / "data")
    dataset = open_dataset(tmp_path / "data", "public")
    listing = SOURCES[command[0]].find_videos(make_parser().parse_args([*command, "--name=public"]))
    assert (dataset.class_names, dataset.multi_label) == (listing.class_names, listing.multi_label)
    for split, videos in listing.splits.items():
        expected = {video.video_id: video for video in videos}
        records = {record["video_id"].decode(): record for record in dataset.source(split)}
        assert records.keys() == expected.keys()
        for video_id, record in records.items():
            numbers = record["labels"] if dataset.multi_label else [n for n in [record.get("label", -1)] if n >= 0]
            assert [dataset.class_names[number] for number in numbers] == list(expected[video_id].labels)
            assert record["source_id"].decode() == expected[video_id].source_id
            assert record["has_audio"] and record["has_video"] == (not expected[video_id].path.endswith(".wav"))
    for name, union in listing.split_names.items():
        assert dataset.num_videos(name) == sum(len(listing.splits[part]) for part in union.split("+"))
    lines = (dataset.directory / "videos.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, lines) if line["outcome"] != "missing"]
    taken = [video.path for videos in listing.splits.values() for video in videos]
    assert sorted(line["path"] for line in lines) == sorted([*taken, *listing.unlisted])
    assert {line["path"] for line in lines if line["outcome"] == "unlisted"} == set(listing.unlisted)
    said = capsys.readouterr().out
    assert ("Missing" in said) == bool(listing.missing)
    assert ("Files that no annotation names" in said) == bool(listing.unlisted)


@pytest.mark.parametrize("source", SOURCES)
def test_help_of_every_source_has_an_example(source, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([source, "--help"])
    said = capsys.readouterr().out
    assert f"python -m avshare_jax.prepare {source} --videos=" in said
    assert "--exclude_ids" in said and "--frontend" in said


def test_demo_is_made_by_the_command_too(tmp_path):
    videos = tmp_path / "videos"
    numbers = ["--num_train=2", "--num_test=1"]
    prepare("demo", f"--videos={videos}", *numbers, "--name=small_demo", data_dir=tmp_path / "data")
    dataset = open_dataset(tmp_path / "data", "small_demo")
    assert (dataset.num_videos("train"), dataset.num_videos("test")) == (2, 1)
    with pytest.raises(SystemExit, match="was made with num_test=1, num_train=2, seed=0, and not with .*seed=1"):
        prepare("demo", f"--videos={videos}", *numbers, "--seed=1", "--name=other", data_dir=tmp_path / "data")


def test_evaluation_videos_are_kept_out_by_their_ids(tmp_path, capsys):
    names = ("-abcdefghij_000010_000020", "abcdefghijk_000000_000010", "mine")
    for number, name in enumerate(names):
        write_video(tmp_path / "train" / f"{name}.mp4", number)
    write_video(tmp_path / "evaluation" / "abcdefghijk_000030_000040.mp4", 3)
    prepare("folder", f"--videos={tmp_path / 'evaluation'}", "--name=evaluation", "--holdout=1", data_dir=tmp_path)
    (tmp_path / "ids.txt").write_text("mine\r\n\r\nnobody\n")
    prepare(
        *("folder", f"--videos={tmp_path / 'train'}", "--holdout=0", "--name=pretraining"),
        *("--exclude_ids=evaluation", f"--exclude_ids={tmp_path / 'ids.txt'}"),
        data_dir=tmp_path,
    )
    [record] = open_dataset(tmp_path, "pretraining").source("train")
    assert record["video_id"].decode() == f"{names[0]}.mp4"
    said = capsys.readouterr().out
    assert "Rejected: 2" in said and "Its id is in --exclude_ids=evaluation." in said
    assert "--exclude_ids=evaluation: 1 of its 1 ids are here, 1 videos left out." in said
    assert f"--exclude_ids={tmp_path / 'ids.txt'}: 1 of its 2 ids are here, 1 videos left out." in said
    with pytest.raises(SystemExit, match="--exclude_ids=nothing is neither a file .* nor a data set"):
        prepare(
            "folder", f"--videos={tmp_path / 'train'}", "--name=x", "--exclude_ids=nothing", data_dir=tmp_path / "data"
        )


def test_mistakes_end_with_a_sentence(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    command = [sys.executable, "-m", "avshare_jax.prepare", "folder", f"--videos={folder}", "--name=videos"]
    command += [f"--data_dir={tmp_path / 'data'}", "--workers=1"]

    def failure(*more: str) -> str:
        result = subprocess.run([*command, *more], capture_output=True, text=True)
        assert result.returncode == 1 and not result.stdout
        [line] = result.stderr.strip().splitlines()
        return line

    assert "There is no readable video" in failure()
    (folder / "broken.mp4").write_bytes(b"no video")
    write_video(folder / "short.mp4", 0)
    result = subprocess.run([*command, "--min_seconds=2"], capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "error: There is no readable video: 2 failed, for example" in result.stderr
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    assert "error: A window of win_length=700 samples does not fit" in failure("--win_length=700")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jpeg_quality=0"], "--jpeg_quality=0 is no quality"),
        (["--jpeg_quality=101"], "--jpeg_quality=101 is no quality"),
        (["--min_seconds=-1"], "--min_seconds=-1 and"),
        (["--min_seconds=nan"], "--min_seconds=nan and"),
        (["--min_seconds=2", "--max_seconds=2"], "--max_seconds=2 leave no video"),
        (["--max_seconds=nan"], "--max_seconds=nan leave no video"),
        (["--time_limit=0"], "--time_limit=0 leaves no time"),
        (["--videos_per_shard=0"], "--videos_per_shard=0 is too small"),
        (["--workers=0"], "--workers=0 is too small"),
        (["--fps=0"], "fps=0.0 is no frame rate"),
        (["--hop_length=0"], "hop_length=0 leaves no spectrogram"),
        (["--num_train=0"], "--num_train=0 is too small: use 1 or more"),
        (["--num_test=-1"], "--num_test=-1 is too small: use 0 or more"),
        (["--seed=-1"], "--seed=-1 is too small: use 0 or more"),
        (["--name=My-Videos"], "'My-Videos' cannot be a data set's name"),
        (["--name=there"], "there.1.0.0 exists already: delete it, or use another name"),
        (["--exclude_ids=nothing"], "--exclude_ids=nothing is neither a file"),
    ],
)
def test_mistakes_are_said_before_anything_is_rendered(tmp_path, options, message):
    (tmp_path / "data" / "there" / "1.0.0").mkdir(parents=True)
    common = ["demo", f"--videos={tmp_path / 'videos'}", f"--data_dir={tmp_path / 'data'}", "--name=new"]
    with pytest.raises(SystemExit, match=message):
        main([*common, *options])
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize("place", ["data", "data/new"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_rendered(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    with pytest.raises(SystemExit, match=rf"error: The folder .*{place} cannot be written \((File exists|Not a dir)"):
        main(["demo", f"--videos={tmp_path / 'videos'}", f"--data_dir={tmp_path / 'data'}", "--name=new"])
    assert not (tmp_path / "videos").exists()


def test_a_thread_without_memory_ends_the_command(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    failed = RuntimeError("can't start new thread")
    end_without_memory(threading.ExceptHookArgs((RuntimeError, failed, None, None)))
    assert codes == [1] and "error: Memory has run out" in capsys.readouterr().err
    end_without_memory(threading.ExceptHookArgs((ValueError, ValueError("x"), None, threading.current_thread())))
    assert codes == [1]


def test_holdout_is_a_share(tmp_path):
    with pytest.raises(SystemExit, match="--holdout=1.5 is no share"):
        main(["folder", f"--videos={tmp_path}", "--holdout=1.5", "--name=x", f"--data_dir={tmp_path}"])


def test_front_end_is_chosen_by_name_and_single_values(tmp_path, capsys):
    video = write_video(tmp_path / "videos" / "a.mp4", 5)
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
    with pytest.raises(SystemExit):
        main([*common, "--name=other", "--frontend=8khz"])
    assert "invalid choice: '8khz'" in capsys.readouterr().err


def test_progress_line_says_count_rate_and_time_left(monkeypatch):
    stderr, clock = io.StringIO(), iter([0.0, 5.0, 15.0, 15.1, 25.0])
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr("avshare_jax.progress.time.monotonic", lambda: next(clock))
    progress = ProgressLine("videos")
    for done in (50, 75, 76, 100):  # fifty were there before; the third call comes a moment after the second
        progress(done, 100)
    assert stderr.getvalue().splitlines() == [
        "videos: 75 of 100, 2.5 a second, ETA 0:10",
        "videos: 100 of 100, took 0:25",
    ]
