"""The headline table of an evaluation: trained beside random beside chance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from avshare_jax.evaluation.bootstrap import format_interval
from avshare_jax.evaluation.probes import PARTS

HEADS = {
    "visual": "visual",
    "audio": "audio",
    "multimodal_visual": "multimodal, visual",
    "multimodal_audio": "multimodal, audio",
}
LAYERS = {"cnn": "CNN", "unimodal": "unimodal Transformer", "multimodal": "multimodal Transformer"}
DIRECTIONS = {"video_to_audio": "image to sound", "audio_to_video": "sound to image"}
NO_HEADS = (
    "The weights were imported without pretraining heads: held-out objectives and retrieval by them are left out."
)
COLUMNS = ("trained", "95 %", "random", "95 %", "chance", "ceiling")
PROBES = {"linear_probe": "Linear probe", "neighbors": "Nearest neighbors"}


class Row(NamedTuple):
    """One measure of the trained network beside its references; None where there is no such reference.

    `unit` is "%" for shares 0..1, else empty; intervals are [lower, upper end].
    """

    measure: str
    trained: float
    random: float
    chance: float | None
    ceiling: float | None
    unit: str = "%"
    trained_interval: Sequence[float] | None = None
    random_interval: Sequence[float] | None = None

    def cells(self) -> list[str]:
        """The row's text under each of `COLUMNS`."""
        values = [format_value(value, self.unit) for value in (self.trained, self.random, self.chance, self.ceiling)]
        ends = [format_interval(interval, self.unit) for interval in (self.trained_interval, self.random_interval)]
        return [values[0], ends[0], values[1], ends[1], *values[2:]]


def summary(evaluation: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Collects the rows of the evaluation's headline table by section; section titles say the number of videos.

    What was not measured is None in the evaluation and has no section.
    """
    sections = {}
    if heldout := evaluation["heldout"]:
        sections[f"Pretraining objectives, {heldout['num_videos']} held-out videos"] = heldout_rows(heldout)
    for name in PROBES:
        if probe := evaluation[name]:
            videos = f"{probe['num_train_videos']} training and {probe['num_test_videos']} test videos"
            sections[f"{probe_title(name, probe, 'class')}, {videos}"] = probe_rows(probe, "class")
    if retrieval := evaluation["retrieval"]:
        sections[f"Retrieval among {retrieval['num_videos']} test videos"] = retrieval_rows(retrieval)
    for layer, found in (evaluation["feature_retrieval"] or {}).items():
        title = f"Retrieval by features, {LAYERS[layer]}, among {found['num_videos']} test videos"
        sections[title] = retrieval_rows(found)
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


def probe_title(name: str, probe: Mapping[str, Any], target: str) -> str:
    """What a probe's table is called: which probe, of what, measured how."""
    return f"{PROBES[name]}, {probe['metric']} of the {target}"


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
            trained_interval=found["intervals"]["trained"][layer][part],
            random_interval=found["intervals"]["random"][layer][part],
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
            ends = [retrieval["intervals"][network][direction][name] for network in ("trained", "random")]
            rows.append(Row(f"{title}: {label}", trained[name], random[name], chance, None, unit, *ends))
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
        lines += ["", title, " " * width + table_line(COLUMNS)]
        lines += [f"  {row.measure:<{width - 2}}{table_line(row.cells())}" for row in rows]
    return "\n".join(lines[1:])


def table_line(cells: Sequence[str]) -> str:
    """Aligns the cells of a line of the console's table: those under "95 %" to the left, the others to the right."""
    aligned = [f"  {cell:<10}" if name == "95 %" else f"{cell:>10}" for name, cell in zip(COLUMNS, cells, strict=True)]
    return "".join(aligned).rstrip()
