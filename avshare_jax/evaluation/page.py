"""The report's page: HTML that opens from disk, with its figures beside it."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from avshare_jax.evaluation.overlap import describe
from avshare_jax.evaluation.summary import (
    COLUMNS,
    LAYERS,
    NO_HEADS,
    PROBES,
    Row,
    format_value,
    heads_of,
    probe_rows,
    probe_title,
    summary,
)
from avshare_jax.page_style import PAGE_STYLE, keep_units
from avshare_jax.training.goodput import CAUSES


def format_page(evaluation: Mapping[str, Any], goodput: Mapping[str, float]) -> str:
    """Formats the report's page as HTML; figures are named relative to it, so that the folder can be moved."""
    title = html.escape(evaluation["run"])
    tables = [html_table(summary(evaluation))]
    for probe_name in PROBES:
        if probe := evaluation[probe_name]:
            others = [target for target in probe["targets"] if target != "class"]
            tables += [
                html_table({probe_title(probe_name, probe, target): probe_rows(probe, target)}) for target in others
            ]
    figures = "".join(
        f"<figure><h2>{heading}</h2><img src={file} alt='{heading}'><figcaption>{caption}</figcaption></figure>"
        for file, (heading, caption) in captions(evaluation).items()
    )
    return keep_units(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{PAGE_STYLE}</style><main>"
        f"<h1>{title}</h1><p class=lead>{html.escape(lead(evaluation))}</p>"
        f"<div class=tiles>{''.join(tiles(evaluation))}</div>"
        f"{figures}<h2>All measures</h2>{''.join(tables)}{time_table(goodput)}</main></html>\n"
    )


def lead(evaluation: Mapping[str, Any]) -> str:
    """Sentences about what was evaluated, on what, and what the figures beside it are of."""
    dataset = evaluation["dataset"]
    weights = f"Step {evaluation['step']:,} of {evaluation['total_steps']:,}." if evaluation["heldout"] else NO_HEADS
    return (
        f"{weights} Data set {dataset['name']}: "
        f"{dataset['num_train_videos']:,} training and {dataset['num_test_videos']:,} test videos. All figures are of "
        "test videos. “Random” is the same network with initial weights and BatchNorm statistics of training videos. "
        f"{describe(evaluation['overlap'])} {describe_lacking(dataset)}"
    )


def describe_lacking(dataset: Mapping[str, Any]) -> str:
    """A sentence about the videos that the data set lacks; empty where that is not known."""
    test = dataset["test"]
    if dataset["missing"] is None:
        return ""
    return (
        f"{dataset['num_classes']:,} classes. Of the test split's videos, {test['rejected']:,} were rejected in "
        f"preparation, {test['without_audio']:,} have no sound and {test['without_video']:,} no image; files of "
        f"{dataset['missing']:,} videos of any split were missing."
    )


def captions(evaluation: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Title and caption (HTML) of the file of each figure that there is, in the order of the page."""
    parameters, heldout, retrieval = (evaluation[name] for name in ("parameters", "heldout", "retrieval"))
    transformer = parameters["transformer_shared"] + parameters["transformer_private"]
    found = {}
    if heldout:
        found["training.png"] = (
            "Training",
            "Losses and metrics of the training batches (thin: as logged; thick: moving average). Dots: the checkpoint "
            f"on {heldout['num_videos']} held-out videos, without augmentation or dropout.",
        )
    if evaluation["linear_probe"]:
        found["probes.png"] = (
            "Probes",
            "Bars: logistic regression on frozen features, averaged over the clips of a video. Diamonds: vote of the "
            "nearest training videos by the same features. Lines: 95 % bootstrap intervals over test videos. In CNN "
            "and unimodal Transformer a modality knows nothing of the other, which bounds what it can tell about the "
            "class; in the multimodal Transformer the visual and the audio positions have seen both.",
        )
    if retrieval:
        found["retrieval.png"] = (
            "Retrieval across modalities",
            f"Each of {retrieval['num_videos']} image tracks is scored against every sound track by the heads of "
            "correct pair prediction; recall at k is the share whose true partner is among the k best. Intervals are "
            "over the queries.",
        )
        found["videos.png"] = (
            "Test videos and their nearest neighbors across modalities",
            "The first video of each class in the gallery. Faded: the modality that the search did not see. "
            "Green: the video's own partner; blue: the same class.",
        )
    found["parameters.png"] = (
        "Parameter budget",
        f"The Transformers hold {transformer:,} parameters; with nothing shared they would hold "
        f"{parameters['transformer_unshared']:,}. Shared is what all of them use (in the paper's scheme U of each "
        "factorized weight), private what only one does (orthogonal &Sigma; and V). Pretraining heads are not "
        "counted.",
    )
    return found


def tiles(evaluation: Mapping[str, Any]) -> Iterable[str]:
    """Yields the page's headline numbers, each with its references."""
    networks = ("trained", "random")
    if heldout := evaluation["heldout"]:
        weakest = min(heads_of(heldout["trained"]), key=lambda head: heldout["trained"][f"mep/{head}_top1"])
        top1 = (heldout[name][f"mep/{weakest}_top1"] for name in networks)
        yield tile("Masked embedding top-1, weakest head", *top1, heldout["trained"]["mep/chance"])
        accuracies = (heldout[name]["cpp/bos_accuracy"] for name in networks)
        yield tile("Correct pair accuracy, BOS head", *accuracies, 0.5)
    if probe := evaluation["linear_probe"]:
        found = probe["targets"]["class"]
        layer = [layer for layer in LAYERS if layer in found["trained"]][-1]
        accuracies = (found[name][layer]["both"] for name in networks)
        yield tile(f"Class probe, {LAYERS[layer]}", *accuracies, found["chance"])
    if retrieval := evaluation["retrieval"]:
        recalls = (retrieval[name]["video_to_audio"]["recall@10"] for name in networks)
        yield tile("Recall at 10, image to sound", *recalls, retrieval["chance"]["recall@10"])


def tile(title: str, trained: float, random: float, chance: float) -> str:
    """One headline share as HTML."""
    return (
        f"<div class=tile><h3>{html.escape(title)}</h3><b>{format_value(trained, '%')}</b>"
        f"<span>random {format_value(random, '%')} · chance {format_value(chance, '%')}</span></div>"
    )


def time_table(goodput: Mapping[str, float]) -> str:
    """Formats where the time of training went as an HTML table; nothing where no time was noted."""
    total = sum(goodput.values())
    rows = (
        f"<tr><td>{cause}</td><td>{goodput[cause]:,.0f} s</td><td>{format_value(goodput[cause] / total, '%')}</td>"
        f"<td>{html.escape(meaning)}</td></tr>"
        for cause, meaning in CAUSES.items()
        if goodput.get(cause)
    )
    return f"<h2>Where the time of training went</h2><table>{''.join(rows)}</table>" if total else ""


def html_table(sections: Mapping[str, Sequence[Row]]) -> str:
    """Formats the summary as an HTML table."""
    lines = []
    for title, rows in sections.items():
        heads = "".join(f"<th>{name}</th>" for name in COLUMNS)
        lines.append(f"<tr class=section><th>{html.escape(title)}</th>{heads}</tr>")
        for row in rows:
            values = "".join(f"<td>{cell}</td>" for cell in row.cells())
            lines.append(f"<tr><td>{html.escape(row.measure)}</td>{values}</tr>")
    return f"<table>{''.join(lines)}</table>"
