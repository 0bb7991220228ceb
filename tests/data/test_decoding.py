"""Decoding in child processes: records and outcomes of good and bad files; hanging ones are in test_building.py."""

import numpy as np

from avshare_jax.data.decoding import DecodingProcesses, rejected
from avshare_jax.data.extraction import extract
from avshare_jax.data.outcomes import REJECTED, USED
from avshare_jax.data.sources.listing import Video
from tests.data.test_building import FRONTEND, write_video


def test_files_are_decoded_as_in_this_process(tmp_path):
    write_video(tmp_path / "a.mp4", 0)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 5.0}
    videos = [Video(name, str(tmp_path / name), ("dog",)) for name in ("a.mp4", "bad.mp4")]
    processes = DecodingProcesses(1, FRONTEND, **options, time_limit=60.0, memory_limit=2**30)
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


def test_a_rejection_keeps_what_is_known():
    outcome = rejected(Video("a", "/x/a.mp4", ("dog",), "source"), "test", "It hangs.")
    assert (outcome.video_id, outcome.source_id, outcome.split, outcome.labels) == ("a", "source", "test", ("dog",))
    assert outcome.reason == "It hangs."
