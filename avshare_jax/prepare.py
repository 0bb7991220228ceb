"""Turns videos into a data set that training can read.

    python -m avshare_jax.prepare SOURCE --videos=DIR --name=NAME [options] [-- Beam's options]
    python -m avshare_jax.prepare SOURCE --help

SOURCE is `folder` for videos of your own, or the public data set whose files you have. An interrupted preparation goes
on when the same command is given again. What follows `--` goes to Apache Beam, for example a runner on a cluster.
"""

import argparse
import collections
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Sequence

from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.frontend import PRESETS, FrontEnd
from avshare_jax.data.names import printable, printable_lines
from avshare_jax.data.outcomes import NO_AUDIO, NO_VIDEO, USED, Outcome
from avshare_jax.data.sources import (
    audioset,
    charades,
    demo,
    esc50,
    folder,
    hmdb51,
    kinetics,
    kinetics_sounds,
    ucf101,
    vggsound,
)
from avshare_jax.data.sources.listing import Listing
from avshare_jax.progress import ProgressLine, clock
from avshare_jax.settings import UserError, allow_open_files, quiet_libraries

SOURCES = {
    "folder": folder,
    "kinetics": kinetics,
    "kinetics_sounds": kinetics_sounds,
    "audioset": audioset,
    "vggsound": vggsound,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "esc50": esc50,
    "charades": charades,
    "demo": demo,
}
FRONTEND_HELP = {
    "fps": "frames per second",
    "short_side": "shorter side of the frames in pixels",
    "sample_rate": "samples of sound per second",
    "n_fft": "samples of which a spectrum is taken",
    "hop_length": "samples from one spectrum to the next",
    "mels": "bands of the spectrogram",
    "win_length": "samples in a window, zeros around; 0: as n_fft",
}
EXAMPLES_SHOWN = 5


def prepare(
    listing: Listing,
    name: str,
    data_dir: str | os.PathLike[str],
    frontend: FrontEnd,
    *,
    jpeg_quality: int = 90,
    min_seconds: float = 1.0,
    max_seconds: float = 600.0,
    time_limit: float = 300.0,
    memory_limit: float | None = None,
    videos_per_shard: int = 128,
    workers: int | None = None,
    beam_options: Sequence[str] = (),
) -> str:
    """Makes the data set DATA_DIR/NAME of a listing, or goes on with making it; shows progress on stderr.

    Args:
      listing: of a source.
      name: of the data set.
      data_dir: directory of data sets.
      frontend: rates and sizes to convert to.
      jpeg_quality: of the frames, 1 to 100.
      min_seconds: shorter videos are rejected.
      max_seconds: longer videos are cut.
      time_limit: seconds after which a file that is still being decoded is rejected.
      memory_limit: gigabytes; a file whose decoding takes more is rejected. By default a share of the machine's memory.
      videos_per_shard: at most so many.
      workers: processes that decode; one per CPU core by default.
      beam_options: of Apache Beam; none: on this machine.

    Returns:
      What was written and what was not, as text.

    Raises:
      DatasetError: see `building.build`.
    """
    # Apache Beam and TensorFlow Datasets take seconds to import, and decoding processes import this module.
    from avshare_jax.data.building import Settings, build
    from avshare_jax.data.records import Contents

    started = time.monotonic()
    contents = Contents(frontend, jpeg_quality, listing.class_names, listing.multi_label, listing.split_names)
    settings = Settings(name, os.fspath(data_dir), contents, min_seconds, max_seconds, time_limit, videos_per_shard)
    settings = dataclasses.replace(settings, memory_limit=round(1e9 * (memory_limit or 0)))
    dataset, outcomes = build(
        listing,
        settings,
        workers=workers or os.cpu_count() or 1,
        beam_options=beam_options,
        progress=ProgressLine("videos prepared"),
    )
    counts = ", ".join(f"{split} {dataset.num_videos(split):,}" for split in dataset.splits)
    classes = f"{len(dataset.class_names)} classes" if dataset.class_names else "no labels"
    return "\n".join(
        [
            f"{dataset.directory}: videos by split: {counts}; {classes}; in {clock(time.monotonic() - started)}.",
            *describe(outcomes, listing),
            f"Report: {dataset.directory / 'prepare_report.html'}",
        ]
    )


