"""The front end: at which rates and sizes videos become arrays, and the log-mel spectrogram of their sound."""

import dataclasses

import librosa
import numpy as np

LOG_OFFSET = 1e-6
LOG_FLOOR = float(np.log(LOG_OFFSET))
"""Value of a spectrogram where there is no sound."""


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """What fixes the arrays that a data set holds; the defaults are the paper's, 128 rows of spectrogram a second.

    Attributes:
      fps: frames per second.
      short_side: shorter side of the frames, in pixels.
      sample_rate: samples per second of the sound.
      n_fft: samples in a window of the spectrogram.
      hop_length: samples between two windows.
      mels: mel bands.
    """

    fps: float = 16.0
    short_side: int = 160
    sample_rate: int = 44_100
    n_fft: int = 690
    hop_length: int = 345
    mels: int = 80


def log_mel(waveform: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """Log-mel spectrogram: power of Hann windows, summed by triangles on the HTK mel scale, ln(1e-6 + x).

    Args:
      waveform: (N,) float32 at `frontend.sample_rate`; less than one window is padded with silence.
      frontend: window, hop and bands.

    Returns:
      (1 + N // hop_length, mels) float32; row i is centered on sample i * hop_length.
    """
    if len(waveform) < frontend.n_fft:
        waveform = np.pad(waveform, (0, frontend.n_fft - len(waveform)))
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=frontend.sample_rate,
        n_fft=frontend.n_fft,
        hop_length=frontend.hop_length,
        window="hann",
        center=True,
        pad_mode="reflect",
        power=2.0,
        n_mels=frontend.mels,
        fmin=0.0,
        fmax=frontend.sample_rate / 2,
        htk=True,
        norm=None,
    )
    return np.log(LOG_OFFSET + power).T.astype(np.float32)
