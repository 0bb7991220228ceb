"""How fast data is prepared and read, each beside the decoding that it cannot do without, measured in turns.

Of four measurements, the command line chooses some, or without a choice all, which takes some minutes:

reading      clips a second and core in a worker process or a thread, and the share of bare JPEG decoding's speed
preparation  seconds of video a core-second, and the share of bare decoding of the media files
start        seconds from opening a data set of many records to the first batch
memory       of a worker process over many batches

Speeds count the time that cores were busy, which other work on the machine changes less than it changes the clock.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import simplejpeg
from ml_collections import ConfigDict

from avshare_jax.benchmark.figures import Figures, not_negative, note, positive, spread, timed
from avshare_jax.data.batches import train_batches
from avshare_jax.data.extraction import extract
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.sources.listing import Video
from avshare_jax.data.synthetic import encode_video, make_record

READERS = {"worker process": 1, "thread": 0}
"""Who reads: name → `num_workers`."""

LIBRARIES = ("av", "array_record", "librosa", "opencv-python-headless", "simplejpeg")
TINY = FrontEnd(fps=16.0, short_side=32, sample_rate=16_000, n_fft=1_000, hop_length=500, mels=8)


def data_config(**changes: Any) -> ConfigDict:
    """`config.data` of the recipe, as far as reading takes it, with one worker process."""
    sizes = {"num_clips": 30, "frames_per_clip": 16, "mel_frames": 128, "min_short_side": 128, "max_short_side": 160}
    reading = {"num_workers": 1, "prefetch": 2, "keep_incomplete": False, "max_unreadable_share": 0.0}
    return ConfigDict({"train_split": "train", "frame_stride": 1, "crop": 112, **sizes, **reading, **changes})


def tiny_config(num_frames: int, **changes: Any) -> ConfigDict:
    """As `data_config`, for records of `TINY`: two clips in `num_frames` frames."""
    sizes = {"num_clips": 2, "frames_per_clip": num_frames // 2, "mel_frames": num_frames}
    return data_config(**sizes, min_short_side=28, max_short_side=32, crop=24, **changes)


def write(directory: Path, frontend: FrontEnd, records: list[dict[str, Any]]) -> None:
    """Writes the data set "benchmark" with the split "train"."""
    # TensorFlow Datasets comes in only here: worker processes, which import this file, do without.
    from avshare_jax.data.records import Contents, write_dataset

    write_dataset("benchmark", directory, {"train": records}, Contents(frontend, 90))


def open_batches(directory: Path, config: ConfigDict, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Opens the data set "benchmark" and begins to read it."""
    from avshare_jax.data.dataset import open_dataset

    return train_batches(open_dataset(directory, "benchmark"), config, seed=0, batch_size=batch_size)


