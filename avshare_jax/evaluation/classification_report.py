"""How a test of classification is shown: a table for the console, a page with the table of classes, and a picture."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from avshare_jax.evaluation.overlap import describe
from avshare_jax.evaluation.summary import format_value
from avshare_jax.page_style import PAGE_STYLE, figure_style, keep_units, short_name

PICTURE = "confusion.png"
MOST_NAMES = 60
"""With more classes, the picture has no room for their names."""

COLUMNS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_average_precision": "mAP",
    "chance": "largest class",
}
TITLES = {"both": "image and sound", "visual": "image alone", "audio": "sound alone"}
CLASS_COLUMNS = ("class", "videos", "top-1", "average precision", "most often taken for")


def facts(evaluation: Mapping[str, Any]) -> str:
    """A sentence with what was tested: classes, videos, skipped and missing ones, and views."""
    data, views = evaluation["dataset"], evaluation["views"]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in data["skipped"].items())
    missing = "unknown" if data["num_missing"] is None else f"{data['num_missing']:,}"
    rejected = "unknown" if data["num_rejected"] is None else f"{data['num_rejected']:,}"
    empty = f" ({data['num_without_class']:,} without any class, which do not count)" * (data["num_without_class"] > 0)
    return (
        f"{data['name']}, split {data['split']}: {data['num_classes']} classes, {data['num_videos']:,} videos tested"
        f"{empty}, {data['num_skipped']:,} skipped{f' ({reasons})' if reasons else ''}; not in the data set, of all "
        f"splits: {missing} missing, {rejected} rejected. {views['temporal_views']} x {views['spatial_views']} views, "
        f"pooled by {views['pool']}." + (f" {describe(evaluation['overlap'])}" if evaluation["overlap"] else "")
    )


def format_table(evaluation: Mapping[str, Any]) -> str:
    """Formats the measures for the console."""
    lines = [facts(evaluation), " " * 18 + f"{'videos':>8}" + "".join(f"{title:>15}" for title in COLUMNS.values())]
    for choice, found in evaluation["measures"].items():
        cells = "".join(f"{format_value(found.get(name), '%'):>15}" for name in COLUMNS)
        lines.append(f"  {TITLES[choice]:<16}{found['num_videos']:>8,}{cells}")
    return "\n".join(lines)


def write_report(folder: epath.Path, evaluation: Mapping[str, Any]) -> epath.Path:
    """Draws the picture and writes the page that shows it, in a folder that is made if it is not there.

    Returns:
      The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [row["name"] for row in evaluation["classes"]]
    plot_confusion(np.array(evaluation["confusion"]), names, folder / PICTURE)
    page = folder / "index.html"
    page.write_bytes(format_page(evaluation).encode(errors="replace"))
    return page


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: epath.Path) -> None:
    """Draws the share of each class's videos (rows) by the class of their highest score (columns)."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(4.0, 0.25 * len(names) + 2.5), 16.0)
    with figure_style():
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(image, label="% of the class's videos", shrink=0.8)
        axes.set(xlabel="highest score", ylabel="label")
        if len(names) <= MOST_NAMES:
            labels = [short_name(name) for name in names]
            axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8)
            axes.set_yticks(range(len(names)), labels, fontsize=8)
        with path.open("wb") as file:
            figure.savefig(file, format="png", dpi=120)


def format_page(evaluation: Mapping[str, Any]) -> str:
    """Formats the page as HTML; the picture lies beside it."""
    name = html.escape(f"{evaluation['run']}, split {evaluation['split']}")
    start = evaluation["init_from"] or "random weights"
    lead = html.escape(
        f"Step {evaluation['step']:,} of {evaluation['total_steps']:,}, started from {start}. {facts(evaluation)}"
    )
    head = "".join(f"<th>{title}</th>" for title in ("", "videos", *COLUMNS.values()))
    rows = "".join(
        f"<tr><td>{TITLES[choice]}</td><td>{found['num_videos']:,}</td>"
        + "".join(f"<td>{format_value(found.get(column), '%')}</td>" for column in COLUMNS)
        + "</tr>"
        for choice, found in evaluation["measures"].items()
    )
    return keep_units(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{PAGE_STYLE}</style><main>"
        f"<h1>{name}</h1><p class=lead>{lead}</p><table><tr>{head}</tr>{rows}</table>"
        f"<figure><h2>What is taken for what</h2><img src={PICTURE} alt='confusion matrix'><figcaption>Share of each "
        "class's videos by the class of their highest score; a video of several classes counts in each.</figcaption>"
        f"</figure><h2>Classes</h2>{class_rows(evaluation['classes'])}</main></html>\n"
    )


def class_rows(classes: Sequence[Mapping[str, Any]]) -> str:
    """The table of classes as HTML."""
    rows = "".join(
        f"<tr><td>{html.escape(row['name'])}</td><td>{row['num_videos']:,}</td>"
        f"<td>{format_value(row['top1'], '%')}</td>"
        f"<td>{format_value(row['average_precision'], '%')}</td><td>{html.escape(row['taken_for'] or '')}</td></tr>"
        for row in classes
    )
    return f"<table><tr>{''.join(f'<th>{column}</th>' for column in CLASS_COLUMNS)}</tr>{rows}</table>"
