"""Decoding against what was encoded: which frame at which time, how large, how good, and where every sample lies."""

import contextlib
import gc
import struct
import weakref
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from avshare_jax.data import media
from avshare_jax.data.media import MediaError, read_audio, read_media
from tests.data.hostile import cut, moving_image, ordinary, sound, write

LOSSLESS = {"codec": "ffv1", "audio_codec": "pcm_s16le"}
"""Codecs that keep what they are given."""


def read(path, *, fps=16.0, short_side=48, sample_rate=16_000, jpeg_quality=95, max_seconds=60.0):
    return read_media(
        path,
        fps=fps,
        short_side=short_side,
        sample_rate=sample_rate,
        jpeg_quality=jpeg_quality,
        max_seconds=max_seconds,
    )


def read_frames(path, **options):
    return np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in read(path, **options).jpegs])


def gray_frames(values, height=48, width=64):
    return np.broadcast_to(np.asarray(values, np.uint8)[:, None, None, None], (len(values), height, width, 3)).copy()


# Image.


@pytest.mark.parametrize("fps", [8, 16, 25, Fraction(30_000, 1_001), 60])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_frames_are_the_last_that_were_due(tmp_path, fps, container):
    count = int(2 * fps)
    values = 20 + np.arange(count) * (200 // count)
    path = write(tmp_path / f"ramp.{container}", gray_frames(values), fps=fps, options={"preset": "medium"})
    frames = read_frames(path)
    # Containers round times, so a frame may be up to 2 ms late.
    due = np.floor((np.arange(len(frames)) / 16 + 0.002) * float(fps)).astype(int)
    assert abs(len(frames) - 32) <= 1
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), values[due], atol=1.5)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_frames_of_variable_rate_are_the_last_that_were_due(tmp_path, container):
    times = np.cumsum(np.random.default_rng(0).integers(3, 150, 50)) / 1_000
    times -= times[0]
    values = 20 + 4 * np.arange(50)
    path = write(tmp_path / f"video.{container}", gray_frames(values), times=times, options={"preset": "medium"})
    means = read_frames(path).mean(axis=(1, 2, 3))
    due = np.searchsorted(times, np.arange(len(means)) / 16 + 0.002, side="right") - 1
    np.testing.assert_allclose(means, values[due], atol=1.5)


@pytest.mark.parametrize("options", [{"preset": "medium"}, {"preset": "fast", "x264-params": "b-pyramid=none"}])
@pytest.mark.parametrize("fps", [8.0, 16.0])
def test_frames_that_the_decoder_leaves_out_make_no_difference(tmp_path, monkeypatch, options, fps):
    times = np.cumsum(np.random.default_rng(1).integers(5, 40, 120)) / 1_000
    path = write(tmp_path / "video.mkv", moving_image(7.5), times=times, options=options)
    left_out, prepare = [], media.Images.prepare

    def watched(self, packet):
        prepare(self, packet)
        left_out.append(self.stream.codec_context.skip_frame == "NONREF")

    monkeypatch.setattr(media.Images, "prepare", watched)
    saved = read(path, fps=fps).jpegs
    monkeypatch.setattr(media.Images, "prepare", lambda self, packet: None)
    assert read(path, fps=fps).jpegs == saved
    assert sum(left_out) > 10


def test_frame_shown_again_is_encoded_once(tmp_path):
    path = write(tmp_path / "slow.mp4", moving_image(2.0, fps=4), fps=4)
    jpegs = read(path).jpegs
    assert len(jpegs) == 32
    assert [jpeg is jpegs[index - index % 4] for index, jpeg in enumerate(jpegs)] == [True] * 32
    assert len({id(jpeg) for jpeg in jpegs}) == 8


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_with_frames_in_another_order_than_shown(tmp_path, codec):
    values = 20 + 4 * np.arange(50)
    path = write(tmp_path / "video.avi", gray_frames(values), codec=codec, options={"bf": "2", "b": "8M", "qmax": "2"})
    means = read_frames(path).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means[:50], values, atol=1.9)  # One frame is 4.


