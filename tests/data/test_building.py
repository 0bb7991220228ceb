"""Building a data set: kills, full disks, hanging and crashing decoders; each must leave what is finished."""

import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from avshare_jax.data import decoding
from avshare_jax.data.building import VIDEOS, Settings, build
from avshare_jax.data.dataset import DatasetError, open_dataset
from avshare_jax.data.demo import encode_video
from avshare_jax.data.extraction import extract
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.outcomes import MISSING, REJECTED, USED, read_outcomes
from avshare_jax.data.records import Contents
from avshare_jax.data.sources import folder
from avshare_jax.data.sources.listing import Listing, Video

FRONTEND = FrontEnd(fps=8.0, short_side=16, sample_rate=8_000, n_fft=200, hop_length=100, mels=8)


def write_video(path: Path, seed: int) -> Path:
    """A second of a moving gray ramp and a tone, both of the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = (np.arange(48) * 3 + 10 * np.arange(16)[:, None] + 40 * seed) % 256
    frames = np.repeat(np.repeat(ramp[:, None, :, None], 32, axis=1), 3, axis=3).astype(np.uint8)
    tone = 0.1 * np.sin(np.arange(16_000) * (0.05 + 0.01 * seed))
    encode_video(path, frames, tone.astype(np.float32))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("videos")
    for number in range(9):
        write_video(directory / ("train" if number < 7 else "test") / "ab"[number % 2] / f"{number}.mp4", number)
    (directory / "train" / "a" / "broken.mp4").write_bytes(b"no video")
    return directory


def settings(data_dir, **changes) -> Settings:
    contents = Contents(FRONTEND, jpeg_quality=90, class_names=("a", "b"))
    return Settings("videos", str(data_dir), contents, **{"videos_per_shard": 2} | changes)


def tree(directory: Path) -> dict[str, bytes]:
    """Content of every file by its path."""
    files = (path for path in Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_every_video_has_an_outcome_and_every_used_one_a_record(videos, tmp_path):
    listing = folder.find(videos)
    listing.missing.append(("gone", "labels.csv names it, but it is not there."))
    calls = []
    dataset, outcomes = build(listing, settings(tmp_path), workers=2, progress=lambda *counts: calls.append(counts))
    assert calls == [(done, 10) for done in range(1, 11)]
    assert outcomes == list(read_outcomes(dataset.directory / VIDEOS))
    assert {outcome.video_id: outcome.outcome for outcome in outcomes} == {
        **{f"{'train' if n < 7 else 'test'}/{'ab'[n % 2]}/{n}.mp4": USED for n in range(9)},
        "train/a/broken.mp4": REJECTED,
        "gone": MISSING,
    }
    assert open_dataset(tmp_path, "videos").splits == ("test", "train")
    for split, count in (("train", 7), ("test", 2)):
        assert dataset.num_videos(split) == count
        for record in dataset.source(split):
            name = record["video_id"].decode()
            assert name.startswith(split) and "ab"[record["label"]] == name.split("/")[1]
            assert record["has_video"] and record["has_audio"] and len(record["frames"]) == 8
    assert json.loads((dataset.directory / "prepare_report.json").read_text())
    assert "prepare_report.html" in tree(dataset.directory)
    assert [path.name for path in dataset.directory.parent.iterdir()] == [dataset.directory.name]
    with pytest.raises(DatasetError, match="exists already: delete it, or use another name"):
        build(listing, settings(tmp_path), workers=1)


def start_preparing(videos: Path, data_dir: Path, mark: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "avshare_jax.prepare", "folder", f"--videos={videos}", "--name=videos"]
    command += [f"--data_dir={data_dir}", "--workers=2", "--videos_per_shard=1", "--fps=8", "--short_side=16"]
    return subprocess.Popen(command, env=os.environ | {"TEST_MARK": mark}, stderr=subprocess.PIPE, text=True)


def processes(mark: str) -> list[int]:
    """Numbers of the living processes that were started with the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TEST_MARK={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(videos, tmp_path):
    mark = uuid.uuid4().hex
    whole = start_preparing(videos, tmp_path / "whole", mark)
    assert whole.wait(120) == 0, whole.stderr.read()
    expected = tree(tmp_path / "whole")
    shards = [name for name in expected if "array_record" in name]
    assert len(shards) == 10

    rng, finished_before = random.Random(0), []
    for shards_to_wait_for in (1, 3, 6):
        process = start_preparing(videos, tmp_path / "killed", mark)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if len(list((tmp_path / "killed").rglob("*-of-*[0-9]"))) >= shards_to_wait_for:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*array_record-*[0-9]")}
        assert all(left.get(path) == made for path, made in finished_before)  # nothing finished is made again
        finished_before = list(left.items())
        assert len(finished_before) >= shards_to_wait_for
        with pytest.raises(DatasetError, match="is not finished: give the command .* once more"):
            open_dataset(tmp_path / "killed", "videos")
        deadline = time.monotonic() + 20
        while processes(mark) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not processes(mark)  # decoding processes end with the one that started them
    last = start_preparing(videos, tmp_path / "killed", mark)
    assert last.wait(120) == 0, last.stderr.read()
    assert tree(tmp_path / "killed") == expected
    assert all(path.stat().st_mtime_ns == made for path, made in finished_before)


def large_images(data_dir) -> Settings:
    contents = Contents(dataclasses.replace(FRONTEND, short_side=160), jpeg_quality=95, class_names=("a", "b"))
    return Settings("videos", str(data_dir), contents)


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_full_disk_is_a_sentence_and_finished_shards_stay(videos, tmp_path):
    """A limit on the size of files stands for the disk: writing fails in the same place and with the same exception."""
    source = tmp_path / "source"
    for split in ("test", "train"):
        write_video(source / split / "a" / "small.mp4", 0)
    noise = np.random.default_rng(0).integers(0, 256, (16, 32, 48, 3), np.uint8)
    (source / "train" / "b").mkdir()
    encode_video(source / "train" / "b" / "large.mp4", noise, np.zeros(16_000, np.float32))
    code = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from tests.data.test_building import *
if __name__ == "__main__":
    try:
        build(folder.find(Path({str(source)!r})), large_images({str(tmp_path)!r}), workers=1)
    except DatasetError as error:
        sys.exit(f"error: {{error}}")
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, script], preexec_fn=limit_file_size, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "cannot be written: File too large. Finished shards are kept: make room" in line
    assert "Traceback" not in result.stderr
    kept = {path.name: path.read_bytes() for path in tmp_path.rglob("*.array_record-*") if path.name[0] != "."}
    assert "videos-test.array_record-00000-of-00001" in kept
    assert not list(tmp_path.rglob(".*.partial"))
    dataset, _ = build(folder.find(source), large_images(tmp_path), workers=1)
    shards = {path.name: path.read_bytes() for path in dataset.directory.iterdir()}
    assert kept.items() <= shards.items()
    assert {len(shard) > 200_000 for name, shard in shards.items() if "train.array_record" in name} == {True, False}