def describe(outcomes: Sequence[Outcome], listing: Listing) -> list[str]:
    """Lines that say what became of the videos that were not used, or not wholly, with some examples each."""
    lines = []
    for outcome, count in collections.Counter(outcome.outcome for outcome in outcomes).items():
        if outcome == USED:
            continue
        lines.append(f"{outcome.capitalize()}: {count:,}")
        examples = [found for found in outcomes if found.outcome == outcome]
        lines += [f"  {found.path or found.video_id}: {found.reason}" for found in examples[:EXAMPLES_SHOWN]]
        if count > EXAMPLES_SHOWN:
            lines.append(f"  ... and {count - EXAMPLES_SHOWN:,} more, see videos.jsonl")
        if outcome in (NO_AUDIO, NO_VIDEO):
            lines.append("  (pretraining uses them with --config.data.keep_incomplete=True)")
    not_taken = [video.path for split, video, _ in listing.left_out if not split]
    if not_taken:
        lines.append(
            f"Files that look like media and are not taken: {len(not_taken):,}, for example {printable(not_taken[0])}"
        )
    if listing.unlisted:
        lines.append(
            f"Files that no annotation names or no split's folder holds: {len(listing.unlisted):,}, for example "
            f"{listing.unlisted[0]}"
        )
    return lines