@pytest.mark.parametrize(("height", "width", "expected"), [(48, 64, (24, 32)), (64, 48, (32, 24)), (16, 40, (24, 60))])
def test_short_side_is_resized_and_proportions_kept(tmp_path, height, width, expected):
    path = write(tmp_path / "size.mp4", moving_image(1.0, width, height))
    found = read(path, short_side=24)
    assert simplejpeg.decode_jpeg(found.jpegs[0]).shape == (*expected, 3)
    assert (found.width, found.height) == (width, height)


@pytest.mark.parametrize("short_side", [23, 24, 33])
def test_odd_sizes(tmp_path, short_side):
    path = write(tmp_path / "odd.mkv", moving_image(1.0, 63, 47), codec="ffv1", pix_fmt="yuv444p")
    frames = read_frames(path, short_side=short_side)
    assert frames.shape == (16, short_side, round(short_side * 63 / 47), 3)
    reference = cv2.resize(moving_image(1.0, 63, 47)[5], frames.shape[2:0:-1], interpolation=cv2.INTER_AREA)
    assert np.abs(np.float32(reference) - frames[5]).mean() < 12


def test_rotation_metadata_is_honored(tmp_path):
    frames = np.zeros((16, 32, 64, 3), np.uint8)
    frames[:8, :, :32] = (255, 0, 0)  # the left half is red
    frames[8:, :, :32] = (0, 255, 0)
    path = write(tmp_path / "phone.mp4", frames)
    # The track header's matrix maps (x, y) to (-y, x): a quarter turn clockwise, as telephones write it.
    content = path.read_bytes()
    matrix = content.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    path.write_bytes(content[:matrix] + turned + content[matrix + len(turned) :])

    upright = read_frames(path, short_side=32)
    assert upright.shape == (16, 64, 32, 3)
    assert upright[0, :28, :, 0].min() > 200  # turned clockwise, the left half is on top
    assert upright[0, 36:, :, 0].max() < 50
    assert (read(path).width, read(path).height) == (32, 64)


def test_circle_of_pixels_that_are_not_square_is_round(tmp_path):
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    for index, frame in enumerate(frames):
        cv2.ellipse(frame, (32, 32), (10, 20), 0, 0, 360, (250 - 5 * index,) * 3, -1)

    def widen(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    upright = read_frames(write(tmp_path / "wide.mp4", frames, set_up=widen), short_side=64)[0]
    assert upright.shape == (64, 128, 3)
    white = upright[..., 0] > 128
    assert white.any(axis=0).sum() == pytest.approx(white.any(axis=1).sum(), abs=2)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv444p"])
@pytest.mark.parametrize("shade", [16, 100, 235])
def test_colors_are_right_in_every_format(tmp_path, pix_fmt, shade):
    frames = np.zeros((16, 48, 64, 3), np.uint8)
    frames[:] = (shade, 128, 255 - shade)
    frames[8:, :8, :8] = 255
    found = read_frames(write(tmp_path / "video.mkv", frames, pix_fmt=pix_fmt))
    np.testing.assert_allclose(found[:, 20:, 20:].mean(axis=(0, 1, 2)), (shade, 128, 255 - shade), atol=3)


def test_frames_are_as_good_as_exact_arithmetic_and_jpeg_allow(tmp_path):
    """Planes of 4:2:0 go straight to a small JPEG; the reference is RGB and mean in float64, then the same JPEG."""
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (640, 480))
    frames = np.stack([np.roll(image, 8 * index, axis=1) for index in range(4)])
    path = write(tmp_path / "video.mkv", frames, codec="ffv1")
    with av.open(path) as container:
        decoded = next(container.decode(video=0))
        planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in decoded.planes]
    luma = (planes[0][:480, :640].astype(np.float64) - 16) * 255 / 219
    blue, red = (
        cv2.resize((plane[:240, :320].astype(np.float64) - 128) * 255 / 224, (640, 480)) for plane in planes[1:]
    )
    exact = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
    exact = cv2.resize(np.clip(exact, 0, 255), (128, 96), interpolation=cv2.INTER_AREA)
    encoded = simplejpeg.encode_jpeg(np.uint8(np.round(exact)), quality=95, colorsubsampling="420")
    loss = np.abs(exact - simplejpeg.decode_jpeg(encoded)).mean()
    assert np.abs(exact - read_frames(path, short_side=96)[0]).mean() < 1.2 * loss + 0.5


