"""The sound of a file while it is decoded: one waveform."""

import av
import numpy as np

from avshare_jax.data.tracks import GAP_TOLERANCE, Track

QUIET = 1e-4
"""Samples of digital silence lie within a range of this width: 16 bits with the last one dithered."""

LOUDEST = 1e6
"""Samples beyond this are damage: full scale is 1."""

CANCELLATION = 0.1
"""Channels cancel each other out where their mean has less than this share of the power that it would have if they had
nothing in common: two channels of equal power whose correlation is below -0.9."""

NOTABLE_SHARE = 0.1
"""Share of a file's sound from which silence or cancellation is worth a note."""

BLOCK = 16
"""Frames that are mixed and measured at once: most have about 1,000 samples, for which NumPy's calls take too long."""


class Sound(Track):
    """The waveform of an audio stream.

    Attributes:
      rate: samples per second of the file.
      channels: of the file.
    """

    KIND, NAME = "audio", "sound"

    def __init__(
        self,
        container: av.container.InputContainer,
        zero: float,
        max_seconds: float,
        sample_rate: int,
        channel: int | None = None,
    ):
        super().__init__(container, zero, max_seconds)
        self._channel = channel
        # Of each channel and of the mean, summed over all samples; and the numbers of samples.
        self._powers, self._mean_power, self._cancelled, self._summed = np.zeros(0), 0.0, 0, 0
        self.rate = self.channels = 0
        self._target_rate = sample_rate
        self._chunks: list[np.ndarray] = []
        self._unmixed: list[np.ndarray] = []  # Frames (channels, N) that follow the chunks, all with as many channels.
        self._first = self._next = 0  # Places of the first sample and of the next, in samples from time zero.
        self._setup, self._to_float = None, None
        self._missing = self._surplus = 0

    def add(self, frame: av.AudioFrame, time: float) -> None:
        """Puts the frame's samples where its time stamp says."""
        if not self.rate:
            self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
            self._first = self._next = round(time * self.rate)
            self._powers = np.zeros(self.channels)
        samples = self._channels_of(frame)
        gap = round(time * self.rate) - self._next
        if gap > GAP_TOLERANCE * self.rate:
            self._missing += gap
            self._mix()
            self._chunks.append(np.zeros(gap, np.float32))
            self._next += gap
        elif gap < -GAP_TOLERANCE * self.rate:
            self._surplus += min(-gap, samples.shape[1])
            samples = samples[:, -gap:]
        self._append(samples)
        self.end = self._next / self.rate

    def finish(self) -> np.ndarray:
        """Returns the waveform (N,) float32; `problem` says why it is empty."""
        empty = np.zeros(0, np.float32)
        if self.stream is None:
            return empty
        self._check_damage()
        if self.problem:
            return empty
        self._mix()
        waveform = np.concatenate([empty, *self._chunks])
        waveform = np.pad(waveform, (self._first, 0)) if self._first > 0 else waveform[-self._first :]
        self._note_gaps()
        self._note_channels()
        waveform = self._sane(waveform)
        self._check_silence(waveform)
        if self.problem:
            return empty
        waveform = _resample(waveform, self.rate, self._target_rate)
        return waveform[: round(min(self.max_seconds * self._target_rate, len(waveform)))]

    def _append(self, samples: np.ndarray) -> None:
        """Takes in samples (channels, N)."""
        if self._unmixed and len(samples) != len(self._unmixed[0]):
            self._mix()
        if samples.size:
            self._unmixed.append(samples)
        self._next += samples.shape[1]
        if len(self._unmixed) == BLOCK:
            self._mix()

    def _mix(self) -> None:
        """Makes one chunk of what has come in: the channel that was asked for, or the mean of all.

        FFmpeg's downmix is not the mean.
        """
        frames, self._unmixed = self._unmixed, []
        if not frames:
            return
        samples = np.concatenate(frames, axis=1)
        mean = samples.mean(axis=0)
        if len(samples) == self.channels > 1:
            self._measure(samples, mean, np.array([frame.shape[1] for frame in frames]))
        # A copy, so that the other channels are not kept.
        chosen = mean if self._channel is None or len(samples) <= self._channel else samples[self._channel].copy()
        self._chunks.append(chosen)

    def _channels_of(self, frame: av.AudioFrame) -> np.ndarray:
        """Returns (channels, N) float32 at the stream's first rate."""
        channels, setup = frame.layout.nb_channels, (frame.format.name, frame.layout.name, frame.sample_rate)
        # From eight channels on, PyAV reads planes that are not there, and crashes.
        planar = channels < 8
        if planar and frame.format.name == "fltp" and frame.sample_rate == self.rate:
            return frame.to_ndarray()
        if setup != self._setup:
            self._setup = setup
            self._to_float = av.AudioResampler(format="fltp" if planar else "flt", rate=self.rate)
        parts = [part.to_ndarray() for part in self._to_float.resample(frame)]
        parts = parts if planar else [part.reshape(-1, channels).T for part in parts]
        return np.concatenate(parts, axis=1) if parts else np.zeros((channels, 0), np.float32)

    def _measure(self, samples: np.ndarray, mean: np.ndarray, lengths: np.ndarray) -> None:
        """Adds up the power of the channels (channels, N) and of their mean (N,), frame by frame of these lengths."""
        starts = np.cumsum(lengths) - lengths
        with np.errstate(over="ignore", invalid="ignore"):
            powers = np.add.reduceat(samples * samples, starts, axis=1)
            mean_powers = np.add.reduceat(mean * mean, starts)
        sane = powers.max(axis=0) <= LOUDEST**2  # Damage would outweigh the rest.
        powers, mean_powers, lengths = powers[:, sane], mean_powers[sane], lengths[sane]
        self._powers += powers.sum(axis=1, dtype=np.float64)
        self._mean_power += mean_powers.sum(dtype=np.float64)
        self._summed += lengths.sum()
        self._cancelled += lengths[_cancel(powers / lengths, mean_powers / lengths)].sum()

    @property
    def cancels(self) -> bool:
        """Whether the channels cancel each other out, over all that has been decoded."""
        self._mix()
        return self._summed > 0 and bool(_cancel(self._powers / self._summed, self._mean_power / self._summed))

    @property
    def loudest(self) -> int:
        """The channel with the most power, from 0."""
        return int(np.argmax(self._powers))

    def _note_channels(self) -> None:
        if self._channel is not None:
            self.notes.append(
                f"The channels of the sound cancel each other out: channel {self._channel + 1} of {self.channels}, "
                "the loudest, is used instead of their mean."
            )
        elif self._summed and self._cancelled >= NOTABLE_SHARE * self._summed:
            share = self._cancelled / self._summed
            self.notes.append(f"For {share:.0%} of the sound's time, its channels cancel each other out.")

    def _note_gaps(self) -> None:
        if self._missing:
            self.notes.append(f"The sound has gaps, {self._missing / self.rate:.1f} s in all.")
        if self._surplus:
            self.notes.append(f"Of the sound, {self._surplus / self.rate:.1f} s overlap and are left out.")

    def _sane(self, waveform: np.ndarray) -> np.ndarray:
        sane = np.abs(waveform) <= LOUDEST  # False for what is not a number, too.
        if sane.all():
            return waveform
        self.notes.append(f"Of the sound, {1 - sane.mean():.1%} of the samples are not numbers and silenced.")
        return np.where(sane, waveform, np.float32(0))

    def _check_silence(self, waveform: np.ndarray) -> None:
        if not len(waveform):
            self._give_up("there is nothing in it")
            return
        starts = np.arange(0, len(waveform), max(1, self.rate // 10))
        quiet = np.maximum.reduceat(waveform, starts) - np.minimum.reduceat(waveform, starts) <= QUIET
        if quiet.all():
            silent = np.abs(waveform).max() <= QUIET
            self._give_up("it is digital silence" if silent else "it is constant, which is not a sound")
        elif quiet.mean() >= NOTABLE_SHARE:
            self.notes.append(f"The sound is silent for {quiet.mean():.0%} of its time.")


def _cancel(powers: np.ndarray, mean_powers: np.ndarray | float) -> np.ndarray:
    """Whether channels of mean squares (channels, …) cancel each other out in their mean (…); silence does not."""
    alone = powers.sum(axis=0) / len(powers) ** 2
    return (alone > QUIET**2) & (mean_powers < CANCELLATION * alone)


def _resample(waveform: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resamples a waveform (N,) float32 from one number of samples per second to another."""
    if rate == target:
        return waveform
    resampler, chunks = av.AudioResampler(format="fltp", layout="mono", rate=target), []
    for start in range(0, len(waveform), 2**20):  # FFmpeg counts the bytes of a frame in 32 bits.
        frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 2**20], format="fltp", layout="mono")
        frame.sample_rate = rate
        chunks += resampler.resample(frame)
    chunks += resampler.resample(None)
    return np.concatenate([chunk.to_ndarray()[0] for chunk in chunks])
