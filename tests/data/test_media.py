import struct
from fractions import Fraction

import numpy as np
import pytest

from avshare_jax.data.frontend import FrontEnd, log_mel
from avshare_jax.data.media import MediaError, MissingStreamError, iterate_frames, read_audio


def read_frames(path, fps, short_side):
    return np.stack(list(iterate_frames(path, fps, short_side)))


def gray_frames(values, height=48, width=64):
    return np.broadcast_to(np.asarray(values, np.uint8)[:, None, None, None], (len(values), height, width, 3)).copy()


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_flash_and_click_land_at_the_same_time(tmp_path, encode, container, sample_rate):
    flash = 40  # of 16 frames per second: 2.5 s
    values = np.zeros(64)
    values[flash] = 255
    waveform = np.zeros(4 * sample_rate)
    click = round(2.5 * sample_rate)
    waveform[click : click + sample_rate // 100] = np.sin(np.arange(sample_rate // 100))
    path = encode(tmp_path / f"video.{container}", gray_frames(values), waveform, sample_rate=sample_rate)

    frames = read_frames(path, 16.0, 48)
    sound = read_audio(path, 16_000)
    assert len(frames) == 64
    assert np.argmax(frames.mean(axis=(1, 2, 3))) == flash
    loud = np.flatnonzero(np.abs(sound) > 0.5 * np.abs(sound).max())
    assert 2.495 < loud[0] / 16_000 < loud[-1] / 16_000 < 2.515
    frontend = FrontEnd(16.0, 48, 16_000, 500, 250, 40)
    assert abs(np.argmax(log_mel(sound, frontend).mean(axis=1)) - 2.5 * 64) <= 1


def test_sound_stays_in_place_when_the_picture_starts_late(tmp_path, encode):
    values = np.zeros(32)
    values[16] = 255  # 1 s after the first frame, which is shown at 0.5 s
    waveform = np.zeros(3 * 16_000)
    waveform[24_000:24_160] = 0.9
    path = encode(tmp_path / "late.mkv", gray_frames(values), waveform, video_start=0.5)
    frames = read_frames(path, 16.0, 48)
    assert np.argmax(frames.mean(axis=(1, 2, 3))) == 24
    assert len(frames) == 40
    assert abs(np.argmax(np.abs(read_audio(path, 16_000))) / 16_000 - 1.5) < 0.02


def test_sound_that_starts_late_is_silent_until_then(tmp_path, encode):
    waveform = np.zeros(2 * 16_000)
    waveform[16_000:16_160] = 0.9
    path = encode(tmp_path / "late.mkv", gray_frames(np.zeros(48)), waveform, audio_start=0.75)
    sound = read_audio(path, 16_000)
    assert abs(np.argmax(np.abs(sound)) / 16_000 - 1.75) < 0.02
    assert not sound[:10_000].any()


def test_time_starts_with_the_file_whatever_its_timestamps(tmp_path, encode):
    values = np.zeros(64)
    values[40] = 255
    waveform = np.zeros(64_000)
    waveform[40_000:40_160] = 0.9
    path = encode(tmp_path / "broadcast.ts", gray_frames(values), waveform, file_start=100.0)
    flash = np.argmax(read_frames(path, 16.0, 48).mean(axis=(1, 2, 3))) / 16
    click = np.argmax(np.abs(read_audio(path, 16_000))) / 16_000
    assert abs(flash - click) < 1 / 16
    assert click == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize("fps", [8, 16, 25, Fraction(30_000, 1_001), 60])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_frames_are_the_last_that_were_due(tmp_path, encode, fps, container):
    count = int(2 * fps)
    values = 20 + np.arange(count) * (200 // count)
    path = encode(tmp_path / f"ramp.{container}", gray_frames(values), None, fps=fps)
    frames = read_frames(path, 16.0, 48)
    # Containers round times, so a frame may be up to 2 ms late.
    due = np.floor((np.arange(len(frames)) / 16 + 0.002) * float(fps)).astype(int)
    assert abs(len(frames) - 32) <= 1
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), values[due], atol=1.5)


def test_sound_is_resampled_and_averaged_over_channels(tmp_path, encode):
    seconds = np.arange(2 * 44_100) / 44_100
    left = 0.8 * np.sin(2 * np.pi * 440 * seconds)
    path = encode(tmp_path / "stereo.m4a", None, np.stack([left, np.zeros_like(left)]), sample_rate=44_100)
    sound = read_audio(path, 16_000)
    assert sound.dtype == np.float32
    assert abs(len(sound) - 32_000) < 1_600
    middle = sound[8_000:24_000]  # one second: bin k of its spectrum is k Hz
    spectrum = np.abs(np.fft.rfft(middle)) / 8_000
    assert np.argmax(spectrum) == 440
    assert spectrum[440] == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize(("height", "width", "expected"), [(48, 64, (24, 32)), (64, 48, (32, 24)), (16, 40, (24, 60))])
def test_short_side_is_resized_and_proportions_kept(tmp_path, encode, height, width, expected):
    path = encode(tmp_path / "size.mp4", gray_frames([100, 100], height, width), None)
    assert read_frames(path, 16.0, 24).shape == (2, *expected, 3)


def test_rotation_metadata_is_honored(tmp_path, encode):
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    frames[:, :, :32] = (255, 0, 0)  # the left half is red
    path = encode(tmp_path / "phone.mp4", frames, None)
    # The track header's matrix maps (x, y) to (-y, x): a quarter turn clockwise, as telephones write it.
    content = path.read_bytes()
    matrix = content.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    path.write_bytes(content[:matrix] + turned + content[matrix + len(turned) :])

    upright = read_frames(path, 16.0, 32)
    assert upright.shape == (2, 64, 32, 3)
    assert upright[0, :28, :, 0].min() > 200  # turned clockwise, the left half is on top
    assert upright[0, 36:, :, 0].max() < 50


def test_missing_streams_and_unreadable_files_are_named(tmp_path, encode):
    silent = encode(tmp_path / "silent: ü.mp4", gray_frames([1, 2]), None)
    blind = encode(tmp_path / "blind.m4a", None, np.zeros(16_000))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video" * 100)
    assert len(read_frames(silent, 16.0, 48)) == 2
    with pytest.raises(MissingStreamError, match="silent.* has no audio stream"):
        read_audio(silent, 16_000)
    with pytest.raises(MissingStreamError, match="blind.* has no video stream"):
        read_frames(blind, 16.0, 48)
    for read in (lambda: read_frames(broken, 16.0, 48), lambda: read_audio(broken, 16_000)):
        with pytest.raises(MediaError, match="broken.mp4 cannot be decoded"):
            read()