@pytest.mark.parametrize("change", [0, 2, 30])
def test_image_is_still_unless_something_can_be_seen_to_change(tmp_path, change):
    frames = np.repeat(moving_image(1.0)[:1], 16, axis=0)
    frames[9, 10:20, 10:20] += np.uint8(change)
    path = write(tmp_path / "video.mkv", frames, sound(1.0), **LOSSLESS)
    assert bool(read(path).jpegs) == (change == 30)
    assert read(path).no_video.endswith("the image never changes (a still picture).") == (change != 30)


def test_color_alone_is_a_change(tmp_path):
    frames = np.zeros((16, 48, 64, 3), np.uint8)
    frames[:8], frames[8:] = (200, 0, 0), (0, 102, 0)  # The same luma.
    assert len(read_frames(write(tmp_path / "video.mkv", frames, codec="ffv1"))) == 16


# Sound.


def test_sound_at_the_rate_asked_for_is_untouched(tmp_path):
    path = write(tmp_path / "video.mp4", moving_image(), sound(channels=2), layout="stereo")
    with av.open(path) as container:
        chunks = [frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)]
    np.testing.assert_array_equal(read(path).waveform, np.concatenate(chunks))


def test_sound_is_resampled_and_averaged_over_channels(tmp_path):
    seconds = np.arange(2 * 44_100) / 44_100
    left = np.float32(0.8 * np.sin(2 * np.pi * 440 * seconds))
    path = write(tmp_path / "stereo.m4a", None, np.stack([left, np.zeros_like(left)]), rate=44_100, layout="stereo")
    found = read(path)
    assert (found.sample_rate, found.channels) == (44_100, 2)
    assert found.waveform.dtype == np.float32
    assert abs(len(found.waveform) - 32_000) < 1_600
    middle = found.waveform[8_000:24_000]  # one second: bin k of its spectrum is k Hz
    spectrum = np.abs(np.fft.rfft(middle)) / 8_000
    assert np.argmax(spectrum) == 440
    assert spectrum[440] == pytest.approx(0.4, rel=0.03)
    np.testing.assert_array_equal(read_audio(path, 16_000), found.waveform)


def test_long_sound_is_resampled_in_one_piece(tmp_path):
    waveform = sound(70.0)
    path = write(tmp_path / "long.wav", None, waveform, audio_codec="pcm_s16le")
    found = read_audio(path, 8_000)
    assert abs(len(found) - 560_000) <= 1
    seconds = np.arange(len(found)) / 8_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds) * (1 + np.sin(9 * seconds)) / 2
    assert np.abs(found - tone)[100:-100].max() < 0.12  # The noise is 0.02 on average.


