"""The headline table of an evaluation: trained beside random beside chance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from avshare_jax.evaluation.linear_probe import PARTS

HEADS = {
    "visual": "visual",
    "audio": "audio",
    "multimodal_visual": "multimodal, visual",
    "multimodal_audio": "multimodal, audio",
}
LAYERS = {"cnn": "CNN", "unimodal": "unimodal Transformer", "multimodal": "multimodal Transformer"}
DIRECTIONS = {"video_to_audio": "image to sound", "audio_to_video": "sound to image"}
NO_HEADS = "The weights were imported without pretraining heads, so held-out objectives and retrieval are left out."
COLUMNS = ("trained", "random", "chance", "ceiling")


class Row(NamedTuple):
    """One measure of the trained network beside its references; None where there is no such reference.

    `unit` is "%" for shares 0..1, else empty.
    """

    measure: str
    trained: float
    random: float
    chance: float | None
    ceiling: float | None
    unit: str = "%"


def summary(evaluation: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Collects the rows of the evaluation's headline table by section; section titles say the number of videos.

    What was not measured is None in the evaluation and has no section.
    """
    sections = {}
    if heldout := evaluation["heldout"]:
        sections[f"Pretraining objectives, {heldout['num_videos']} held-out videos"] = heldout_rows(heldout)
    if probe := evaluation["linear_probe"]:
        videos = f"{probe['num_train_videos']} training and {probe['num_test_videos']} test videos"
        sections[f"Linear probe of the class, {videos}"] = probe_rows(probe, "class")
    if retrieval := evaluation["retrieval"]:
        sections[f"Retrieval among {retrieval['num_videos']} test videos"] = retrieval_rows(retrieval)
    return sections


def heldout_rows(heldout: Mapping[str, Any]) -> list[Row]:
    """Rows for every head of masked embedding and correct pair prediction, and the total loss."""
    trained, random = heldout["trained"], heldout["random"]

    def row(measure: str, name: str, chance: float | None, unit: str = "%") -> Row:
        return Row(measure, trained[name], random[name], chance, None, unit)

    rows = []
    for suffix, against in (("", "its negatives"), ("_of_batch", "all clips of the batch")):
        rows += [
            row(
                f"MEP top-1 against {against}: {HEADS[head]}",
                f"mep/{head}_top1{suffix}",
                trained[f"mep/chance{suffix}"],
            )
            for head in heads_of(trained)
        ]
    for name, label in (("bos", "BOS head"), ("step", "step head")):
        rows.append(row(f"CPP accuracy: {label}", f"cpp/{name}_accuracy", 0.5))
    return [*rows, row("Loss, nats", "loss", None, unit="")]


def heads_of(metrics: Mapping[str, float]) -> list[str]:
    """The heads of masked embedding prediction that there are metrics of; early and late fusion lack some."""
    return [head for head in HEADS if f"mep/{head}_top1" in metrics]


def probe_rows(probe: Mapping[str, Any], target: str) -> list[Row]:
    """Rows for the probes of one target ("class" or an attribute), every layer and part."""
    found = probe["targets"][target]
    return [
        Row(
            f"{title}: {part}",
            found["trained"][layer][part],
            found["random"][layer][part],
            found["chance"],
            found["ceiling"][layer][part],
        )
        for layer, title in LAYERS.items()
        if layer in found["trained"]
        for part in PARTS
    ]


def retrieval_rows(retrieval: Mapping[str, Any]) -> list[Row]:
    """Rows for recall, median rank and class of the best match, in both directions."""
    units = {"median_rank": ("median rank", "")}
    rows = []
    for direction, title in DIRECTIONS.items():
        trained, random = retrieval["trained"][direction], retrieval["random"][direction]
        for name, chance in retrieval["chance"].items():
            label, unit = units.get(name, (name.replace("_", " "), "%"))
            rows.append(Row(f"{title}: {label}", trained[name], random[name], chance, None, unit))
    return rows


def format_value(value: float | None, unit: str) -> str:
    """Writes a share in percent with one decimal, another number shortly, and nothing for None."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.4g}"


def format_table(sections: Mapping[str, Sequence[Row]]) -> str:
    """Formats the summary for the console."""
    width = max((len(row.measure) for rows in sections.values() for row in rows), default=0) + 2
    lines = []
    for title, rows in sections.items():
        lines += ["", title, " " * width + "".join(f"{name:>10}" for name in COLUMNS)]
        lines += [
            f"  {row.measure:<{width - 2}}" + "".join(f"{format_value(value, row.unit):>10}" for value in row[1:5])
            for row in rows
        ]
    return "\n".join(lines[1:])