def workers() -> list[psutil.Process]:
    """The worker processes of this process that are running."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def busy_seconds() -> float:
    """Seconds for which this process and its workers have kept a core busy."""
    return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), *workers()))


def measure_reading(directory: Path, repeats: int, videos: int, config: ConfigDict) -> Figures:
    """Reads recipe-like videos in a worker process and in a thread, and, in turns, only decodes the same frames.

    Args:
      directory: for the data set.
      repeats: turns of each.
      videos: in a turn.
      config: from `data_config`.
    """
    num_frames = config.num_clips * config.frames_per_clip
    widths = (213, 284)  # 4:3 and 16:9, of 160 pixels height
    records = [make_record(number, FrontEnd(), num_frames, widths[number % 2]) for number in range(4)]
    # To shuffle fewer than a hundred numbers takes Grain milliseconds for each.
    write(directory, FrontEnd(), [record | {"video_id": str(copy)} for copy in range(25) for record in records])
    jpegs = [jpeg for record in records for jpeg in record["frames"]]
    speeds: dict[str, list[float]] = {name: [] for name in ("decoding alone", *READERS)}
    for _ in range(repeats):
        for name, num_workers in READERS.items():
            config.num_workers = num_workers
            with closing(open_batches(directory, config, batch_size=1)) as batches:
                speeds[name].append(videos * config.num_clips / core_seconds(batches, videos))
        # Of this thread alone: what read ahead above may not be at its end.
        seconds = timed(lambda: decode_images(jpegs), time.thread_time)
        speeds["decoding alone"].append(len(jpegs) / config.frames_per_clip / seconds)
    figures: Figures = {}
    for name, values in speeds.items():
        figures |= spread(f"clips a second and core, {name}", values)
    for name in READERS:
        shares = [speed / bare for speed, bare in zip(speeds[name], speeds["decoding alone"], strict=True)]
        figures |= spread(f"share of decoding alone, {name}", shares)
    return figures | {"bytes a frame": statistics.mean(map(len, jpegs))}


def decode_images(jpegs: list[bytes]) -> None:
    """Decodes images as the pipeline does, and drops them."""
    for jpeg in jpegs:
        simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=True)


def core_seconds(batches: Iterator[Any], count: int) -> float:
    """Seconds for which cores are busy to read `count` batches, while the reader is as far ahead as it gets."""
    for _ in range(4):
        next(batches)
    busy = busy_seconds()
    for _ in range(count):
        next(batches)
    return max(busy_seconds() - busy, 0.01)  # The system counts in hundredths of a second.


def measure_preparation(directory: Path, repeats: int, seconds: int) -> Figures:
    """Prepares a generated file and, in turns, only decodes it; `seconds` is its duration."""
    path = directory / "video.mp4"
    encode_video(path, seconds)
    options = {"jpeg_quality": 90, "min_seconds": 0.0, "max_seconds": float(seconds)}

    def prepare() -> None:
        record, outcome = extract(Video("video", str(path)), "train", FrontEnd(), **options)
        if record is None:  # A failure is not to be taken for speed.
            raise RuntimeError(f"the benchmark's own video was rejected: {outcome.reason}")

    prepare()  # The first time, libraries are loaded and tables computed.
    prepared, bare = [], []
    for _ in range(repeats):
        prepared.append(seconds / timed(prepare, time.process_time))
        bare.append(seconds / timed(lambda: decode(path), time.process_time))
    return {
        **spread("seconds of video a core-second", prepared),
        **spread("seconds of video a core-second, decoding alone", bare),
        **spread("share of the time that is decoding", [a / b for a, b in zip(prepared, bare, strict=True)]),
    }


def decode(path: Path) -> None:
    """Decodes all image and sound of a file, and drops it."""
    with av.open(str(path)) as container:
        for _ in container.decode():
            pass


def measure_start(directory: Path, repeats: int, records: int, num_workers: int) -> Figures:
    """Opens a data set of many records and reads the first batch, with new worker processes each time."""
    record = make_record(0, TINY, 4, 40)
    write(directory, TINY, [record | {"video_id": f"video_{number}"} for number in range(records)])
    seconds = []
    for _ in range(repeats):
        started = time.monotonic()
        with closing(open_batches(directory, tiny_config(4, num_workers=num_workers), batch_size=16)) as batches:
            next(batches)
            seconds.append(time.monotonic() - started)
    return {**spread("seconds to the first batch", seconds), "records": records, "worker processes": num_workers}


def measure_memory(directory: Path, batches: int) -> Figures:
    """Reads many batches through one worker process and looks at its resident memory ten times."""
    # Of many lengths and widths, as the videos of a data set are.
    records = [make_record(number, TINY, 8 + number % 50, 33 + number % 29) for number in range(100)]
    write(directory, TINY, records)
    megabytes = []
    with closing(open_batches(directory, tiny_config(8), batch_size=4)) as read:
        for count in range(1, batches + 1):
            next(read)
            if count % max(1, batches // 10) == 0:
                megabytes.append(sum(worker.memory_info().rss for worker in workers()) / 1e6)
    return {
        "MB after a tenth": megabytes[0],
        "MB at the end": megabytes[-1],
        "MB at most": max(megabytes),
        "batches": batches,
    }


MEASUREMENTS: dict[str, Callable[[Path, argparse.Namespace], Figures]] = {
    "reading": lambda folder, options: measure_reading(folder, options.repeats, options.videos, data_config()),
    "preparation": lambda folder, options: measure_preparation(folder, options.repeats, options.seconds),
    "start": lambda folder, options: measure_start(folder, options.repeats, options.records, options.workers),
    "memory": lambda folder, options: measure_memory(folder, options.batches),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    known = ", ".join(MEASUREMENTS)
    parser.add_argument("only", nargs="*", metavar="MEASUREMENT", type=measurement, help=f"{known}; without: all")
    parser.add_argument("--directory", type=Path, help="where the data is made, for some minutes; by default a new one")
    parser.add_argument("--videos", type=positive, default=20, help="of 480 frames in each turn of reading")
    parser.add_argument("--seconds", type=positive, default=20, help="of video in each turn of preparation")
    parser.add_argument("--records", type=positive, default=100_000, help="in the data set that is opened for start")
    parser.add_argument("--workers", type=not_negative, default=2, help="processes for start; 0: a thread")
    parser.add_argument("--batches", type=positive, default=10_000, help="over which memory is watched")


def measurement(name: str) -> str:
    """Parses the name of a measurement."""
    if name not in MEASUREMENTS:
        raise argparse.ArgumentTypeError(f"there is no {name}: choose among {', '.join(MEASUREMENTS)}")
    return name


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Measures what was chosen."""
    results = {}
    for name in options.only or MEASUREMENTS:
        note(f"measuring {name} ...")
        with tempfile.TemporaryDirectory(dir=options.directory) as folder:
            results[name] = MEASUREMENTS[name](Path(folder), options)
    return results
