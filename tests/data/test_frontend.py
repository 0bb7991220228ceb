"""Spectrograms against their definition in float64, and front ends by name."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from avshare_jax.data import demo
from avshare_jax.data import frontend as frontend_module
from avshare_jax.data.dataset import DatasetError, check_frontend, open_dataset
from avshare_jax.data.frontend import LOG_FLOOR, PRESETS, FrontEnd, log_mel, released_frontend
from avshare_jax.data.media import read_audio
from avshare_jax.data.records import Contents, write_dataset


def reference_log_mel(waveform: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """The spectrogram from its definition, in float64: frames, Fourier transform, triangles on the mel scale."""
    size, hop, length = frontend.n_fft, frontend.hop_length, frontend.win_length or frontend.n_fft
    padded = np.pad(waveform.astype(np.float64), size // 2, mode="reflect")
    starts = hop * np.arange(1 + len(waveform) // hop)
    window = np.zeros(size)
    window[(size - length) // 2 :][:length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    power = np.abs(np.fft.rfft(padded[starts[:, None] + np.arange(size)] * window)) ** 2

    highest = 2595 * np.log10(1 + frontend.sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, frontend.mels + 2) / 2595) - 1)
    hertz = np.arange(size // 2 + 1) * frontend.sample_rate / size
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.log(1e-6 + power @ triangles.T)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Two channels (2, 132300) at 44.1 kHz: impacts of a bell, and a chord with hiss that stops after 2 s."""
    impacts = [demo.Impact(0.3, 0.9), demo.Impact(1.1, 0.4), demo.Impact(2.2, 0.7)]
    bell, chord = (
        demo.synthesize(np.random.default_rng(seed), timbre, pitch, impacts)
        for seed, (timbre, pitch) in enumerate([("bell", 800.0), ("chord", 300.0)])
    )
    channels = np.stack([bell, chord])[:, : 3 * 44_100]
    channels[1, 2 * 44_100 :] = 0
    return channels


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", ["noise", "encoded sound"])
def test_log_mel_follows_its_definition(tmp_path, encode, sound, preset, kind):
    frontend = PRESETS[preset]
    if kind == "noise":
        waveform = 0.1 * np.random.default_rng(0).standard_normal(frontend.sample_rate + 17).astype(np.float32)
    else:
        waveform = read_audio(encode(tmp_path / "sound.m4a", None, sound, sample_rate=44_100), frontend.sample_rate)
        assert len(waveform) > 2.9 * frontend.sample_rate and np.abs(waveform).max() > 0.1
    computed, expected = log_mel(waveform, frontend), reference_log_mel(waveform, frontend)
    assert computed.dtype == np.float32
    assert computed.shape == (1 + len(waveform) // frontend.hop_length, frontend.mels)
    assert np.ptp(expected) > 5  # There is something to compare.
    np.testing.assert_allclose(computed, expected, atol=5e-6)


@pytest.mark.parametrize("preset", ["avbert", "16khz"])
def test_tone_has_the_power_that_theory_gives_it(preset):
    frontend = PRESETS[preset]
    frequency = 100 * frontend.sample_rate / frontend.n_fft  # Exactly one of the spectrum's frequencies.
    waveform = 0.5 * np.sin(2 * np.pi * frequency * np.arange(frontend.sample_rate) / frontend.sample_rate)
    row = np.exp(log_mel(waveform.astype(np.float32), frontend)[50].astype(np.float64))
    # The triangles of all bands add up to one, and by Parseval's theorem the energy of the windowed tone is
    # n_fft times the sum of squares of the samples; half of it lies at negative frequencies.
    length = frontend.win_length or frontend.n_fft
    squares = 0.5**2 / 2 * (3 / 8) * length
    assert row.sum() == pytest.approx(frontend.n_fft * squares / 2, rel=0.01)
    centers = 700 * (10 ** (np.linspace(0, np.log10(1 + frontend.sample_rate / 1400), frontend.mels + 2)) - 1)[1:-1]
    assert np.argmax(row) == np.argmin(np.abs(centers - frequency))


@pytest.mark.parametrize(
    ("clip_samples", "n_fft", "hop_length"), [(94_080, 1472, 736), (88_200, 1380, 690), (44_100, 690, 345)]
)
def test_released_front_end_fills_128_rows_with_a_clip(clip_samples, n_fft, hop_length):
    frontend = released_frontend(clip_samples)
    assert (frontend.n_fft, frontend.hop_length, frontend.win_length) == (n_fft, hop_length, 0)
    assert log_mel(np.zeros(clip_samples, np.float32), frontend).shape == (128, 80)


@pytest.mark.parametrize(
    ("home", "wanted"), [("/proc/none", {"NUMBA_CACHE_DIR"}), ("~", {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"})]
)
def test_librosa_has_its_caches_where_nothing_can_be_written(monkeypatch, home, wanted):
    monkeypatch.setattr(frontend_module.librosa, "__file__", "/proc/none/librosa/__init__.py")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", home))
    monkeypatch.setattr(os, "environ", {})
    frontend_module.find_caches.__wrapped__()
    assert set(os.environ) == wanted and all(os.access(folder, os.W_OK) for folder in os.environ.values())


def test_librosa_keeps_its_caches_where_they_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(frontend_module.librosa, "__file__", "/proc/none/librosa/__init__.py")
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path)})
    frontend_module.find_caches.__wrapped__()
    assert set(os.environ) == {"XDG_CACHE_HOME"}


def test_presets():
    assert PRESETS["avbert"] == FrontEnd()
    modern = PRESETS["16khz"]
    assert (modern.win_length / modern.sample_rate, modern.hop_length / modern.sample_rate) == (0.025, 0.010)
    noise = 0.1 * np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    assert log_mel(noise, modern).min() > LOG_FLOOR + 1  # No band is empty.


def test_silence_is_the_floor_also_when_shorter_than_a_window():
    for frontend in PRESETS.values():
        rows = log_mel(np.zeros(3, np.float32), frontend)
        np.testing.assert_allclose(rows, LOG_FLOOR, rtol=1e-6)
        assert len(rows) >= 1


@pytest.mark.parametrize("win_length", [-1, 691])
def test_window_longer_than_the_spectrum_gets_a_sentence(win_length):
    with pytest.raises(ValueError, match=f"win_length={win_length} samples does not fit into n_fft=690"):
        FrontEnd(win_length=win_length)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fps", 0), ("fps", float("nan")), ("fps", float("inf")), ("short_side", 1)]
    + [(name, 0) for name in ("sample_rate", "n_fft", "hop_length", "mels")],
)
def test_numbers_that_make_no_arrays_get_a_sentence(name, value):
    with pytest.raises(ValueError, match=f"{name}={value} .*: use "):
        FrontEnd(**{name: value})