@pytest.mark.parametrize(
    ("layout", "channels", "codec"),
    [("5.1", 6, "flac"), ("7.1", 8, "flac"), ("7.1", 8, "pcm_f32le"), ("hexadecagonal", 16, "pcm_s24le")],
)
def test_many_channels_are_averaged(tmp_path, layout, channels, codec):
    path = write(tmp_path / "sound.mkv", None, sound(channels=channels), audio_codec=codec, layout=layout)
    found = read(path)
    assert found.channels == channels
    np.testing.assert_allclose(found.waveform, sound(channels=channels).mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("encode_format", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f64le", "flac"])
def test_sample_formats(tmp_path, encode_format):
    path = write(tmp_path / "sound.mkv", None, sound(channels=2), audio_codec=encode_format, layout="stereo")
    np.testing.assert_allclose(read_audio(path, 16_000), sound(channels=2).mean(axis=0), atol=0.01)


@pytest.mark.parametrize(("shift", "expected"), [(0.5, 8_000), (0.03, 0), (-0.02, 0)])
def test_sound_lies_where_its_time_stamps_say(tmp_path, shift, expected):
    """What comes after 1 s is late by 0.5 s, or by so little that the time stamps may be rounded."""
    waveform = sound(2.0)
    times = lambda seconds: seconds + shift * (seconds >= 1.0)  # noqa: E731
    path = write(tmp_path / "sound.mkv", None, waveform, audio_codec="pcm_s16le", audio_times=times)
    found = read_audio(path, 16_000)
    assert len(found) == 32_000 + expected
    np.testing.assert_allclose(found[:16_000], waveform[0, :16_000], atol=1e-4)
    assert not found[16_000 : 16_000 + expected].any()
    np.testing.assert_allclose(found[16_000 + expected :], waveform[0, 16_000:], atol=1e-4)


def test_sound_that_overlaps_is_left_out(tmp_path):
    path = ordinary(tmp_path, "video.ts")
    once = read(path)
    path.write_bytes(path.read_bytes() * 2)
    twice = read(path)
    assert twice.notes == ("Of the sound, 2.1 s overlap and are left out.",)
    np.testing.assert_array_equal(twice.waveform[: len(once.waveform)], once.waveform)
    assert len(twice.waveform) - len(once.waveform) <= 0.05 * 16_000
    assert twice.jpegs[:-1] == once.jpegs[:-1] and len(twice.jpegs) == len(once.jpegs)


def test_sound_that_starts_late_is_silent_until_then(tmp_path):
    path = write(
        tmp_path / "late.mkv", moving_image(), sound(1.0), audio_times=lambda seconds: seconds + 0.75, **LOSSLESS
    )
    found = read(path)
    assert not found.waveform[:12_000].any()
    np.testing.assert_allclose(found.waveform[12_000:], sound(1.0)[0], atol=1e-4)
    assert "The sound starts 0.75 s late." in found.notes


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_samples_that_are_not_numbers_are_silenced(tmp_path, value):
    waveform = sound()
    waveform[0, 160:480] = value
    path = write(tmp_path / "video.mkv", moving_image(), waveform, codec="ffv1", audio_codec="pcm_f32le")
    found = read(path)
    assert not found.waveform[160:480].any()
    np.testing.assert_array_equal(found.waveform[480:], waveform[0, 480:])
    assert found.notes == ("Of the sound, 1.0% of the samples are not numbers and silenced.",)


def test_share_of_silence_is_noted(tmp_path):
    waveform = sound()
    waveform[0, 8_000:24_000] = 1 / 32_768  # A constant is as silent as zero.
    found = read(write(tmp_path / "video.mkv", moving_image(), waveform, **LOSSLESS))
    assert found.notes == ("The sound is silent for 50% of its time.",)


STEREO = {"layout": "stereo", "audio_codec": "pcm_s16le"}


def antiphase(seconds=2.0, gains=(1, -1), noise=0.0):
    """A waveform (channels, N): one sound with a gain for each channel, and noise of its own in each."""
    one = sound(seconds)[0]
    own = np.random.default_rng(7).standard_normal((len(gains), len(one)))
    return np.float32(np.outer(gains, one) + noise * own)


@pytest.mark.parametrize(
    ("name", "gains", "layout", "codec", "used"),
    [
        ("sound.wav", (0.7, -0.7), "stereo", "pcm_s16le", 0),
        ("sound.mkv", (-0.7, 0.75), "stereo", "pcm_f32le", 1),
        ("sound.m4a", (0.7, -0.7), "stereo", "aac", 0),
        ("sound.mp3", (0.7, -0.7), "stereo", "libmp3lame", 0),
        ("sound.mkv", (0.6, -0.7, 0.01, 0, 0, 0), "5.1", "flac", 1),
        ("sound.mkv", (0.5, -0.6, 0, 0, 0, 0, 0.7, -0.6), "7.1", "flac", 6),
    ],
)
def test_channels_that_cancel_each_other_out_are_not_averaged(tmp_path, name, gains, layout, codec, used):
    waveform = antiphase(gains=gains)
    path = write(tmp_path / name, None, waveform, audio_codec=codec, layout=layout)
    found = read(path)
    assert found.no_audio == "" and found.channels == len(gains)
    assert found.notes == (
        f"The channels of the sound cancel each other out: channel {used + 1} of {len(gains)}, the loudest, is used "
        "instead of their mean.",
    )
    np.testing.assert_array_equal(read_audio(path, 16_000), found.waveform)
    if codec in ("aac", "libmp3lame"):
        assert np.square(found.waveform).mean() == pytest.approx(np.square(waveform[used]).mean(), rel=0.15)
    else:
        np.testing.assert_allclose(found.waveform, waveform[used], atol=1e-4)


@pytest.mark.parametrize(
    ("gains", "noise"),
    [
        ((1, 1), 0.0),
        ((0.7, 0), 0.0),
        ((0.7, 0, 0, 0, 0, 0), 0.0),  # Only one of six speaks: the mean is 16 dB lower, and nothing is lost.
        ((0, 0), 0.1),  # Nothing in common.
        ((0.5, -0.5), 0.08),  # Correlated by -0.7: a wide recording.
        ((1, -0.5), 0.0),
    ],
)
def test_channels_that_differ_are_averaged(tmp_path, gains, noise):
    waveform = antiphase(gains=gains, noise=noise)
    layout = "stereo" if len(gains) == 2 else "5.1"
    found = read(write(tmp_path / "sound.mkv", None, waveform, audio_codec="pcm_f32le", layout=layout))
    assert found.notes == ()
    np.testing.assert_allclose(found.waveform, waveform.mean(axis=0), atol=1e-6)


def test_whether_channels_cancel_is_decided_by_the_whole_file(tmp_path):
    half = antiphase()
    half[1, 15_360:] *= -1  # FFmpeg's frames of 2,048 samples are the smallest parts.
    found = read(write(tmp_path / "half.wav", None, half, **STEREO))
    np.testing.assert_allclose(found.waveform, half.mean(axis=0), atol=1e-4)
    assert found.notes[0] == "For 48% of the sound's time, its channels cancel each other out."
    silent = antiphase()
    silent[:, 8_000:] = 0
    found = read(write(tmp_path / "silent.wav", None, silent, **STEREO))
    np.testing.assert_allclose(found.waveform, silent[0], atol=1e-4)
    assert "cancel" in found.notes[0] and found.notes[1] == "The sound is silent for 75% of its time."


def test_silence_in_all_channels_is_silence(tmp_path):
    dither = np.resize(np.float32([1, -1]) / 32_768, (1, 32_000))
    path = write(tmp_path / "sound.wav", None, np.concatenate([dither, -dither]), **STEREO)
    with pytest.raises(MediaError, match="it is digital silence"):
        read(path)


def test_damaged_samples_do_not_decide_which_channels_cancel(tmp_path):
    waveform = antiphase()
    waveform[0, 100], waveform[1, 3_000] = 1e30, np.nan
    path = write(tmp_path / "sound.mkv", None, waveform, audio_codec="pcm_f32le", layout="stereo")
    found = read(path)
    assert "cancel" in found.notes[0]
    np.testing.assert_array_equal(found.waveform[3_200:], waveform[0, 3_200:])


# Both.


def slides(path, times, seconds_of_sound=None):
    """Writes a picture that changes at some times, and sound."""
    waveform = None if seconds_of_sound is None else np.resize(sound(1.0, 8_000), (1, int(seconds_of_sound * 8_000)))
    audio_codec = "pcm_s16le" if path.suffix == ".mkv" else "aac"
    frames = moving_image(len(times) / 16)
    return write(path, frames, waveform, times=times, audio_codec=audio_codec, rate=8_000)


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("video.mkv", (0, 75, 76)),
        ("video.mp4", (0, 75, 76)),
        ("video.mkv", (0, 1, 2, 77, 78)),
        ("video.mkv", (70, 71)),
        ("video.mkv", (0, 700)),
    ],
)
def test_picture_that_stands_still_while_the_sound_goes_on(tmp_path, name, times):
    found = read(slides(tmp_path / name, times, times[-1] + 2), fps=1.0, max_seconds=900)
    assert found.no_video == ""
    assert times[-1] <= len(found.jpegs) <= times[-1] + 3
    changes = [second for second in range(1, len(found.jpegs)) if found.jpegs[second] is not found.jpegs[second - 1]]
    assert changes == [time for time in times[1:] if time]