def crash(*arguments, **options) -> None:
    os._exit(3)


def test_a_decoder_that_crashes_costs_one_video(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "extract", crash)
    with pytest.raises(DatasetError, match=r"no readable video: 2 failed, .*ended the process \(exit code 3\)"):
        build(Listing({"test": folder.find(videos).splits["test"]}), settings(tmp_path), workers=1)
    assert not list(tmp_path.iterdir())


def hang_on_the_first(video: Video, *arguments, **options):
    if video.video_id.endswith("7.mp4"):
        time.sleep(10_000)
    return extract(video, *arguments, **options)


def test_a_decoder_that_hangs_costs_one_video(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "extract", hang_on_the_first)
    listing = Listing({"test": folder.find(videos).splits["test"]}, ("a", "b"))
    dataset, outcomes = build(listing, settings(tmp_path, time_limit=20.0), workers=1)
    assert dataset.num_videos("test") == 1
    [hung] = [outcome for outcome in outcomes if outcome.outcome == REJECTED]
    assert (hung.video_id, hung.reason) == ("test/b/7.mp4", "Decoding it takes longer than 20 s.")


def test_split_without_readable_videos_is_left_out(videos, tmp_path):
    broken = Video("broken", str(videos / "train" / "a" / "broken.mp4"))
    listing = Listing(
        {"fold1": folder.find(videos).splits["test"], "fold2": [broken]},
        ("a", "b"),
        split_names={"all": "fold1+fold2", "test2": "fold2"},
    )
    contents = Contents(FRONTEND, 90, listing.class_names, split_names=listing.split_names)
    dataset, outcomes = build(listing, Settings("videos", str(tmp_path), contents), workers=1)
    assert dataset.splits == ("fold1", "all")
    assert dataset.num_videos("all") == 2 and len(outcomes) == 3


def test_split_names_do_not_stand_for_splits_that_are_not_there(videos, tmp_path):
    listing = Listing({"fold2": folder.find(videos).splits["test"]}, ("a", "b"))  # all of fold1 is excluded
    names = {"train1": "fold1+fold2", "test1": "fold1"}
    contents = Contents(FRONTEND, 90, listing.class_names, split_names=names)
    dataset, _ = build(listing, Settings("videos", str(tmp_path), contents), workers=1)
    assert dataset.split_names == {"train1": "fold2"}
    assert dataset.splits == ("fold2", "train1") and dataset.num_videos("train1") == 2


def test_unwritable_places_get_a_sentence(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file/videos/1.0.0 cannot be written: Not a directory"):
        build(folder.find(videos), settings(tmp_path / "file"), workers=1)
