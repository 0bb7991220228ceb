"""The pictures of a data set's report, as bytes of PNG or JPEG files that are always the same for the same data."""

import io
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
import simplejpeg
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from avshare_jax.page_style import figure_style

BLUE, GRAY = "#2463a6", "#bcc5cf"
FEWEST_BINS, MOST_BINS = 8, 40
BARS = 8
STRIP_WIDTH, FRAME_HEIGHT, SOUND_HEIGHT, MOST_FRAMES = 1_000, 100, 90, 12
"""Sizes of a record's pictures in pixels, and how many of its frames are shown."""


def plot_measures(
    seconds: Sequence[float],
    loudness: Sequence[float],
    resolutions: Mapping[str, int],
    frame_rates: Mapping[str, int],
) -> bytes:
    """Draws histograms of durations and loudness, and the most common sizes and frame rates.

    Args:
      seconds: durations.
      loudness: in dB relative to full scale.
      resolutions: numbers of videos by `WIDTH×HEIGHT`.
      frame_rates: numbers of videos by frames per second.

    Returns:
      A PNG file with a panel for each that is not empty; no bytes where all are.
    """
    panels = [
        (draw, values)
        for draw, values in (
            (_draw_durations, seconds),
            (_draw_loudness, loudness),
            (_draw_resolutions, resolutions),
            (_draw_frame_rates, frame_rates),
        )
        if len(values)
    ]
    if not panels:
        return b""
    rows = -(-len(panels) // 2)
    with figure_style():
        figure = Figure(figsize=(13.5, 3.2 * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        places = figure.subplots(rows, 2, squeeze=False).flat
        for axes, (draw, values) in zip(places, panels, strict=False):
            draw(axes, values)
        for axes in list(places)[len(panels) :]:
            axes.remove()
        return _png(figure)


def plot_classes(counts: Sequence[int]) -> bytes:
    """Draws numbers of videos by class, the largest class first, as a PNG file; no bytes without classes."""
    if not counts:
        return b""
    with figure_style():
        figure = Figure(figsize=(13.5, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(
            np.arange(len(counts) + 1), [*sorted(counts, reverse=True), min(counts)], step="post", color=BLUE
        )
        axes.set(xlabel="classes, the largest first", ylabel="videos", xlim=(0, len(counts)), ylim=(0, None))
        _count_on(axes.xaxis)
        _count_on(axes.yaxis)
        return _png(figure)


def _draw_durations(axes: Axes, seconds: Sequence[float]) -> None:
    values = np.asarray(seconds)
    # Where a few videos are much longer than the others, equal bins would show one bar.
    if values.max() > 20 * np.median(values):
        axes.hist(values, np.geomspace(values.min(), values.max(), _num_bins(values) + 1), color=BLUE)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(LogFormatter())  # Matplotlib's own would write formulas.
    else:
        axes.hist(values, _bins(values), color=BLUE)
    axes.set(title="Duration", xlabel="seconds", ylabel="videos")
    _count_on(axes.yaxis)


def _draw_loudness(axes: Axes, loudness: Sequence[float]) -> None:
    values = np.asarray(loudness)
    axes.hist(values, _bins(values), color=BLUE)
    axes.set(title="Loudness", xlabel="dB relative to full scale, root mean square", ylabel="videos")
    _count_on(axes.yaxis)


def _draw_resolutions(axes: Axes, resolutions: Mapping[str, int]) -> None:
    _draw_bars(axes, resolutions)
    axes.set(title="Size of the image", xlabel="videos")


def _draw_frame_rates(axes: Axes, frame_rates: Mapping[str, int]) -> None:
    _draw_bars(axes, frame_rates)
    axes.set(title="Frames per second of the file", xlabel="videos")


def _draw_bars(axes: Axes, counts: Mapping[str, int]) -> None:
    """Horizontal bars of the most common values, and one of all others."""
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(common) > BARS:
        others = common[BARS - 1 :]
        common = [*common[: BARS - 1], (f"{len(others)} others", sum(count for _, count in others))]
    colors = [GRAY if name.endswith("others") else BLUE for name, _ in common]
    for place, ((_, count), color) in enumerate(zip(common, colors, strict=True)):
        axes.barh(place, count, color=color, height=0.7)
        axes.text(count, place, f"  {count:,}", va="center", fontsize=9)
    longest = max(count for _, count in common)
    # As thick with one bar as with many.
    axes.set(yticks=range(len(common)), ylim=(max(len(common), 4) - 0.5, -0.5), xlim=(0, 1.15 * longest))
    axes.set_yticklabels([name for name, _ in common])
    axes.tick_params(axis="y", length=0)
    _count_on(axes.xaxis)


def _count_on(axis: Axis) -> None:
    """Ticks at whole numbers."""
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter("{x:,.0f}")


def _bins(values: np.ndarray) -> np.ndarray:
    """Edges of bins; where the values hardly differ, the bins stay wide enough to be read."""
    low, high = values.min(), values.max()
    middle, half = (low + high) / 2, max(high - low, 1.0) / 2
    return np.linspace(middle - half, middle + half, _num_bins(values) + 1)


def _num_bins(values: np.ndarray) -> int:
    """Fewer bins for fewer values, or most would be empty."""
    return min(max(FEWEST_BINS, round(2 * len(values) ** 0.5)), MOST_BINS)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def draw_frames(frames: Sequence[bytes]) -> bytes:
    """Draws frames of a record, evenly spaced in time, in a row.

    Args:
      frames: JPEG files, at least one.

    Returns:
      A JPEG file that is `STRIP_WIDTH` wide; frames fill it, unless there are too few.
    """
    height, width = simplejpeg.decode_jpeg_header(frames[0])[:2]
    places = min(MOST_FRAMES, max(1, round(STRIP_WIDTH * height / (FRAME_HEIGHT * width))))
    size = STRIP_WIDTH // places, max(1, round(STRIP_WIDTH // places * height / width))
    count = min(places, len(frames))
    strip = np.full((size[1], STRIP_WIDTH, 3), 255, np.uint8)
    for place in range(count):
        image = simplejpeg.decode_jpeg(frames[(2 * place + 1) * len(frames) // (2 * count)])
        shrinks = size[0] < image.shape[1]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        strip[:, place * size[0] : (place + 1) * size[0]] = image
    return simplejpeg.encode_jpeg(strip, quality=85)


def draw_spectrogram(log_mel: np.ndarray) -> bytes:
    """Draws a spectrogram (time, mels), high frequencies above, as a JPEG file of `STRIP_WIDTH` x `SOUND_HEIGHT`."""
    low, high = float(log_mel.min()), float(log_mel.max())
    scaled = (log_mel - low) / max(high - low, 1e-6)
    image = cv2.resize(scaled.T[::-1].astype(np.float32), (STRIP_WIDTH, SOUND_HEIGHT), interpolation=cv2.INTER_AREA)
    colors = matplotlib.colormaps["magma"](image, bytes=True)[..., :3]
    return simplejpeg.encode_jpeg(np.ascontiguousarray(colors), quality=85)
