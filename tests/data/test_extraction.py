"""What becomes of every kind of file in the corpus, and whether image and sound stay together."""

import errno
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from avshare_jax.data import extraction, images, media
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.extraction import extract
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.names import printable
from avshare_jax.data.outcomes import NO_AUDIO, NO_VIDEO, OUTCOMES, REJECTED, USED
from avshare_jax.data.sources.listing import Video
from tests.data import hostile
from tests.data.hostile import CORPUS, MAX_SECONDS, MIN_SECONDS, Kind, moving_image, sound, write

FRONTEND = FrontEnd(fps=8.0, short_side=32, sample_rate=16_000, n_fft=400, hop_length=200, mels=16)
SYNCHRONY = FrontEnd(fps=16.0, short_side=32, sample_rate=16_000, n_fft=256, hop_length=125, mels=16)


def extract_file(path, frontend=FRONTEND, *, min_seconds=MIN_SECONDS, max_seconds=MAX_SECONDS):
    video = Video("some id", str(path), ("dog", "cat"), "some source")
    return extract(video, "train", frontend, jpeg_quality=90, min_seconds=min_seconds, max_seconds=max_seconds)


@pytest.mark.parametrize("kind", CORPUS, ids=lambda kind: kind.name)
def test_every_kind_of_file_has_its_outcome(tmp_path, kind: Kind):
    path = kind.make(tmp_path)
    record, outcome = extract_file(path)
    assert (outcome.video_id, outcome.source_id, outcome.path) == ("some id", "some source", printable(str(path)))
    assert outcome.outcome == kind.outcome, outcome
    said = [outcome.reason, *outcome.notes] if outcome.reason else outcome.notes
    assert kind.says in " ".join(said) if kind.says else not said, said
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in said)
    assert bool(outcome.reason) == (kind.outcome != USED)
    if kind.outcome == REJECTED:
        assert record is None
        return
    assert outcome.seconds == pytest.approx(kind.seconds, abs=0.2)
    check_frames(record, outcome, kind)
    check_sound(record, outcome, kind)


def check_frames(record, outcome, kind):
    """Frames are of one size and change, or there are none, and the outcome says so."""
    assert record["has_video"] == (kind.outcome != NO_VIDEO) == bool(record["frames"]) == (outcome.fps > 0)
    frames = [simplejpeg.decode_jpeg(jpeg) for jpeg in record["frames"]]
    if frames:
        assert {frame.shape for frame in frames} == {(*kind.size[::-1], 3)}
        assert len(frames) <= outcome.seconds * FRONTEND.fps + 1
        assert np.ptp(np.float32(frames), axis=0).max() > 50
        portrait = outcome.width < outcome.height
        assert portrait == (kind.size[0] < kind.size[1])