@pytest.mark.parametrize("name", ["video.mkv", "video.mp4"])
@pytest.mark.parametrize(
    ("times", "used"), [((0, 75, 76), True), ((0, 400, 401), True), ((0, 1, 3_601), False)], ids=str
)
def test_pause_of_a_silent_picture_is_believed_up_to_ten_minutes(tmp_path, name, times, used):
    path = slides(tmp_path / name, times)
    if used:
        assert len(read(path, fps=1.0, max_seconds=900).jpegs) >= times[-1]
    else:
        with pytest.raises(MediaError, match="its time stamps jump by"):
            read(path, fps=1.0, max_seconds=900)


@pytest.mark.parametrize("jump", [90, 500, 3_600])
def test_jump_of_one_stream_that_the_other_does_not_bear_out(tmp_path, jump):
    times = np.arange(32) / 16
    image = write(tmp_path / "a.mkv", moving_image(), sound(), times=times + jump * (times >= 1), audio_codec="flac")
    found = read(image, max_seconds=900)
    assert found.no_video == f"The video stream is not usable: its time stamps jump by {jump} s at 1.0 s."
    assert len(found.waveform) == 32_000
    both = write(
        tmp_path / "b.mkv",
        moving_image(),
        sound(),
        times=times + jump * (times >= 1),
        audio_times=lambda seconds: seconds + jump * (seconds >= 1),
        audio_codec="pcm_s16le",
    )
    with pytest.raises(MediaError, match=f"video stream .* jump by {jump} s .* audio stream .* jump by {jump} s"):
        read(both, max_seconds=900)


