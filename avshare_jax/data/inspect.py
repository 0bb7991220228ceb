"""Shows what a data set holds: the report of its preparation, made anew.

    python -m avshare_jax.data.inspect NAME [--data_dir=DIR] [--output=DIR]

Writes prepare_report.html, a page to open in a browser, and prepare_report.json. Of a data set without `videos.jsonl`,
from before preparation wrote it, the report says what its records tell.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import simplejpeg
from etils import epath

from avshare_jax.data.dataset import Dataset, DatasetError, open_dataset
from avshare_jax.data.errors import shortage
from avshare_jax.data.names import printable_lines
from avshare_jax.data.outcomes import NO_AUDIO, NO_VIDEO, REJECTED, UNLISTED, USED, VIDEOS, Outcome, read_outcomes
from avshare_jax.data.report import JSON_FILE, class_names, describe_damage, own_splits, write_files
from avshare_jax.data.report_tally import examples_of
from avshare_jax.data.unreadable import read_id
from avshare_jax.outputs import check_folder
from avshare_jax.settings import UserError, quiet_libraries


def inspect_dataset(data_dir: epath.PathLike, name: str, output: epath.PathLike) -> epath.Path:
    """Writes the report on the data set DATA_DIR/NAME into a folder.

    Args:
      data_dir: directory of data sets.
      name: of the data set.
      output: the folder; made if it is not there.

    Returns:
      The path of the page.

    Raises:
      DatasetError: there is no such data set, what its preparation has written beside the records is damaged, or the
        folder is the data set's own or cannot be written.
    """
    dataset, output = open_dataset(data_dir, name), epath.Path(output).expanduser()
    if output.resolve().is_relative_to(dataset.directory.resolve()):
        raise DatasetError(f"{output} belongs to the data set: choose another folder with --output.")
    try:
        check_folder(output)
        if (dataset.directory / VIDEOS).exists():
            return write_files(dataset, listed_outcomes(dataset), find_unlisted(dataset), output)
        return write_files(dataset, outcomes_of_records(dataset), examples_of([]), output, from_records=True)
    except UserError as error:
        raise DatasetError(str(error)) from error
    except OSError as error:
        raise DatasetError(f"The report cannot be written to {output}: {error.strerror or error}.") from error


def find_unlisted(dataset: Dataset) -> dict[str, Any]:
    """What the report of the preparation says about files that no annotation names."""
    path = dataset.directory / JSON_FILE
    if not path.exists():
        return examples_of([])
    try:
        return json.loads(path.read_text())["unlisted"]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path} is damaged: delete it, and the report is made without it.") from error


def listed_outcomes(dataset: Dataset) -> Iterator[Outcome]:
    """Yields what `videos.jsonl` says of videos; `DatasetError` where it is damaged."""
    path = dataset.directory / VIDEOS
    try:
        yield from (outcome for outcome in read_outcomes(path) if outcome.outcome != UNLISTED)
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is damaged: delete it, and the report says what the records tell.") from error


def outcomes_of_records(dataset: Dataset) -> Iterator[Outcome]:
    """Yields what the records tell: no files, rates or loudness, and sizes after resizing."""
    for split in own_splits(dataset):
        source = dataset.source(split)
        for number in range(len(source)):
            try:
                yield outcome_of_record(dataset, split, source[number])
            # Damage comes as anything: from ArrayRecord, protobuf, NumPy or the JPEG decoder.
            except Exception as error:
                if sentence := shortage(error):
                    raise DatasetError(sentence) from error
                name = f"record {number} of {split}"
                yield Outcome(name, name, split, "", (), REJECTED, describe_damage(error))


def outcome_of_record(dataset: Dataset, split: str, record: Mapping[str, Any]) -> Outcome:
    """What a record tells about its video."""
    frames, front = record["frames"], dataset.frontend
    video_id = read_id(record)
    height, width = simplejpeg.decode_jpeg_header(frames[0])[:2] if len(frames) else (0, 0)
    sound_seconds = len(record["log_mel"]) * front.hop_length / front.sample_rate
    return Outcome(
        video_id=video_id,
        source_id=video_id,
        split=split,
        path="",
        labels=class_names(dataset, record),
        outcome=USED if record["has_video"] and record["has_audio"] else NO_AUDIO if record["has_video"] else NO_VIDEO,
        seconds=len(frames) / front.fps if len(frames) else sound_seconds,
        width=width,
        height=height,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m avshare_jax.data.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="name of the data set")
    parser.add_argument("--data_dir", default="data", metavar="DIR", help="where data sets are (default: data)")
    parser.add_argument("--output", metavar="DIR", help="where to write to (default: runs/inspect/NAME)")
    options = parser.parse_args(arguments)
    quiet_libraries()
    try:
        print(inspect_dataset(options.data_dir, options.name, options.output or f"runs/inspect/{options.name}"))
    except DatasetError as error:
        sys.exit(f"error: {printable_lines(str(error))}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")


if __name__ == "__main__":
    main()
