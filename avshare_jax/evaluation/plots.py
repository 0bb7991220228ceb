"""The report's figures, one function each; all shares are drawn in percent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from avshare_jax.evaluation.probes import PARTS
from avshare_jax.evaluation.retrieval import true_pair_ranks
from avshare_jax.evaluation.summary import DIRECTIONS, HEADS, LAYERS, heads_of
from avshare_jax.page_style import figure_style, short_name

TRAINED, RANDOM, INK, FAINT, CEILING = "#2463a6", "#bcc5cf", "#27313b", "#8794a1", "#c0392b"
DOTTED = (0, (1, 2))
LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
HEAD_COLORS = {"visual": "#2463a6", "audio": "#d9782d", "multimodal_visual": "#7fb2e5", "multimodal_audio": "#f2b880"}


@dataclass(frozen=True)
class Picture:
    """A test video as it is drawn.

    Attributes:
      frames: (K, H, W, 3) uint8, in time order.
      log_mel: (time, mels) float, over the whole video.
      caption: Class name, or the video's id if it has no class.
    """

    frames: np.ndarray
    log_mel: np.ndarray
    caption: str


@dataclass(frozen=True)
class SheetRow:
    """A test video with its nearest neighbors across modalities, best first.

    Attributes:
      query: Index of the video.
      sounds: Indices of the videos whose sounds fit its image best.
      images: Indices of the videos whose images fit its sound best.
      sound_rank: Rank of its own sound among all, 1 = best.
      image_rank: Rank of its own image among all, 1 = best.
    """

    query: int
    sounds: Sequence[int]
    images: Sequence[int]
    sound_rank: int
    image_rank: int


def plot_curves(rows: Sequence[Mapping[str, float]], heldout: Mapping[str, float], step: int, path: epath.Path) -> None:
    """Draws the losses and metrics of training over its steps, with the held-out values as dots at the end.

    Args:
      rows: One mapping per logged step with "step", "loss", "mep/..." and "cpp/..." (shares 0..1).
      heldout: The same metrics on the test split.
      step: Step of the evaluated checkpoint.
      path: PNG to write.
    """
    with figure_style():
        figure = Figure(figsize=(13.5, 4.1), layout="constrained")
        losses, top1, pairs = figure.subplots(1, 3)
        for name, label, color in (
            ("loss", "total", INK),
            ("mep/loss", "masked embedding", "#6a51a3"),
            ("cpp/loss", "correct pair", "#2a8c6f"),
        ):
            _draw_curve(losses, rows, heldout, step, name, label, color, scale=1)
        losses.set(title="Losses", ylabel="loss in nats")
        for head in heads_of(heldout):
            _draw_curve(top1, rows, heldout, step, f"mep/{head}_top1", HEADS[head], HEAD_COLORS[head])
        top1.set(title="Masked embedding prediction", ylabel="top-1 against the negatives in %")
        for name, label, color in (("bos", "BOS head", "#2a8c6f"), ("step", "step head", "#8fc7b3")):
            _draw_curve(pairs, rows, heldout, step, f"cpp/{name}_accuracy", label, color)
        pairs.set(title="Correct pair prediction", ylabel="accuracy in %", ylim=(35, 105), yticks=range(40, 101, 10))
        for axes, chance in ((top1, heldout["mep/chance"]), (pairs, 0.5)):
            axes.axhline(100 * chance, color=INK, linewidth=1, linestyle=DOTTED, label="chance")
        for axes in (losses, top1, pairs):
            axes.set(xlabel="training step", xlim=(0, 1.02 * step))
            if axes is not pairs:
                axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # Room for the legend.
            handles = [*axes.get_legend_handles_labels()[0], _dot(FAINT, "held-out")]
            axes.legend(handles=handles, loc="upper left", ncols=2)
        figure.get_layout_engine().set(w_pad=0.12)
        _save(figure, path)


def _draw_curve(
    axes: Axes,
    rows: Sequence[Mapping[str, float]],
    heldout: Mapping[str, float],
    step: int,
    name: str,
    label: str,
    color: str,
    scale: float = 100,
) -> None:
    points = [(row["step"], scale * row[name]) for row in rows if row.get(name) is not None]
    if points:
        steps, values = np.array(points).T
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(values, max(1, len(values) // 20)), color=color, linewidth=1.8, label=label)
    if name in heldout:
        axes.plot(step, scale * heldout[name], "o", color=color, markersize=7, markeredgecolor="white", clip_on=False)


def capitalize(title: str) -> str:
    """Makes the first letter a capital and leaves the rest as it is."""
    return title[0].upper() + title[1:]


def _save(figure: Figure, path: epath.Path) -> None:
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=120)


def smooth(values: np.ndarray, reach: int) -> np.ndarray:
    """Means of (N,) values over the neighbors up to `reach` away; the window is cut at the ends, not padded."""
    window = np.ones(2 * reach + 1)
    counts = np.convolve(np.ones(len(values)), window)[reach:-reach]
    return np.convolve(values, window)[reach:-reach] / counts


def _dot(color: str, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=color, markersize=7, label=label)


def plot_parameters(parts: Mapping[str, int], path: epath.Path) -> None:
    """Draws where the network's parameters are, beside the same network with nothing shared.

    Args:
      parts: "visual_cnn", "audio_cnn", "tokens" (projections, BOS and embeddings), "transformer_shared",
        "transformer_private", and "transformer_unshared" (the three Transformers with full weights of their own in
        every layer) → number of parameters.
      path: PNG to write.
    """
    colors = {
        "visual_cnn": ("visual CNN", "#2463a6"),
        "audio_cnn": ("audio CNN", "#d9782d"),
        "tokens": ("projections, BOS, embeddings", "#98a3ae"),
        "transformer_shared": ("Transformers: shared by all three", "#6a51a3"),
        "transformer_private": ("Transformers: private to each", "#b3a2d6"),
        "transformer_unshared": ("Transformers: nothing shared", "#7d4a5c"),
    }
    cnns = ("visual_cnn", "audio_cnn", "tokens")
    bars = {
        "this network": {name: parts[name] for name in (*cnns, "transformer_shared", "transformer_private")},
        "nothing shared": {name: parts[name] for name in (*cnns, "transformer_unshared")},
    }
    saved = 1 - (parts["transformer_shared"] + parts["transformer_private"]) / parts["transformer_unshared"]
    with figure_style():
        figure = Figure(figsize=(13.5, 3.4), layout="constrained")
        whole, zoom = figure.subplots(1, 2, width_ratios=(3, 2))
        for axes, rows in (
            (whole, bars),
            (zoom, {n: {p: v for p, v in bar.items() if p.startswith("transformer")} for n, bar in bars.items()}),
        ):
            for place, row in enumerate(rows.values()):
                left = 0
                for part, count in row.items():
                    axes.barh(place, count, left=left, color=colors[part][1], height=0.62, edgecolor="white")
                    left += count
                axes.text(left, place, f"  {left:,}", va="center", fontweight="bold")
            longest = max(sum(row.values()) for row in rows.values())
            axes.set(yticks=range(len(rows)), yticklabels=rows, xlim=(0, 1.22 * longest), xlabel="parameters")
            axes.xaxis.set_major_formatter(short_count)
            axes.tick_params(axis="y", length=0)
            axes.invert_yaxis()
        whole.set_title("Whole network")
        zoom.set_title(f"Transformers: {100 * saved:.0f} % fewer by sharing")
        figure.legend(
            handles=[Patch(color=color, label=label) for label, color in colors.values()],
            loc="outside lower center",
            ncols=3,
        )
        _save(figure, path)


def short_count(value: float, _position: int | None = None) -> str:
    """Writes a number of parameters shortly: 250 k, 1.5 M."""
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def plot_probes(probe: Mapping[str, Any], neighbors: Mapping[str, Any], path: epath.Path) -> None:
    """Draws the probes of every layer: trained beside random, chance, and what each part could reach at most.

    Args:
      probe: The evaluation's "linear_probe": "metric" and "targets", target → {"chance": float, "ceiling": layer → part
        → float or None, "trained" and "random": layer → part → share 0..1, "intervals": the same with both ends}.
      neighbors: The evaluation's "neighbors", of the same form and for the same targets.
      path: PNG to write.
    """
    targets = probe["targets"]
    layers = [layer for layer in LAYERS if layer in targets["class"]["trained"]]
    with figure_style():
        figure = Figure(figsize=(13.5, 1.0 + 3.0 * len(targets)), layout="constrained")
        grid = figure.subplots(len(targets), len(layers), sharey=True, squeeze=False)
        for row, (target, found) in zip(grid, targets.items(), strict=True):
            for axes, layer in zip(row, layers, strict=True):
                _draw_probe(axes, found, neighbors["targets"][target], layer)
                axes.set_title(f"{capitalize(LAYERS[layer])}: {target}")
            row[0].set_ylabel(f"{target} {probe['metric']} in %")
        handles = [
            Patch(color=TRAINED, label="trained"),
            Patch(color=RANDOM, label="random initialization"),
            Line2D([], [], color=INK, linestyle=DOTTED, label="chance"),
        ]
        if any(level is not None for found in targets.values() for level in found["ceiling"]["cnn"].values()):
            handles.append(Line2D([], [], color=CEILING, linewidth=2, label="ceiling of what the part can know"))
        handles.append(Line2D([], [], color=INK, marker="|", linestyle="", label="95 % interval"))
        handles.append(
            Line2D([], [], color="white", marker="D", markeredgecolor=INK, linestyle="", label="nearest neighbors")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        figure.get_layout_engine().set(hspace=0.06)
        _save(figure, path)


def _draw_probe(axes: Axes, found: Mapping[str, Any], neighbors: Mapping[str, Any], layer: str) -> None:
    for name, color, shift in (("random", RANDOM, -0.2), ("trained", TRAINED, 0.2)):
        shares = np.array([found[name][layer][part] for part in PARTS])
        ends = np.array([found["intervals"][name][layer][part] for part in PARTS])
        errors = 100 * np.abs(ends - shares[:, None]).T
        places = np.arange(len(PARTS)) + shift
        axes.bar(places, 100 * shares, 0.38, color=color, yerr=errors, error_kw={"ecolor": INK, "elinewidth": 1})
        for place, share, error in zip(places, shares, errors[1], strict=True):
            axes.text(place, 100 * share + error + 1.5, f"{100 * share:.0f}", ha="center", fontsize=8.5, bbox=LABEL_BOX)
        votes = [100 * neighbors[name][layer][part] for part in PARTS]
        axes.plot(places + 0.1, votes, "D", color="white", markersize=5, markeredgecolor=INK, zorder=3)
    axes.axhline(100 * found["chance"], color=INK, linewidth=1, linestyle=DOTTED)
    for place, part in enumerate(PARTS):
        ceiling = found["ceiling"][layer][part]
        if ceiling is not None:
            axes.hlines(100 * ceiling, place - 0.45, place + 0.45, color=CEILING, linewidth=2)
    axes.set(xticks=range(len(PARTS)), xticklabels=PARTS, ylim=(0, 112), yticks=range(0, 101, 25))
    axes.tick_params(axis="x", length=0)


def plot_retrieval(scores: Mapping[str, np.ndarray], path: epath.Path) -> None:
    """Draws how many true partners are among the k best-scored ones, for every k.

    Args:
      scores: "trained" and "random" → (G, G) pair scores, row = image track, column = sound track.
      path: PNG to write.
    """
    gallery = len(scores["trained"])
    k = np.arange(1, gallery + 1)
    with figure_style():
        figure = Figure(figsize=(13.5, 4.1), layout="constrained")
        for axes, (direction, title) in zip(figure.subplots(1, 2, sharey=True), DIRECTIONS.items(), strict=True):
            for name, color, label in (("trained", TRAINED, "trained"), ("random", FAINT, "random initialization")):
                directed = scores[name] if direction == "video_to_audio" else scores[name].T
                recall = np.mean(true_pair_ranks(directed)[:, None] <= k, axis=0)
                axes.plot(k, 100 * recall, color=color, linewidth=2, label=label)
            axes.plot(k, 100 * k / gallery, color=INK, linewidth=1, linestyle=DOTTED, label="chance")
            axes.set(
                title=capitalize(title),
                xlabel=f"k best of {gallery} candidates",
                xscale="log",
                xlim=(1, gallery),
                ylim=(0, 100),
            )
            axes.set_xticks([tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick <= gallery])
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.legend(loc="upper left")
        figure.axes[0].set_ylabel("recall at k in %")
        _save(figure, path)


def plot_sheet(pictures: Mapping[int, Picture], rows: Sequence[SheetRow], gallery: int, path: epath.Path) -> None:
    """Draws test videos (frames over spectrogram), each with its nearest neighbors across modalities.

    Args:
      pictures: Index → the video, for every index in `rows`.
      rows: The videos to show, all with equally many neighbors.
      gallery: Number of videos searched.
      path: PNG to write.
    """
    neighbors = len(rows[0].sounds)
    with figure_style():
        figure = Figure(figsize=(15, 0.7 + 1.75 * len(rows)))
        grid = figure.add_gridspec(
            len(rows),
            3 + 2 * neighbors,
            # Narrow empty columns set the three groups apart.
            width_ratios=[1, 0.1, *[1] * neighbors, 0.1, *[1] * neighbors],
            left=0.01,
            right=0.99,
            bottom=0.025,
            top=1 - 0.62 / figure.get_figheight(),
            hspace=0.34,
            wspace=0.05,
        )
        first_image = 3 + neighbors
        columns = {0: "Test video", 2: "Its image finds these sounds", first_image: "Its sound finds these images"}
        for column, heading in columns.items():
            left = grid[0, column].get_position(figure).x0
            figure.text(left, 1 - 0.1 / figure.get_figheight(), heading, va="top", fontsize=12, fontweight="bold")
        for place, row in enumerate(rows):
            query = pictures[row.query]
            note = f"own sound ranks {row.sound_rank} of {gallery}, own image {row.image_rank}"
            name = short_name(query.caption)
            _draw_video(figure, grid[place, 0], query, name, INK).set_xlabel(note, fontsize=8.5, labelpad=3)
            for number in range(neighbors):
                for column, index, dim in (
                    (2 + number, row.sounds[number], "frames"),
                    (first_image + number, row.images[number], "sound"),
                ):
                    found = pictures[index]
                    verdict, color = _verdict(index == row.query, found.caption == query.caption)
                    title = f"{number + 1}. {short_name(found.caption)}{verdict}"
                    _draw_video(figure, grid[place, column], found, title, color, dim)
        _save(figure, path)


def _verdict(same_video: bool, same_class: bool) -> tuple[str, str]:
    if same_video:
        return ": its own", "#1e8449"
    return ("", "#2463a6") if same_class else ("", FAINT)


def _draw_video(figure: Figure, place: SubplotSpec, picture: Picture, title: str, color: str, dim: str = "") -> Axes:
    """Draws the frames in a row over the spectrogram, one of the two faded if `dim`; returns the lower axes."""
    upper, lower = place.subgridspec(2, 1, hspace=0.03, height_ratios=(1, 0.75)).subplots()
    upper.imshow(np.concatenate(list(picture.frames), axis=1), aspect="auto", alpha=0.3 if dim == "frames" else 1)
    spectrogram = {"aspect": "auto", "origin": "lower", "cmap": "magma", "interpolation": "bilinear"}
    lower.imshow(picture.log_mel.T, alpha=0.25 if dim == "sound" else 1, **spectrogram)
    for axes in (upper, lower):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    upper.set_title(title, fontsize=9, color=color, fontweight="normal" if color == FAINT else "bold", pad=3)
    return lower