def test_sound_that_pauses_while_the_image_goes_on(tmp_path):
    late = lambda seconds: seconds + 80 * (seconds >= 1)  # noqa: E731
    image = moving_image(90.0, fps=1)
    path = write(tmp_path / "video.mkv", image, sound(), fps=1, audio_codec="pcm_s16le", audio_times=late)
    found = read(path, fps=1.0)
    assert found.no_audio == "" and len(found.waveform) == 60 * 16_000
    assert not found.waveform[17_000:].any()
    found = read(path, fps=1.0, max_seconds=100)
    np.testing.assert_allclose(found.waveform[81 * 16_000 :][:16_000], sound()[0, 16_000:], atol=1e-4)
    assert "The sound has gaps, 80.0 s in all." in found.notes


def test_last_frame_may_last_long(tmp_path):
    """Of a packet's duration, mp4 keeps what is given with the last frame."""
    path = tmp_path / "video.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for number, image in enumerate(moving_image(1.0)[:3]):
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = number, Fraction(1)
            packets += stream.encode(frame)
        packets += stream.encode()
        packets[-1].duration = round(75 / packets[-1].time_base)
        container.mux(packets)
    assert len(read(path, fps=1.0, max_seconds=900).jpegs) == 77


def test_what_comes_after_the_longest_duration_is_left_out(tmp_path):
    path = ordinary(tmp_path)
    found = read(path, max_seconds=1.25)
    assert len(found.jpegs) == 20
    assert len(found.waveform) == 20_000
    np.testing.assert_array_equal(found.waveform, read(path).waveform[:20_000])
    assert found.jpegs == read(path).jpegs[:20]
    assert found.notes == (
        "Of the image, only the first 1.25 s are used.",
        "Of the sound, only the first 1.25 s are used.",
    )
    assert not read(path, max_seconds=2.1).notes