def make_parser() -> argparse.ArgumentParser:
    """The command line: a subcommand for each source, with the source's own and the common options."""
    parser = argparse.ArgumentParser(
        prog="python -m avshare_jax.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, source in SOURCES.items():
        summary, _, details = (source.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n{details}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        source.add_arguments(command)
        add_common_arguments(command)
    return parser


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all sources have."""
    common = parser.add_argument_group("data set")
    common.add_argument("--name", required=True, help="name of the data set")
    common.add_argument("--data_dir", default="data", metavar="DIR", help="where data sets are (default: data)")
    common.add_argument(
        "--exclude_ids",
        action="append",
        default=[],
        metavar="FILE_OR_NAME",
        help="leave out videos whose id is in a file, one a line or a publisher's csv, or in that data set; repeat it",
    )
    common.add_argument("--min_seconds", type=float, default=1.0, help="reject shorter videos (default: 1)")
    common.add_argument("--max_seconds", type=float, default=600.0, help="cut longer videos (default: 600)")
    common.add_argument(
        "--time_limit", type=float, default=300.0, help="seconds that decoding a file may take (default: 300)"
    )
    common.add_argument(
        "--memory_limit",
        type=float,
        metavar="GB",
        help="gigabytes of memory that decoding a file may take (default: a share of this machine's for each worker)",
    )
    common.add_argument("--jpeg_quality", type=int, default=90, help="of the frames, 1 to 100 (default: 90)")
    common.add_argument(
        "--videos_per_shard",
        type=int,
        default=128,
        help="what an interruption can cost, for each worker (default: 128)",
    )
    common.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that decode (default: one per core)"
    )
    rates = parser.add_argument_group("front end")
    rates.add_argument(
        "--frontend", choices=PRESETS, default="avbert", help="name of rates and sizes (default: avbert)"
    )
    for field in dataclasses.fields(FrontEnd):
        explanation = f"{FRONTEND_HELP[field.name]} (avbert: {field.default})"
        rates.add_argument(f"--{field.name}", type=field.type, default=argparse.SUPPRESS, help=explanation)


def check_options(options: argparse.Namespace) -> None:
    """Raises `DatasetError` where a number of the common options makes no sense."""
    if not 1 <= options.jpeg_quality <= 100:
        raise DatasetError(f"--jpeg_quality={options.jpeg_quality} is no quality: use a number from 1 to 100.")
    if not 0 <= options.min_seconds < options.max_seconds:
        raise DatasetError(
            f"--min_seconds={options.min_seconds:g} and --max_seconds={options.max_seconds:g} leave no video: use 0 or "
            "more, and a maximum above the minimum."
        )
    if not options.time_limit > 0:
        raise DatasetError(f"--time_limit={options.time_limit:g} leaves no time for decoding: use a number above 0.")
    if options.memory_limit is not None and not 0 < options.memory_limit < float("inf"):
        raise DatasetError(f"--memory_limit={options.memory_limit:g} leaves no memory for decoding: use more than 0.")
    for name in ("videos_per_shard", "workers"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise DatasetError(f"--{name}={number} is too small: use 1 or more.")


def check_free(name: str, data_dir: str) -> None:
    """Raises `DatasetError` where a text is no data set's name, or a data set of that name is finished or cannot be."""
    from avshare_jax.data.dataset import is_unfinished
    from avshare_jax.data.records import check_name, dataset_directory
    from avshare_jax.outputs import check_folder

    check_name(name)
    directory = dataset_directory(data_dir, name)
    if directory.exists() and not is_unfinished(data_dir, name):
        raise DatasetError(f"The data set {directory} exists already: delete it, or use another name.")
    try:
        check_folder(directory.parent if directory.parent.exists() else directory.parent.parent)
    except UserError as error:
        raise DatasetError(str(error)) from error


def run(options: argparse.Namespace, beam_options: Sequence[str]) -> None:
    """Makes the data set that the command line asks for, and says what became of it."""
    given = {name: value for name, value in vars(options).items() if name in FRONTEND_HELP}
    try:
        frontend = dataclasses.replace(PRESETS[options.frontend], **given)
    except ValueError as error:
        raise DatasetError(str(error)) from error
    # Mistakes are said before files are listed or rendered, which may take long.
    check_options(options)
    check_free(options.name, options.data_dir)
    from avshare_jax.data.exclusion import exclude, read_ids  # As in `prepare`, this takes seconds to import.

    excluded = [read_ids(source, options.data_dir) for source in options.exclude_ids]
    listing = SOURCES[options.source].find_videos(options)
    for ids in excluded:
        listing, line = exclude(listing, ids)
        print(printable(line), flush=True)
    text = prepare(
        listing,
        options.name,
        options.data_dir,
        frontend,
        jpeg_quality=options.jpeg_quality,
        min_seconds=options.min_seconds,
        max_seconds=options.max_seconds,
        time_limit=options.time_limit,
        memory_limit=options.memory_limit,
        videos_per_shard=options.videos_per_shard,
        workers=options.workers,
        beam_options=beam_options,
    )
    print(printable_lines(text))
    print(f"Train on it with --config.data.name={options.name} --config.data.data_dir={options.data_dir}", end="")
    different = dataclasses.asdict(frontend).items() - dataclasses.asdict(FrontEnd()).items()
    print("".join(f" --config.data.frontend.{name}={value}" for name, value in sorted(different)))


def end_without_memory(failed: threading.ExceptHookArgs) -> None:
    """Ends the process where one of Beam's threads lacks memory: the others would wait for it for ever."""
    if not (sentence := shortage(failed.exc_value)):
        threading.__excepthook__(failed)
        return
    print(f"error: {sentence} Finished shards are kept; give the same command again then.", file=sys.stderr, flush=True)
    os._exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    quiet_libraries()
    allow_open_files()
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    options = make_parser().parse_args(given[:end])
    threading.excepthook = end_without_memory
    try:
        run(options, given[end + 1 :])
    except DatasetError as error:
        sys.exit(f"error: {printable_lines(str(error))}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Give the same command again to go on.")
    except Exception as error:
        if not (sentence := shortage(error)):
            raise
        sys.exit(f"error: {sentence}")


if __name__ == "__main__":  # Decoding processes import this file.
    main()