def test_data_sets_and_configs_from_before_win_length_have_windows_as_long_as_the_spectrum(dataset_dir, tmp_path):
    old = shutil.copytree(dataset_dir / "tiny", tmp_path / "tiny") / "1.0.0" / "metadata.json"
    metadata = json.loads(old.read_text())
    del metadata["frontend"]["win_length"]
    old.write_text(json.dumps(metadata))
    dataset = open_dataset(tmp_path, "tiny")
    assert dataset.frontend == open_dataset(dataset_dir, "tiny").frontend
    config = ConfigDict(dataclasses.asdict(dataset.frontend))
    check_frontend(dataset, config)
    config.win_length = 80
    with pytest.raises(DatasetError, match="win_length is 0 in the data set and 80 in the config"):
        check_frontend(dataset, config)
    del config.win_length
    check_frontend(dataset, config)


def test_data_set_keeps_its_front_end(dataset_dir, without_label, tmp_path):
    records = [
        without_label(record) | {"log_mel": np.zeros((5, 128), np.float32)}
        for record in open_dataset(dataset_dir, "tiny").source("test")
    ]
    write_dataset("modern", tmp_path, {"test": records}, Contents(PRESETS["16khz"], jpeg_quality=90))
    dataset = open_dataset(tmp_path, "modern")
    assert dataset.frontend == PRESETS["16khz"]
    with pytest.raises(
        DatasetError, match="sample_rate is 16000 in the data set and 44100 in the config; n_fft is 1024"
    ):
        check_frontend(dataset, dataclasses.asdict(FrontEnd()))
