"""Builds a data set from a listing of videos with Apache Beam; killed at any moment, it can be gone on with.

Each element of the pipeline is one shard. Which videos it holds depends on their ids alone, it appears atomically, and
one that is there is not made again, so that the data set is the same bytes however often its preparation was
interrupted. Files are decoded in child processes with a time limit, because a decoder may hang or crash.

DATA_DIR/NAME/VERSION/    the data set: shards, TFDS's descriptions, `videos.jsonl`, the report
DATA_DIR/NAME/unfinished/ while it is built: what is being made and of what, the outcomes of each shard's videos, a lock
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence

from avshare_jax.data import records, report
from avshare_jax.data.dataset import Dataset, read_dataset
from avshare_jax.data.decoding import rejected
from avshare_jax.data.errors import DatasetError, shortage
from avshare_jax.data.extraction import UNEXPECTED
from avshare_jax.data.outcomes import MISSING, REJECTED, UNLISTED, VIDEOS, Outcome, read_outcomes, write_outcomes
from avshare_jax.data.records import SETTINGS, Contents
from avshare_jax.data.shard_pipeline import (
    beam_mistakes,
    listening,
    make_pipeline,
    run_pipeline,
    sentence_within,
    unwritable,
)
from avshare_jax.data.shards import Settings, Shard, divide
from avshare_jax.data.sources.listing import Listing
from avshare_jax.data.unfinished import begin, check_new, locked
from avshare_jax.data.workers import memory_per_worker

NOT_NAMED = "No annotation names it, or it is in no split's folder."


def build(
    listing: Listing,
    settings: Settings,
    *,
    workers: int,
    beam_options: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Dataset, list[Outcome]]:
    """Builds the data set of a listing, or goes on with building it.

    Args:
      listing: of a source.
      settings: how videos become records.
      workers: decoding processes, where Beam runs on this machine.
      beam_options: Beam's own options, such as `--runner=FlinkRunner`; none: on this machine.
      progress: called with the number of videos that are done and of all.

    Returns:
      The data set, and what became of every video.

    Raises:
      DatasetError: the data set exists already, is being prepared by another process, was begun with other settings or
        videos, or cannot be written; Beam does not accept its options; or no video is readable.
    """
    settings = dataclasses.replace(settings, memory_limit=settings.memory_limit or memory_per_worker(workers))
    shards = [shard for split in sorted(listing.splits) for shard in divide(split, listing.splits[split], settings)]
    with make_pipeline(workers, beam_options) as pipeline, _sentences(settings):
        check_new(settings)
        with locked(settings):
            begin(listing, settings)
            unfinished = [shard for shard in shards if not shard.is_finished(settings)]
            total, waiting = (sum(len(shard.videos) for shard in some) for some in (shards, unfinished))
            with listening(progress, done=total - waiting, total=total), beam_mistakes(expected=bool(beam_options)):
                run_pipeline(pipeline, unfinished, settings)
            return finish(listing, shards, settings)


@contextlib.contextmanager
def _sentences(settings: Settings) -> Iterator[None]:
    """Turns what the disk and Beam raise into a `DatasetError`."""
    try:
        yield
    except OSError as error:
        raise unwritable(settings.directory, error) from error
    except Exception as error:  # Beam gives the message of an error in a worker, within its traceback.
        if sentence := sentence_within(error):
            raise DatasetError(sentence) from error
        if sentence := shortage(error):
            raise DatasetError(f"{sentence} Finished shards are kept; give the same command again then.") from error
        raise


def finish(listing: Listing, shards: Sequence[Shard], settings: Settings) -> tuple[Dataset, list[Outcome]]:
    """Describes the data set whose shards are all there, writes its report, and calls it finished."""
    found = {shard: list(read_outcomes(shard.outcomes(settings))) for shard in shards}
    lengths: dict[str, list[int]] = {}
    for shard, outcomes in found.items():
        used = sum(outcome.outcome != REJECTED for outcome in outcomes)
        lengths.setdefault(shard.split, []).append(used)
    outcomes = [outcome for shard in shards for outcome in found[shard]]
    outcomes += [Outcome(video_id, video_id, "", "", (), MISSING, reason) for video_id, reason in listing.missing]
    outcomes += [rejected(video, split, reason) for split, video, reason in listing.left_out]
    usable = {split: counts for split, counts in lengths.items() if sum(counts)}
    if not usable:
        settings.directory.rmtree()
        (settings.notes / SETTINGS).unlink()
        raise DatasetError(_why_none(outcomes))
    unlisted = [Outcome(path, path, "", path, (), UNLISTED, NOT_NAMED) for path in listing.unlisted]
    write_outcomes(settings.directory / VIDEOS, [*outcomes, *unlisted])
    info = records.dataset_info(settings.name, settings.data_dir, _with_splits(settings.contents, usable))
    records.write_info(settings.directory, info, usable)
    dataset = read_dataset(settings.data_dir, settings.name)
    report.write_report(dataset, outcomes, listing.unlisted, settings.directory)
    (settings.notes / SETTINGS).unlink()  # From here on, the data set is finished.
    return dataset, outcomes


def _with_splits(contents: Contents, splits: Collection[str]) -> Contents:
    """The contents with split names that stand for those of the splits that there are, without names for nothing."""
    named = {
        name: "+".join(part for part in union.split("+") if part in splits)
        for name, union in contents.split_names.items()
    }
    return dataclasses.replace(contents, split_names={name: union for name, union in named.items() if union})


def _why_none(outcomes: Sequence[Outcome]) -> str:
    """The sentence for a data set of which no video can be used."""
    if not outcomes:
        return "There is no readable video: no media file was found."
    failed, count = outcomes[0], len(outcomes)
    if count > 1 and failed.reason.startswith(UNEXPECTED) and {other.reason for other in outcomes} == {failed.reason}:
        return (
            f"All {count} files fail in the same way, so it is hardly the files but this machine or the installation: "
            f"{failed.reason}"
        )
    name = failed.path or failed.video_id
    return f"There is no readable video: {count} failed, for example {name} ({failed.reason.rstrip('.')})."
