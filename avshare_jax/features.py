"""Features of videos, of every clip and of the whole video, from a run's network.

    python -m avshare_jax.features --checkpoint=WORKDIR --input=FOLDER --output=FILE.npz
    python -m avshare_jax.features --checkpoint=WORKDIR --input=NAME --split=test --output=FILE.parquet

The input is a folder of media files, one file, or a prepared data set. Files without image or without sound, and short
ones, are welcome; those that cannot be used are listed and skipped. An interrupted command goes on when it is given
again. In Python:

    from avshare_jax.features import load
    encoder = load("runs/demo")
    features = encoder.encode("video.mp4")      # by name, such as features["unimodal_audio_clips"] (C, D)

docs/features.md has the names, the layout of both kinds of files, and how long videos are cut.
"""

import argparse
import collections
import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avshare_jax.data.decoding import DecodingProcesses
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.names import printable_lines, printable_path
from avshare_jax.data.outcomes import USED
from avshare_jax.data.sources.listing import Video, check_distinct
from avshare_jax.data.sources.media_files import MEDIA_SUFFIXES, find_media, is_other_media, why_not_taken
from avshare_jax.data.workers import memory_per_worker
from avshare_jax.progress import ProgressLine
from avshare_jax.settings import UserError, allow_open_files, quiet_libraries

# JAX and TensorFlow Datasets take seconds to import, and decoding processes import this module.
if TYPE_CHECKING:
    from avshare_jax.data.dataset import Dataset
    from avshare_jax.evaluation.encoder import Encoder
    from avshare_jax.evaluation.feature_files import EncodedVideo

VIDEOS_PER_PART, CLIPS_PER_PART = 64, 4096
"""A part is full with so many of either: what an interruption can cost, and what memory holds the features of."""
EXAMPLES_SHOWN = 5

Item = tuple[str, dict[str, Any] | None, str]
"""A video's id; its record, or None where it cannot be used; and why, or what is odd about it."""


def load(workdir: str | os.PathLike[str], batch_size: int = 1) -> "Encoder":
    """Loads the network of a run's last checkpoint, trained or imported.

    Args:
      workdir: of the run.
      batch_size: windows (S clips each) that the network takes at once.

    Returns:
      An encoder, whose `encode(path)` returns a media file's features by name.

    Raises:
      UserError: there is no run or no checkpoint in `workdir`, or JAX cannot start its devices.
    """
    from absl import logging

    from avshare_jax.devices import check_devices
    from avshare_jax.evaluation.encoder import Encoder

    check_devices()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what is meant to be so.
    try:
        return Encoder.of(workdir, batch_size)
    finally:
        logging.set_verbosity(verbosity)


def find_files(source: Path) -> list[Video]:
    """The media files of a folder by their paths in it, or the one file that a path names.

    Those that look like media and cannot be taken come last, so that they are skipped with a reason.

    Raises:
      DatasetError: there is no media file, or two would have the same id.
    """
    if source.is_file():
        return [Video(printable_path(source.name), str(source))]
    found = find_media(source)
    if not found.taken:
        raise DatasetError(f"There is no media file in {source}: no file ends in {', '.join(MEDIA_SUFFIXES)}.")
    videos = [Video(printable_path(path.relative_to(source)), str(path)) for path in (*found.taken, *found.others)]
    check_distinct([video.video_id for video in videos], f"files in {source}")
    return videos


def read_files(videos: Sequence[Video], encoder: "Encoder", options: argparse.Namespace) -> Iterator[Item]:
    """Decodes media files in processes, some ahead, in the order that they are given in."""
    from avshare_jax.evaluation.encoder import JPEG_QUALITY

    processes = DecodingProcesses(
        options.workers,
        encoder.frontend,
        jpeg_quality=JPEG_QUALITY,
        min_seconds=0.0,
        max_seconds=options.max_seconds,
        time_limit=options.time_limit,
        memory_limit=round(1e9 * (options.memory_limit or 0)) or memory_per_worker(options.workers),
    )
    started = collections.deque()
    waiting = iter(videos)
    try:
        while True:
            while len(started) < 2 * options.workers and (video := next(waiting, None)):
                taken = not is_other_media(video.path)
                started.append((video, processes.start(video, "") if taken else None))
            if not started:
                return
            video, future = started.popleft()
            if future is None:
                yield video.video_id, None, why_not_taken(video.path)
                continue
            record, outcome = processes.finish(future, video, "")
            sentences = (outcome.reason, *outcome.notes) if outcome.outcome != USED else outcome.notes
            yield video.video_id, record, " ".join(filter(None, sentences))
    finally:
        processes.stop()