def test_time_starts_with_the_file_whatever_its_timestamps(tmp_path):
    early, late = (
        read(ordinary(tmp_path, f"{start}.ts", container_options={"output_ts_offset": start})) for start in ("0", "100")
    )
    assert late.jpegs == early.jpegs
    np.testing.assert_array_equal(late.waveform, early.waveform)


def test_missing_streams_say_why(tmp_path):
    mute = read(write(tmp_path / "mute.mp4", moving_image()))
    assert (mute.no_video, mute.no_audio, len(mute.waveform)) == ("", "There is no audio stream.", 0)
    assert (mute.sample_rate, mute.channels) == (0, 0)
    blind = read(write(tmp_path / "blind.m4a", None, sound()))
    assert (blind.no_audio, blind.no_video, blind.jpegs) == ("", "There is no video stream.", [])
    assert (blind.width, blind.height, blind.fps) == (0, 0, 0)
    with pytest.raises(MediaError, match=r"mute\.mp4 cannot be used\. There is no audio stream\."):
        read_audio(tmp_path / "mute.mp4", 16_000)


def test_files_that_give_nothing_are_named(tmp_path):
    broken = tmp_path / "broken: ü.mp4"
    broken.write_bytes(b"not a video" * 100)
    with pytest.raises(MediaError, match=r"broken: ü\.mp4 cannot be used\. The file cannot be read") as error:
        read(broken)
    assert error.value.reason == "The file cannot be read: Invalid data found when processing input."


def test_streams_that_appear_in_mid_file_do_no_harm(tmp_path, monkeypatch):
    """PyAV raises an IndexError at the end of files with such streams; where they come is up to the broadcaster."""
    path, opened = ordinary(tmp_path), media._opened
    expected = read(path)

    class Container:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def demux(self, *streams):
            yield from (packet for packet in self.container.demux(*streams) if packet.size)
            raise IndexError("list index out of range")

    @contextlib.contextmanager
    def stumbling(path):
        with opened(path) as container:
            yield Container(container)

    monkeypatch.setattr(media, "_opened", stumbling)
    found = read(path)
    assert found.jpegs == expected.jpegs and found.notes == ()
    np.testing.assert_array_equal(found.waveform, expected.waveform)


def test_no_cut_of_a_file_is_more_than_an_error(tmp_path):
    """Whatever is left of a file, it is decoded or refused."""
    for container in ("mkv", "ts", "avi"):
        whole = ordinary(tmp_path, f"video.{container}", **({"codec": "mpeg4"} if container == "avi" else {}))
        content, durations = whole.read_bytes(), []
        for share in np.linspace(0.02, 0.98, 9):
            whole.write_bytes(content)
            try:
                durations.append(len(read(cut(whole, share)).jpegs))
            except MediaError:
                durations.append(0)
        assert durations[-1] >= 25 and np.diff(durations).min() >= 0, durations


def test_a_decoder_and_its_frames_are_freed_before_the_sound_is_made(tmp_path, monkeypatch):
    """At once, not when Python comes to look for circles: large pictures of one file would add to those of the next."""
    path = write(tmp_path / "video.mp4", moving_image(1.0), sound())
    found, finish = [], media.Sound.finish

    def finish_sound(self):
        found.append(weakref.ref(self.beside))
        assert self.beside.present and self.beside.stream is None and self.beside.beside is None
        return finish(self)

    monkeypatch.setattr(media.Sound, "finish", finish_sound)
    gc.disable()
    try:
        assert read_media(path, fps=8, short_side=32, sample_rate=8_000, jpeg_quality=90, max_seconds=9.0).jpegs
        assert found[0]() is None
    finally:
        gc.enable()
