import numpy as np
import pytest
import simplejpeg

from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.media import MediaError
from avshare_jax.data.records import Video, make_record

FRONTEND = FrontEnd(fps=8.0, short_side=16, sample_rate=8_000, n_fft=200, hop_length=100, mels=8)


def gray_video(count=16):
    return np.full((count, 32, 48, 3), 100, np.uint8)


def test_record_of_a_video_with_sound(tmp_path, encode):
    path = encode(tmp_path / "video.mp4", gray_video(), 0.1 * np.ones(16_000))
    record = make_record(Video("some id", str(path), "dog"), FRONTEND, jpeg_quality=90)
    assert (record["video_id"], record["label"], record["has_video"], record["has_audio"]) == (
        "some id",
        "dog",
        True,
        True,
    )
    assert len(record["frames"]) == 8  # one second
    np.testing.assert_allclose(simplejpeg.decode_jpeg(record["frames"][0]), np.full((16, 24, 3), 100), atol=4)
    assert record["log_mel"].dtype == np.float32 and 80 <= len(record["log_mel"]) <= 90
    coarse = make_record(Video("some id", str(path)), FRONTEND, jpeg_quality=10)
    assert sum(map(len, coarse["frames"])) < sum(map(len, record["frames"]))


def test_missing_modalities_are_flagged(tmp_path, encode):
    silent = make_record(Video("a", str(encode(tmp_path / "a.mp4", gray_video(), None))), FRONTEND, 90)
    assert (silent["has_video"], silent["has_audio"], silent["log_mel"].shape) == (True, False, (0, 8))
    blind = make_record(Video("b", str(encode(tmp_path / "b.m4a", None, np.zeros(16_000)))), FRONTEND, 90)
    assert (blind["has_video"], blind["has_audio"], blind["frames"]) == (False, True, [])


def test_file_with_neither_is_refused(tmp_path):
    (tmp_path / "subtitles.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    with pytest.raises(MediaError, match="has neither video nor audio"):
        make_record(Video("c", str(tmp_path / "subtitles.srt")), FRONTEND, 90)