def read_records(dataset: "Dataset", split: str, first: int) -> Iterator[Item]:
    """Reads the records of a split in their order, from number `first` on."""
    from avshare_jax.data.elements import Records
    from avshare_jax.data.unreadable import Unreadable, read_id

    records = Records.of(dataset, split)
    for number in range(first, len(records.source)):
        found = records.use(number, lambda record: record)
        if isinstance(found, Unreadable):
            yield found.video_id or f"record {number}", None, f"{found.reason}."
        else:
            lacks = [what for flag, what in (("has_video", "image"), ("has_audio", "sound")) if not found[flag]]
            yield read_id(found), found, f"It has no {lacks[0]}." if lacks else ""


def run(options: argparse.Namespace) -> None:
    """Computes the features that the command line asks for, and says what became of the videos."""
    from avshare_jax.evaluation.feature_files import SUFFIXES, FeatureFile, Layout, to_arrays
    from avshare_jax.outputs import check_folder

    check_options(options, SUFFIXES)
    check_folder(Path(options.output).parent)
    # Before the network, whose loading takes seconds.
    source = Path(os.path.expanduser(options.input))
    dataset = None if source.exists() else open_prepared(options)
    videos = find_files(source) if dataset is None else []
    encoder = load(options.checkpoint, options.batch_size)
    if dataset is None:
        total, class_names = len(videos), ()
        identity: dict[str, Any] = {"files": total, "names_sizes_and_times": digest(videos)}
    else:
        check_fits(dataset, encoder)
        total, class_names = dataset.num_videos(options.split), dataset.class_names
        identity = {"dataset": dataset.name, "fingerprint": dataset.fingerprint, "split": options.split}
    settings = {
        "run": encoder.config.name,
        "step": encoder.step,
        "weights": encoder.weights_digest(),
        "input": identity,
        "max_seconds": options.max_seconds if dataset is None else None,
        "batch_size": encoder.batch_size,
    }
    with writing(Path(options.output)):
        file = FeatureFile(Path(options.output), settings)
    if file.is_finished:
        print(f"{file.path} holds these features already.")
        return
    layout = Layout(encoder.widths(), class_names)
    done = file.num_videos()
    if done:
        print(f"Going on after {done} of {total} videos.", flush=True)
    items = (
        read_files(videos[done:], encoder, options) if dataset is None else read_records(dataset, options.split, done)
    )
    progress = ProgressLine("videos encoded")
    while any(part := encode_part(items, encoder)):
        with writing(file.path):
            file.add_part(to_arrays(*part, layout))
        done += sum(map(len, part))
        progress(done, total)
    with writing(file.path):
        about = file.finish(layout)
    report(about, file.path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises `UserError` where the output cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(shortage(error) or f"{path} cannot be written: {error.strerror or error}.") from error


def encode_part(items: Iterator[Item], encoder: "Encoder") -> tuple[list["EncodedVideo"], list[tuple[str, str]]]:
    """Takes the videos of a part, as many as there are, and encodes them; returns ids and reasons of those skipped."""
    from avshare_jax.data.windows import count_clips
    from avshare_jax.evaluation.feature_files import EncodedVideo

    encoded, skipped, started = [], [], collections.deque()

    def usable() -> Iterator[dict[str, Any]]:
        num_clips = 0
        for name, record, note in itertools.islice(items, VIDEOS_PER_PART):
            if record is None:
                skipped.append((name, note))
                continue
            lengths = len(record["frames"]) / encoder.clips.fps, len(record["log_mel"]) / encoder.clips.mel_rate
            has = bool(record["has_video"]), bool(record["has_audio"])
            started.append(partial(EncodedVideo, name, *has, max(lengths), note, label_numbers(record)))
            num_clips += count_clips(record, encoder.clips)
            yield record
            if num_clips >= CLIPS_PER_PART:
                return

    for found in encoder.encode_records(usable()):
        video = started.popleft()
        if isinstance(found, str):
            skipped.append((video.args[0], f"{found}."))
        else:
            encoded.append(video(found))
    return encoded, skipped


def label_numbers(record: dict[str, Any]) -> list[int]:
    """Numbers of the classes of a data set's record; a media file has none."""
    if "label" in record:
        return [int(record["label"])] if record["label"] >= 0 else []
    return [int(number) for number in record["labels"]]


def open_prepared(options: argparse.Namespace) -> "Dataset":
    """Opens the data set that the input names; `DatasetError` where it is none, or has no such split."""
    from avshare_jax.data.dataset import open_dataset
    from avshare_jax.data.records import check_name

    try:
        check_name(options.input)
        dataset = open_dataset(options.data_dir, options.input)
    except DatasetError as error:
        raise DatasetError(
            f"--input={options.input} is neither a folder or file nor a data set in {options.data_dir}: {error}"
        ) from error
    dataset.parts(options.split)
    return dataset


def check_fits(dataset: "Dataset", encoder: "Encoder") -> None:
    """Raises `DatasetError` where a data set was made with another front end than the run's."""
    from avshare_jax.data.dataset import check_frontend

    check_frontend(dataset, encoder.config.data.frontend)


def digest(videos: Sequence[Video]) -> str:
    """Twelve hexadecimal digits that differ for files that differ in name, size or time of their last change."""
    found = [(v.video_id, *describe_file(v.path)) for v in videos]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]


