"""Decoding in child processes: records and outcomes of good and bad files; hanging ones are in test_building.py."""

import multiprocessing
import os
import signal
from concurrent.futures import Future

import numpy as np
import pytest

from avshare_jax.data import decoding
from avshare_jax.data.decoding import SAME_FAILURES, DecodingProcesses, rejected
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.extraction import UNEXPECTED, extract
from avshare_jax.data.outcomes import REJECTED, USED, Outcome
from avshare_jax.data.sources.listing import Video
from tests.data.test_building import FRONTEND, write_video


def test_files_are_decoded_as_in_this_process(tmp_path):
    write_video(tmp_path / "a.mp4", 0)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 5.0}
    videos = [Video(name, str(tmp_path / name), ("dog",)) for name in ("a.mp4", "bad.mp4")]
    processes = DecodingProcesses(1, FRONTEND, **options, time_limit=float("inf"), memory_limit=2**30)
    try:
        futures = [processes.start(video, "test") for video in videos]
        good, bad = (processes.finish(*pair, "test") for pair in zip(futures, videos, strict=True))
    finally:
        processes.stop()
    record, outcome = extract(videos[0], "test", FRONTEND, **options)
    assert good[1] == outcome and outcome.outcome == USED
    assert good[0]["frames"] == record["frames"]
    np.testing.assert_array_equal(good[0]["log_mel"], record["log_mel"])
    assert bad[0] is None and bad[1].outcome == REJECTED and "cannot be read" in bad[1].reason


def greedy_or_killed(video: Video, *arguments, **options):
    """Takes 2 GB, is killed in the middle of an answer, or decodes."""
    if video.video_id == "greedy":
        return np.ones(2**28), None
    if video.video_id == "killed":
        return Deadly(), None
    return extract(video, *arguments, **options)


class Deadly:
    """Kills the process when it is sent, as the system does where memory has run out."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_files_that_take_too_much_memory_are_rejected_and_stop_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "extract", greedy_or_killed)
    good = Video("good", str(write_video(tmp_path / "good.mp4", 0)))
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 5.0, "time_limit": 300.0}
    processes = DecodingProcesses(1, FRONTEND, **options, memory_limit=10**9)
    videos = [Video("greedy", "/greedy"), Video("killed", "/killed"), good]
    try:
        futures = [processes.start(video, "test") for video in videos]
        greedy, killed, used = (processes.finish(*pair, "test") for pair in zip(futures, videos, strict=True))
    finally:
        processes.stop()
    assert greedy[0] is None and killed[0] is None
    assert greedy[1].reason == "Decoding it takes more memory than there is for a file (1 GB)."
    assert "ended the process (exit code -9): it crashes the decoder or memory ran out." in killed[1].reason
    assert used[1].outcome == USED and len(used[0]["frames"]) == 8


hoard = []


def hoarding(video: Video, *arguments, **options):
    """Takes 0.6 GB and does not give it back, as a library might that has a leak."""
    hoard.append(np.empty(600_000_000, np.uint8))
    return None, rejected(video, "test", "decoded")


def test_what_a_process_keeps_of_earlier_files_is_not_blamed_on_later_ones(monkeypatch):
    monkeypatch.setattr(decoding, "extract", hoarding)
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 5.0, "time_limit": 300.0}
    processes, video = DecodingProcesses(1, FRONTEND, **options, memory_limit=10**9), Video("a", "/a")
    try:
        found = [processes.finish(processes.start(video, "test"), video, "test")[1].reason for _ in range(2)]
    finally:
        processes.stop()
    assert found == ["decoded"] * 2


def test_what_has_been_stopped_starts_no_more_processes():
    process = decoding._Process(FRONTEND, 300.0, 10**9)
    before = multiprocessing.active_children()
    process.stop()
    with pytest.raises(DatasetError):
        process.run(print, (), {})
    assert process.is_new and multiprocessing.active_children() == before


def test_a_process_whose_results_nobody_wants_any_more_ends_quietly():
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=decoding._serve, args=(theirs, FRONTEND, 10**9))
    with theirs:
        process.start()
    assert ours.recv() == ""
    ours.send((bytes, (10**7,), {}))  # More than a pipe holds.
    assert ours.poll(300.0)
    ours.close()
    process.join()
    assert process.exitcode == 0


def failing_at(video: Video, reason: str) -> Future:
    future = Future()
    future.set_result((None, rejected(video, "test", reason)))
    return future


def test_files_that_all_fail_in_the_same_unforeseen_way_are_not_blamed():
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 5.0, "time_limit": 300.0}
    processes = DecodingProcesses(1, FRONTEND, **options, memory_limit=10**9)
    video, same = Video("a", "/a"), f"{UNEXPECTED}RuntimeError: no luck."
    reasons = [same] * (SAME_FAILURES - 1) + ["The file is empty."] * 100 + [f"{UNEXPECTED}OSError: x."]
    for reason in reasons + [same] * (SAME_FAILURES - 1):
        assert processes.finish(failing_at(video, reason), video, "test")[0] is None
    with pytest.raises(DatasetError, match="in a row fail in the same way.*RuntimeError: no luck. Repair"):
        processes.finish(failing_at(video, same), video, "test")
    # Where one can be used, the machine is not at fault.
    used = Future()
    used.set_result(({"video_id": "b"}, Outcome("b", "b", "test", "/b", (), USED, "")))
    assert processes.finish(used, video, "test")[0] == {"video_id": "b"}
    for _ in range(2 * SAME_FAILURES):
        assert processes.finish(failing_at(video, same), video, "test")[0] is None
    processes.stop()


def serve_without_librosa(*arguments):
    def fail(*_):
        raise RuntimeError("no locator available")

    decoding.log_mel = fail
    decoding._serve(*arguments)


def test_an_installation_that_cannot_decode_is_not_blamed_on_the_file(monkeypatch):
    monkeypatch.setattr(decoding, "_serve", serve_without_librosa)
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 5.0, "time_limit": 300.0}
    processes, video = DecodingProcesses(1, FRONTEND, **options, memory_limit=10**9), Video("a", "/a")
    try:
        with pytest.raises(DatasetError, match="cannot be decoded on this machine.*: RuntimeError: no locator avail"):
            processes.finish(processes.start(video, "test"), video, "test")
    finally:
        processes.stop()


def test_a_rejection_keeps_what_is_known():
    outcome = rejected(Video("a", "/x/a.mp4", ("dog",), "source"), "test", "It hangs.")
    assert (outcome.video_id, outcome.source_id, outcome.split, outcome.labels) == ("a", "source", "test", ("dog",))
    assert outcome.reason == "It hangs."
