import numpy as np
import pytest

from avshare_jax.data.frontend import LOG_FLOOR, FrontEnd, log_mel


def reference_log_mel(waveform: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """The spectrogram from its definition, in float64: frames, a discrete Fourier sum, triangles on the mel scale."""
    size, hop = frontend.n_fft, frontend.hop_length
    padded = np.pad(waveform.astype(np.float64), size // 2, mode="reflect")
    starts = hop * np.arange(1 + len(waveform) // hop)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frames = padded[starts[:, None] + np.arange(size)] * window
    bins = np.arange(size // 2 + 1)
    power = np.abs(frames @ np.exp(-2j * np.pi * np.outer(np.arange(size), bins) / size)) ** 2

    highest = 2595 * np.log10(1 + frontend.sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, frontend.mels + 2) / 2595) - 1)
    hertz = bins * frontend.sample_rate / size
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.log(1e-6 + power @ triangles.T)


@pytest.mark.parametrize("frontend", [FrontEnd(), FrontEnd(16.0, 56, 16_000, 500, 250, 40)], ids=["paper", "demo"])
def test_log_mel_follows_its_definition(frontend):
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal(frontend.sample_rate + 17)).astype(np.float32)
    computed = log_mel(waveform, frontend)
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed, reference_log_mel(waveform, frontend), atol=1e-3)


def test_papers_front_end_gives_128_rows_for_a_clip_of_one_second():
    assert log_mel(np.zeros(44_100, np.float32), FrontEnd()).shape == (128, 80)


def test_silence_is_the_floor_also_when_shorter_than_a_window():
    rows = log_mel(np.zeros(3, np.float32), FrontEnd())
    np.testing.assert_allclose(rows, LOG_FLOOR, rtol=1e-6)
    assert len(rows) >= 1
