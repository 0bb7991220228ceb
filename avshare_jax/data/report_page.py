"""The page of a data set's report: one HTML file that holds its pictures."""

import base64
import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from avshare_jax.page_style import PAGE_STYLE, keep_units

KINDS_SHOWN = 30
EXAMPLES_SHOWN = 3
FEW_CLASSES = 40
"""Up to so many classes each has a bar; of more, a curve and the ends of the list are shown."""
ENDS = 10


@dataclasses.dataclass(frozen=True)
class Shown:
    """A record as the page shows it.

    Attributes:
      video_id: of the record.
      classes: names of its classes.
      image: a picture file of its frames; empty without image.
      sound: a picture file of its spectrogram; empty without sound.
      damage: why the record cannot be read; empty if it can.
    """

    video_id: str
    classes: Sequence[str]
    image: bytes
    sound: bytes
    damage: str = ""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of a report.

    Attributes:
      measures: histograms; empty where nothing was measured.
      classes: class sizes as a curve; empty without classes.
      records: some records.
    """

    measures: bytes
    classes: bytes
    records: Sequence[Shown]


def format_page(facts: Mapping[str, Any], pictures: Pictures) -> str:
    """Formats the report as HTML; `facts` is what `prepare_report.json` holds."""
    name = html.escape(facts["name"])
    sections = [outcome_table(facts), *sentence_tables(facts), unlisted(facts["unlisted"])]
    if pictures.measures:
        sections.append(figure("Videos used", picture(pictures.measures, "histograms"), measures_caption(facts)))
    if facts["class_balance"]:
        sections.append(class_balance(facts, pictures.classes))
    sections.append(contact_sheet(pictures.records))
    return keep_units(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>"
        f"<style>{PAGE_STYLE}{STYLE}</style><main>"
        f"<h1>{name}</h1><p class=lead>{html.escape(lead(facts))}</p><div class=tiles>{''.join(tiles(facts))}</div>"
        f"{''.join(sections)}</main></html>\n"
    )


def lead(facts: Mapping[str, Any]) -> str:
    """What the data set holds, in a few sentences."""
    splits = ", ".join(f"{count:,} in {split}" for split, count in facts["splits"].items())
    names = "".join(f" {name} stands for {union}." for name, union in facts["split_names"].items())
    classes = len(facts["class_balance"])
    several = "; a video may have several" if facts["multi_label"] else ""
    labels = f"{count_of(classes, 'class', 'classes')}{several}" if classes else "No labels"
    front = facts["frontend"]
    source = (
        " What became of videos that are not in it is not known, and sizes are those after resizing: the data set has "
        "no videos.jsonl."
        if facts["from_records"]
        else ""
    )
    return (
        f"Videos: {splits}.{names} {labels}. Frames: {front['fps']:g} a second, shorter side {front['short_side']} "
        f"pixels. Sound: {front['sample_rate']:,} samples a second, {front['mels']} mel bands, a row every "
        f"{1000 * front['hop_length'] / front['sample_rate']:.3g} ms.{source}"
    )


def tiles(facts: Mapping[str, Any]) -> Iterable[str]:
    """Yields the headline numbers."""
    videos, seconds = facts["videos"], facts["seconds"]
    no_audio, no_video = videos["used without audio"], videos["used without video"]
    yield tile("Videos in the data set", f"{videos['used']:,}", f"of {videos['all']:,}")
    mean = f"{seconds / videos['used']:.3g} s a video" if videos["used"] else ""
    yield tile(*duration(seconds), mean)
    yield tile("Rejected", f"{videos['rejected']:,}", f"and {videos['missing']:,} not there")
    yield tile("Without image or sound", f"{no_audio + no_video:,}", f"no sound {no_audio:,} · no image {no_video:,}")


def duration(seconds: float) -> tuple[str, str]:
    """Unit and number of a duration; minutes where it is less than an hour."""
    if seconds < 3_600:
        return "Minutes", f"{seconds / 60:.3g}"
    return "Hours", f"{seconds / 3_600:,.2f}" if seconds < 360_000 else f"{seconds / 3_600:,.0f}"


def count_of(number: int, one: str, several: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else several}"


def tile(title: str, value: str, about: str) -> str:
    """One headline number as HTML."""
    return f"<div class=tile><h3>{title}</h3><b>{value}</b><span>{about}</span></div>"


def outcome_table(facts: Mapping[str, Any]) -> str:
    """What became of the videos, by split."""
    outcomes = {outcome: splits for outcome, splits in facts["outcomes"].items() if splits}
    splits = sorted({split for counts in outcomes.values() for split in counts})
    rows = [
        [
            html.escape(outcome.capitalize()),
            f"{sum(counts.values()):,}",
            *(f"{counts.get(split, 0):,}" for split in splits),
        ]
        for outcome, counts in outcomes.items()
    ]
    return "<h2>What became of the videos</h2>" + table(["", "all", *(split or "no split" for split in splits)], rows)


def sentence_tables(facts: Mapping[str, Any]) -> Iterable[str]:
    """Yields the tables of reasons and of notes, where there are any."""
    if facts["reasons"]:
        yield "<h2>Videos that were not used, or not wholly</h2>" + sentence_table(facts["reasons"], "reason")
    if facts["notes"]:
        yield "<h2>Notes on videos that were used</h2>" + sentence_table(facts["notes"], "note")


def sentence_table(groups: Sequence[Mapping[str, Any]], noun: str) -> str:
    """Sentences of the same kind, how many there are, and examples."""
    rows = [
        [
            f"{html.escape(group['sentence'])}<small>{html.escape(group.get('outcome', ''))}</small>",
            f"{group['count']:,}",
            "".join(f"<div>{html.escape(found['video_id'])}</div>" for found in group["examples"][:EXAMPLES_SHOWN]),
        ]
        for group in groups[:KINDS_SHOWN]
    ]
    more = len(groups) - KINDS_SHOWN
    note = f"<p class=lead>prepare_report.json has {more:,} more kinds of {noun}.</p>" if more > 0 else ""
    return table([noun, "videos", "for example"], rows, "sentences") + note


def unlisted(found: Mapping[str, Any]) -> str:
    """Files that no annotation names (HTML); nothing where there are none."""
    if not found["count"]:
        return ""
    examples = "".join(f"<div>{html.escape(path)}</div>" for path in found["examples"])
    rows = [["Not used: no annotation names them.", f"{found['count']:,}", examples]]
    return "<h2>Other media files</h2>" + table(["", "files", "for example"], rows, "sentences")


def measures_caption(facts: Mapping[str, Any]) -> str:
    """Medians, and what the histograms leave out."""
    units = {"seconds": "{:.3g} s", "width": "{:g} pixels wide", "height": "{:g} high", "fps": "{:.4g} frames a second"}
    units["loudness"] = "{:.3g} dB"
    medians = [units[name].format(found["50%"]) for name, found in facts["quantiles"].items() if found]
    sounds = [f"{int(rate):,} Hz ({count:,})" for rate, count in list(facts["sample_rates"].items())[:4]]
    return (
        f"Medians: {', '.join(medians)}."
        + (f" Silent, and so not among the loudness: {facts['silent']:,} videos." if facts["silent"] else "")
        + (f" Sound before resampling: {', '.join(sounds)}." if sounds else "")
    )


def class_balance(facts: Mapping[str, Any], curve: bytes) -> str:
    """Numbers of videos by class: a bar for each or, of many classes, a curve and the ends of the list."""
    balance = facts["class_balance"]
    totals = {name: sum(counts.values()) for name, counts in balance.items()}
    order = sorted(totals, key=lambda name: -totals[name])
    without = sum(facts["unlabeled"].values())
    fewest, most = min(totals.values()), max(totals.values())
    sizes = f"from {fewest:,} to {most:,} videos" if fewest < most else count_of(most, "video", "videos") + " each"
    caption = f"{count_of(len(totals), 'class', 'classes')}, {sizes}. " + (
        f"{count_of(without, 'video has', 'videos have')} no class." if without else "No video is without a class."
    )
    if len(totals) <= FEW_CLASSES:
        content = class_bars({name: balance[name] for name in order})
    else:
        ends = {name: balance[name] for name in (*order[:ENDS], *order[-ENDS:])}
        caption += f" Below the curve are the {ENDS} largest and the {ENDS} smallest; prepare_report.json has all."
        content = (picture(curve, "class sizes") if curve else "") + class_bars(ends)
    return figure("Class balance", content, caption)


def class_bars(balance: Mapping[str, Mapping[str, int]]) -> str:
    """A bar for each class, with its numbers by split."""
    largest = max(1, *(sum(counts.values()) for counts in balance.values()))
    lines = []
    for name, counts in balance.items():
        total = sum(counts.values())
        splits = ", ".join(f"{html.escape(split)} {count:,}" for split, count in counts.items())
        bar = f"<i style='width:{100 * total / largest:.1f}%'></i>"
        lines.append(f"<div>{html.escape(name)}</div><div>{bar}</div><div><b>{total:,}</b> {splits}</div>")
    return f"<div class=bars>{''.join(lines)}</div>"


def contact_sheet(records: Sequence[Shown]) -> str:
    """Random records: frames over spectrogram."""
    cells = "".join(f"<div>{record_cell(shown)}</div>" for shown in records)
    caption = "Drawn from all splits. Frames are evenly spaced over the video, the spectrogram is of all its sound."
    return figure("Random records", f"<div class=sheet>{cells}</div>", caption)


def record_cell(shown: Shown) -> str:
    """One record of the contact sheet."""
    if shown.damage:
        return f"<div class=absent>{html.escape(shown.damage)}</div><p>{html.escape(shown.video_id)}</p>"
    image = picture(shown.image, "frames") if shown.image else "<div class=absent>no image</div>"
    sound = picture(shown.sound, "spectrogram") if shown.sound else "<div class=absent>no sound</div>"
    classes = html.escape(", ".join(shown.classes)) or "<span>no class</span>"
    return f"{image}{sound}<p>{html.escape(shown.video_id)}<br><b>{classes}</b></p>"


def figure(title: str, content: str, caption: str) -> str:
    """A titled block with a caption, all HTML."""
    return f"<figure><h2>{title}</h2>{content}<figcaption>{caption}</figcaption></figure>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "counts") -> str:
    """A table; heads are text, cells HTML."""
    lines = [f"<tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table class={kind}>{''.join(lines)}</table>"


def picture(data: bytes, description: str) -> str:
    """A PNG or JPEG file as an element that holds it."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"<img alt='{description}' src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>"


STYLE = """
td, figcaption, .sheet p, .bars div { overflow-wrap: anywhere }
td { vertical-align: top }
th { font-size: 14px; font-weight: 400; color: #5b6773 }
small { display: block; color: #5b6773 }
.sentences td:last-child, .sentences th:last-child { width: 42%; padding-left: 32px; text-align: left }
.sentences td:last-child { font-size: 14px; color: #5b6773 }
.bars { display: grid; grid-template-columns: minmax(80px, auto) 1fr auto; gap: 4px 14px; font-size: 14px }
.bars i { display: block; height: 14px; margin-top: 4px; border-radius: 2px; background: #2463a6 }
.bars div:nth-child(3n) { color: #5b6773; font-variant-numeric: tabular-nums }
.bars b { color: #2463a6 }
.sheet { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px }
.sheet img { margin-bottom: 2px }
.sheet p { margin: 4px 0 0; font-size: 14px; line-height: 1.4 }
.sheet span { color: #5b6773 }
.absent { margin-bottom: 2px; padding: 12px; background: #eef1f4; font-size: 14px; color: #5b6773; text-align: center }
"""
