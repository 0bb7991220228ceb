"""The front end: at which rates and sizes videos become arrays, and the log-mel spectrogram of their sound."""

import atexit
import dataclasses
import functools
import os
import shutil
import tempfile
from pathlib import Path

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
      n_fft: samples of which a spectrum is taken.
      hop_length: samples from one spectrum to the next.
      mels: mel bands.
      win_length: samples in a window, which lies in the middle of the spectrum's, with zeros around; 0: as n_fft.

    Raises:
      ValueError: a number is not above 0, the frames are too small, or the window is longer than the spectrum.
    """

    fps: float = 16.0
    short_side: int = 160
    sample_rate: int = 44_100
    n_fft: int = 690
    hop_length: int = 345
    mels: int = 80
    win_length: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps={self.fps} is no frame rate: use a number above 0.")
        if not self.short_side >= 2:
            raise ValueError(f"short_side={self.short_side} is too small for frames: use 2 pixels or more.")
        for name in ("sample_rate", "n_fft", "hop_length", "mels"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}={getattr(self, name)} leaves no spectrogram: use 1 or more.")
        if not 0 <= self.win_length <= self.n_fft:
            raise ValueError(
                f"A window of win_length={self.win_length} samples does not fit into n_fft={self.n_fft}: "
                "use a shorter one, or 0 for one as long."
            )


def released_frontend(clip_samples: int) -> FrontEnd:
    """The released code's front end, whose spectra depend on the samples in a clip: 128 rows fill it."""
    n_fft = 2 * (clip_samples // 128 + 1)
    return FrontEnd(n_fft=n_fft, hop_length=n_fft // 2)


PRESETS = {
    "avbert": released_frontend(44_100),  # The recipe's clips of 1 s.
    "avbert_2s": released_frontend(88_200),
    "avbert_2.13s": released_frontend(94_080),  # 32 frames, every other of 30 a second.
    # 25 ms every 10 ms and 128 bands, as most audio models have them. With spectra of 512 samples, one of the lowest
    # bands would fall between two frequencies and be empty.
    "16khz": FrontEnd(sample_rate=16_000, n_fft=1_024, win_length=400, hop_length=160, mels=128),
}


@functools.cache
def find_caches() -> None:
    """Gives librosa, when it is first used, the places without which it fails, as in containers.

    Numba compiles some of its functions, and keeps them beside librosa or in the user's folder of caches. Where nobody
    may write there, or the user has no home, a temporary folder takes their place for this process and its children.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    has_home = os.path.isabs(caches)  # Else librosa fails even where Numba does not, over a folder for its examples.
    beside = str(Path(librosa.__file__).parent)
    places = [os.environ.get("NUMBA_CACHE_DIR") or beside, beside, os.path.join(caches, "numba")]
    if has_home and any(map(_writable, places)):
        return
    folder = tempfile.mkdtemp(prefix="caches-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder
    if not has_home:
        os.environ["XDG_CACHE_HOME"] = folder


def _writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def log_mel(waveform: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """Log-mel spectrogram: power of periodic Hann windows, summed by triangles on the HTK mel scale, ln(1e-6 + x).

    Args:
      waveform: (N,) float32 at `frontend.sample_rate`; less than `n_fft` samples are padded with silence.
      frontend: window, hop and bands.

    Returns:
      (1 + N // hop_length, mels) float32; row i is centered on sample i * hop_length.
    """
    find_caches()
    if len(waveform) < frontend.n_fft:
        waveform = np.pad(waveform, (0, frontend.n_fft - len(waveform)))
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=frontend.sample_rate,
        n_fft=frontend.n_fft,
        hop_length=frontend.hop_length,
        win_length=frontend.win_length or frontend.n_fft,
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