def describe_file(path: str) -> tuple[int, int]:
    """A file's size in bytes and the time of its last change in nanoseconds; -1 where it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def report(about: dict[str, Any], path: Path) -> None:
    """Says what was written and what was skipped; `UserError` where nothing could be used."""
    skipped = about["skipped"]
    lines = [f"  {video['video_id']}: {video['reason']}" for video in skipped[:EXAMPLES_SHOWN]]
    if len(skipped) > EXAMPLES_SHOWN:
        lines.append(
            f"  ... and {len(skipped) - EXAMPLES_SHOWN:,} more, see docs/features.md for where they are listed"
        )
    if not about["videos"]:
        raise UserError("\n".join([f"None of the {len(skipped):,} videos can be used:", *lines]))
    print(
        f"{path}: {about['videos']:,} videos ({about['without_audio']:,} without sound, {about['without_video']:,} "
        f"without image), {about['clips']:,} clips; skipped {len(skipped):,}."
    )
    print("\n".join(lines), end="\n" if lines else "")


def check_options(options: argparse.Namespace, suffixes: Sequence[str]) -> None:
    """Raises `UserError` where an option makes no sense."""
    if not options.output.endswith(tuple(suffixes)):
        raise UserError(f"--output={options.output} must end in {' or '.join(suffixes)}.")
    for name in ("batch_size", "workers"):
        if (number := getattr(options, name)) < 1:
            raise UserError(f"--{name}={number} is too small: use 1 or more.")
    for name in ("max_seconds", "time_limit", "memory_limit"):
        if (number := getattr(options, name)) is not None and not number > 0:
            raise UserError(f"--{name}={number:g} is too small: use a number above 0.")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m avshare_jax.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    expanded = os.path.expanduser
    parser.add_argument("--checkpoint", required=True, type=expanded, metavar="WORKDIR", help="folder of the run")
    parser.add_argument("--input", required=True, help="folder of media files, one file, or name of a data set")
    parser.add_argument("--output", required=True, type=expanded, metavar="FILE", help="ends in .npz or .parquet")
    parser.add_argument("--data_dir", default="data", metavar="DIR", help="where data sets are (default: data)")
    parser.add_argument("--split", default="test", help="of the data set; join several with + (default: test)")
    parser.add_argument("--batch_size", type=int, default=8, help="windows that the network takes at once (default: 8)")
    parser.add_argument(
        "--max_seconds", type=float, default=600.0, help="leave out what comes later in a file (default: 600)"
    )
    parser.add_argument(
        "--time_limit", type=float, default=300.0, help="seconds that decoding a file may take (default: 300)"
    )
    parser.add_argument(
        "--memory_limit",
        type=float,
        metavar="GB",
        help="gigabytes of memory that decoding a file may take (default: a share of this machine's for each worker)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that decode (default: one per core)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    quiet_libraries()
    allow_open_files()
    options = make_parser().parse_args(arguments)
    try:
        run(options)
    except (UserError, DatasetError) as error:
        sys.exit(f"error: {printable_lines(str(error))}")
    except OSError as error:
        if sentence := shortage(error):
            sys.exit(f"error: {sentence}")
        name = printable_path(error.filename or options.input)
        sys.exit(f"error: {name} cannot be used: {error.strerror or error}.")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Give the same command again to go on.")
    except Exception as error:
        if not (sentence := shortage(error)):
            raise
        sys.exit(f"error: {sentence}")


if __name__ == "__main__":  # Decoding processes import this file.
    main()