def check_sound(record, outcome, kind):
    """Spectrograms are finite and change, or there are none, and the outcome says so."""
    assert record["has_audio"] == (kind.outcome != NO_AUDIO) == bool(len(record["log_mel"]))
    assert record["has_audio"] == (outcome.sample_rate > 0) == (outcome.channels > 0)
    assert record["log_mel"].shape[1:] == (FRONTEND.mels,) and record["log_mel"].dtype == np.float32
    if record["has_audio"]:
        assert np.isfinite(record["log_mel"]).all()
        assert record["log_mel"].std(axis=0)[: FRONTEND.mels // 2].min() > 0.1  # Some sound has no high tones.
        assert len(record["log_mel"]) <= outcome.seconds * 80 + 1
        assert -60 < outcome.loudness < 0
    else:
        assert outcome.loudness is None


def test_corpus_is_broad():
    assert len({kind.name for kind in CORPUS}) == len(CORPUS) >= 60
    assert {kind.outcome for kind in CORPUS} == {USED, NO_AUDIO, NO_VIDEO, REJECTED} == set(OUTCOMES) - {"missing"}


def test_document_lists_the_corpus():
    document = Path(__file__).parents[2] / "docs" / "hostile_media.md"
    assert document.read_text() == hostile.document()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_rejected(tmp_path):
    path = hostile.ordinary(tmp_path)
    path.chmod(0)
    record, outcome = extract_file(path)
    assert record is None
    assert outcome.reason == "The file cannot be read: Permission denied."


@pytest.mark.parametrize("error", [RuntimeError("no luck"), OSError(28, "No space left")])
def test_whatever_a_decoder_raises_is_a_rejection(tmp_path, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(extraction, "read_media", fail)
    record, outcome = extract_file(tmp_path / "video.mp4")
    assert record is None and outcome.outcome == REJECTED
    assert outcome.reason == f"Decoding failed: {type(error).__name__}: {error}."


@pytest.mark.parametrize("error", [MemoryError("too large"), av.error.MemoryError(12, "Cannot allocate memory")])
def test_lack_of_memory_is_no_damage(tmp_path, monkeypatch, error):
    """Neither in a packet nor in the whole file, whoever says it."""
    path = write(tmp_path / "video.mp4", moving_image(1.0), sound())

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(images.Images, "_encode", fail)
    with pytest.raises(MemoryError):
        extract_file(path)


def test_lack_of_file_descriptors_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "video.mp4", moving_image(1.0))

    def fail(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(media.av, "open", fail)
    with pytest.raises(DatasetError, match="Too many files are open"):
        extract_file(path)


def test_records_have_a_largest_size(tmp_path):
    video = Video("some id", str(write(tmp_path / "video.mp4", moving_image(1.0), sound())))
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": 4.0}
    record, _ = extract(video, "train", FRONTEND, **options)
    size = sum(map(len, record["frames"])) + record["log_mel"].nbytes
    record, outcome = extract(video, "train", FRONTEND, **options, max_bytes=2 * size)
    assert record is not None, outcome
    record, outcome = extract(video, "train", FRONTEND, **options, max_bytes=size // 2)
    assert (
        record is None
        and outcome.outcome == REJECTED
        and "MB are the most, an eighth of --memory_limit." in outcome.reason
    )


def test_record_holds_what_is_known_about_the_video(tmp_path):
    record, outcome = extract_file(write(tmp_path / "video.mp4", moving_image(2.0, 96, 64), sound()))
    assert set(record) == {"video_id", "source_id", "frames", "log_mel", "has_video", "has_audio", "labels"}
    assert record["labels"] == outcome.labels == ("dog", "cat")
    assert (record["video_id"], record["source_id"], outcome.split) == ("some id", "some source", "train")
    assert (outcome.width, outcome.height, outcome.fps) == (96, 64, pytest.approx(16))
    assert (outcome.sample_rate, outcome.channels) == (16_000, 1)
    assert len(record["frames"]) == 16
    assert len(record["log_mel"]) == pytest.approx(160, abs=6)


def test_loudness_is_relative_to_full_scale(tmp_path):
    seconds = np.arange(32_000) / 16_000
    sine = np.float32(0.1 * np.sin(2 * np.pi * 440 * seconds))[None]
    _, outcome = extract_file(write(tmp_path / "sound.wav", None, sine, audio_codec="pcm_s16le"))
    assert outcome.loudness == pytest.approx(-23.01, abs=0.02)


@pytest.mark.parametrize(("seconds", "outcome"), [(1.0, NO_AUDIO), (0.9375, REJECTED)])
def test_shortest_duration(tmp_path, seconds, outcome):
    frontend = FrontEnd(16.0, 32, 16_000, 400, 200, 16)
    assert extract_file(write(tmp_path / "video.mp4", moving_image(seconds)), frontend)[1].outcome == outcome


def test_worker_processes_start_without_tensorflow_and_jax():
    assert pickle.loads(pickle.dumps(extract)) is extract
    code = "import sys, avshare_jax.data.extraction; print({'tensorflow', 'jax'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


VARIABLE = "variable"


@pytest.mark.parametrize(
    ("name", "fps", "codecs", "starts"),
    [
        *(("video.mp4", fps, ("libx264", "aac"), (0, 0, 0)) for fps in (10, 24, 25, Fraction(30_000, 1_001), 30, 60)),
        *(("video.mkv", fps, ("libx264", "aac"), (0, 0, 0)) for fps in (10, Fraction(30_000, 1_001), 60)),
        *((f"video.{suffix}", VARIABLE, ("libx264", "aac"), (0, 0, 0)) for suffix in ("mp4", "mkv", "mov")),
        ("video.mp4", 30, ("libx265", "libmp3lame"), (0, 0, 0)),
        ("video.mov", 24, ("mjpeg", "pcm_s16le"), (0, 0, 0)),
        ("video.mov", 25, ("libx264", "aac"), (0.4, 0, 0)),
        ("video.webm", 30, ("libvpx", "libopus"), (0, 0, 0)),
        ("video.webm", 25, ("libvpx-vp9", "libopus"), (0, 0.4, 0)),
        ("video.avi", 25, ("mpeg4", "pcm_s16le"), (0, 0, 0)),
        ("video.avi", Fraction(30_000, 1_001), ("libx264", "pcm_s16le"), (0, 0, 0)),
        ("video.mp4", 30, ("libx264", "aac"), (0.6, 0, 0)),
        ("video.mp4", 30, ("libx264", "aac"), (0, 0.7, 0)),
        ("video.mkv", 25, ("libx264", "aac"), (0.6, 0, 3)),
        ("video.mkv", 25, ("libx264", "pcm_s16le"), (0, 0.7, 0)),
        ("video.ts", 25, ("libx264", "aac"), (0, 0, 100)),
        ("video.ts", 30, ("libx264", "aac"), (0.6, 0, 2**33 / 90_000 - 1)),
    ],
)
def test_flash_and_click_stay_together(tmp_path, name, fps, codecs, starts):
    video_start, audio_start, file_start = starts
    times = video_start + frame_times(fps)
    flash = np.argmax(times >= 1.55)
    frames = np.full((len(times), 48, 64, 3), 30, np.uint8)
    frames[flash : flash + max(1, int(np.sum((times >= times[flash]) & (times < times[flash] + 0.15))))] = 250
    path = write(
        tmp_path / name,
        frames,
        click(times[flash] - audio_start),
        fps=30 if fps == VARIABLE else fps,
        times=times if fps == VARIABLE or video_start else None,
        codec=codecs[0],
        pix_fmt="yuvj420p" if codecs[0] == "mjpeg" else "yuv420p",
        options={"bf": "2"}
        if codecs[0] == "libx264"
        else {"x265-params": "log-level=none"}
        if "265" in codecs[0]
        else {},
        audio_codec=codecs[1],
        rate=48_000,
        audio_times=lambda seconds: seconds + audio_start,
        container_options={"output_ts_offset": str(file_start)},
    )
    record, outcome = extract_file(path, SYNCHRONY)
    assert outcome.outcome == USED, outcome
    brightness = np.array([simplejpeg.decode_jpeg(jpeg).mean() for jpeg in record["frames"]])
    seen = np.argmax(brightness > 140) / SYNCHRONY.fps
    loud = record["log_mel"].max(axis=1)
    heard = np.argmax(loud > (loud.max() + np.median(loud)) / 2) * SYNCHRONY.hop_length / SYNCHRONY.sample_rate
    assert abs(seen - heard) <= 1 / SYNCHRONY.fps
    assert seen == pytest.approx(times[flash], abs=1 / SYNCHRONY.fps + 0.003)
    assert int(seen) == int(heard) == int(times[flash]) == 1


def frame_times(fps) -> np.ndarray:
    """Seconds of the frames of a video of about 2.5 s."""
    if fps == VARIABLE:
        times = np.cumsum(np.random.default_rng(0).integers(8, 60, 70)) / 1_000
        return times - times[0]
    return np.arange(int(2.5 * fps)) / float(fps)


def click(at: float, rate: int = 48_000) -> np.ndarray:
    """A waveform (1, N) of 3 s: faint noise, and a click."""
    waveform = 0.001 * np.random.default_rng(0).standard_normal(3 * rate)
    place = round(at * rate)
    waveform[place : place + rate // 50] += 0.8 * np.sin(np.arange(rate // 50) * 0.3)
    return np.float32(waveform)[None]
