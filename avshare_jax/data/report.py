"""The report on a data set: what became of its videos, how long, large and loud they are, and what some look like.

`prepare_report.json` holds the numbers; `prepare_report.html` is one file with its pictures in it. Both depend on
nothing but what they are about: a data set that is made twice has the same reports, byte for byte.
"""

import dataclasses
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from avshare_jax.data import report_page, report_plots
from avshare_jax.data.dataset import Dataset
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.outcomes import Outcome
from avshare_jax.data.report_tally import Tally, examples_of
from avshare_jax.data.unreadable import read_id
from avshare_jax.settings import reason

JSON_FILE, PAGE_FILE = "prepare_report.json", "prepare_report.html"

RECORDS_SHOWN = 12


def write_report(
    dataset: Dataset, outcomes: Iterable[Outcome], unlisted: Sequence[str], output: epath.Path
) -> epath.Path:
    """Writes `prepare_report.json` and `prepare_report.html`.

    Args:
      dataset: the data set; some of its records are read.
      outcomes: what became of every video, in an order that is always the same.
      unlisted: media files that no annotation names.
      output: folder to write to; made if it is not there.

    Returns:
      The path of the page.

    Raises:
      OSError: the folder cannot be written.
    """
    return write_files(dataset, outcomes, examples_of(unlisted), output)


def write_files(
    dataset: Dataset,
    outcomes: Iterable[Outcome],
    unlisted: Mapping[str, Any],
    output: epath.Path,
    from_records: bool = False,
) -> epath.Path:
    """As `write_report`, with what `examples_of` makes of the unlisted files.

    `from_records` has the page say that the outcomes are no more than what the records tell.
    """
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    facts = {**about(dataset), **tally.facts(dataset.class_names), "unlisted": dict(unlisted)}
    facts["from_records"] = from_records
    output.mkdir(parents=True, exist_ok=True)
    (output / JSON_FILE).write_text(json.dumps(facts, indent=1) + "\n")
    sizes = [sum(counts.values()) for counts in facts["class_balance"].values()]
    pictures = report_page.Pictures(
        measures=drawn(report_plots.plot_measures, tally.seconds, tally.loudness, tally.resolutions, tally.frame_rates),
        classes=drawn(report_plots.plot_classes, sizes),
        records=sample_records(dataset),
    )
    page = output / PAGE_FILE
    # File names may hold bytes that are not UTF-8, and so characters that cannot be written.
    page.write_bytes(report_page.format_page(facts, pictures).encode(errors="replace"))
    return page


def drawn(draw: Callable[..., bytes], *values: Any) -> bytes:
    """A picture; no bytes, and a sentence, where drawing fails, which costs neither the data set nor its numbers."""
    try:
        return draw(*values)
    except Exception as error:  # Anything, of Matplotlib and NumPy.
        print(f"A picture of the report could not be drawn ({type(error).__name__}: {reason(error)}).", flush=True)
        return b""


def about(dataset: Dataset) -> dict[str, Any]:
    """What the data set's own description says."""
    return {
        "name": dataset.name,
        "frontend": dataclasses.asdict(dataset.frontend),
        "splits": {split: dataset.num_videos(split) for split in own_splits(dataset)},
        "split_names": dict(dataset.split_names),
        "multi_label": dataset.multi_label,
    }


def own_splits(dataset: Dataset) -> list[str]:
    """The splits each record is in one of, without names for unions of them."""
    return [split for split in dataset.splits if split not in dataset.split_names]


def sample_records(dataset: Dataset) -> list[report_page.Shown]:
    """Draws some records at random, always the same ones of the same data set."""
    splits = own_splits(dataset)
    places = [(split, number) for split in splits for number in _drawn(dataset, split, splits)]
    return [_shown(dataset, split, number) for split, number in places]


def _drawn(dataset: Dataset, split: str, splits: Sequence[str]) -> list[int]:
    """Numbers of the records of a split that are among those drawn from all splits."""
    sizes = [dataset.num_videos(name) for name in splits]
    start = sum(sizes[: splits.index(split)])
    drawn = random.Random(0).sample(range(sum(sizes)), min(RECORDS_SHOWN, sum(sizes)))
    return sorted(place - start for place in drawn if start <= place < start + dataset.num_videos(split))


def _shown(dataset: Dataset, split: str, number: int) -> report_page.Shown:
    try:
        record = dataset.source(split)[number]
        return report_page.Shown(
            video_id=read_id(record),
            classes=class_names(dataset, record),
            image=report_plots.draw_frames(record["frames"]) if record["has_video"] else b"",
            sound=report_plots.draw_spectrogram(record["log_mel"]) if record["has_audio"] else b"",
        )
    # Damage comes as anything: from ArrayRecord, protobuf, NumPy or the JPEG decoder.
    except Exception as error:
        if sentence := shortage(error):
            raise DatasetError(sentence) from error
        return report_page.Shown(f"Record {number} of {split}", (), b"", b"", damage=describe_damage(error))


def describe_damage(error: Exception) -> str:
    """A sentence for what came of reading a damaged record."""
    return f"Its record cannot be read: {' '.join(str(error).split()) or type(error).__name__}"


def class_names(dataset: Dataset, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a record's classes."""
    numbers = record["labels"] if dataset.multi_label else [record["label"]] if dataset.class_names else []
    return tuple(dataset.class_names[int(number)] for number in numbers if number >= 0)
