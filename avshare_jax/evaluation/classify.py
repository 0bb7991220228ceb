"""Tests a classification run on every video of a split: accuracies, with one modality and with both, and lists."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax.data.batches import multi_view_batches
from avshare_jax.data.dataset import Dataset
from avshare_jax.data.elements import FLAGS
from avshare_jax.data.mixtures import Mixture
from avshare_jax.data.outcomes import MISSING, REJECTED, VIDEOS, read_outcomes
from avshare_jax.data.unreadable import Unreadable, UnreadableRecords, from_text, to_text
from avshare_jax.evaluation import classification_report
from avshare_jax.evaluation.classification_metrics import class_table, confusion_matrix, measure
from avshare_jax.evaluation.multi_view import Video, jit_scorer, pooled, score_videos, view_mesh, whole_batch
from avshare_jax.evaluation.opening import open_checkpoint, open_known_dataset, set_chosen
from avshare_jax.evaluation.overlap import Overlap, find_overlap
from avshare_jax.evaluation.runs import draw, record, writing_measures
from avshare_jax.models.avbert import INPUTS
from avshare_jax.progress import stage, with_progress
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import load_identity, restore_variables
from avshare_jax.training.classification import Batch, Classification, Variables
from avshare_jax.training.finetune import check_classes, check_labels, check_positions
from avshare_jax.training.hosts import gather
from avshare_jax.training.plan import abstract_batch

BOTH = "both"
NO_LABEL = "has no label"
SEEN = "was seen in pretraining"
LACKS = {"visual": "has no image", "audio": "has no sound"}


@dataclass(frozen=True)
class Run:
    """A classification run, with what the evaluation's config changes.

    Attributes:
      config: of the run, with the evaluation's `data` and `test` in it.
      workdir: of the run.
      step: of the checkpoint.
      dataset: what it is tested on.
      batch_size: views, of all processes.
      overlap: what the split has in common with the videos that the network was pretrained on; None: it was not.
      excluded: ids of videos that are left out because of it.
      unreadable: records that this process could not read.
    """

    config: ConfigDict
    workdir: epath.Path
    step: int
    dataset: Dataset
    batch_size: int
    overlap: Overlap | None = None
    excluded: frozenset[str] = frozenset()
    unreadable: UnreadableRecords = field(default_factory=UnreadableRecords)

    @property
    def split(self) -> str:
        """The name of the split that is tested."""
        return self.config.data.eval_split

    def batches(self) -> Iterator[dict[str, Any]]:
        """Yields this process's rows of all views of the split, each once."""
        test, data = self.config.test, self.config.data.copy_and_resolve_references()
        data.update(crop=test.crop, min_short_side=test.short_side, max_short_side=test.short_side)
        batches = multi_view_batches(
            self.dataset,
            self.split,
            data,
            batch_size=self.batch_size,
            short_side=test.short_side,
            temporal_views=test.temporal_views,
            spatial_views=test.spatial_views,
            unreadable=self.unreadable,
            modalities=tuple(self.config.task.modalities),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        views = self.dataset.num_videos(self.split) * test.temporal_views * test.spatial_views
        return with_progress(batches, -(-views // jax.process_count()), "views")


@dataclass(frozen=True)
class Scored:
    """The tested videos.

    Attributes:
      video_ids: of the N videos that count.
      labels: (N,) numbers of classes, or (N, C) of zeros and ones.
      scores: (N, C) float64 by the choice of modalities.
      counted: (N,) bool by the choice of modalities: whether a video has one of them.
      skipped: id of each video that does not count → the reason.
    """

    video_ids: list[str]
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    counted: dict[str, np.ndarray]
    skipped: dict[str, str]


def evaluate(config: ConfigDict, workdir: epath.PathLike, step: int | None = None) -> dict[str, Any]:
    """Tests a checkpoint, prints the table, and writes files.

    They are WORKDIR/eval/STEP.videos.jsonl, a line for each video with its label, what it was taken for, and why it was
    skipped; WORKDIR/eval/STEP.json; and then a picture and a page in WORKDIR/report/.

    Args:
      config: `configs/eval.py`.
      workdir: of the run.
      step: of a checkpoint; None: the last.

    Returns:
      What STEP.json holds; shares are 0..1.

    Raises:
      UserError, DatasetError: there is no run or checkpoint, it does not fit the data set, or what was measured cannot
        be written.
    """
    run = open_run(config, workdir, step)
    task = Classification(run.config)
    test, num_videos = run.config.test, run.dataset.num_videos(run.split)
    print(
        f"Testing step {run.step} of {run.workdir} on all {num_videos:,} videos of {run.dataset.name}, split "
        f"{run.split}: {test.temporal_views} x {test.spatial_views} views each, pooled by {test.pool}.",
        flush=True,
    )
    with stage("scores"):
        mesh = view_mesh()
        scored = score_run(run, task, mesh)
    if not scored.video_ids:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(scored.skipped.values()).items())
        raise UserError(f"No video of {run.dataset.name}, split {run.split}, can be tested: {reasons}.")
    evaluation = summarize(run, scored)
    print(f"\n{classification_report.format_table(evaluation)}\n", flush=True)
    if jax.process_index() == 0:
        write(run, evaluation, scored)
        print(f"Files: {run.workdir / 'eval' / str(run.step)}.*", flush=True)
        draw(lambda: classification_report.write_report(run.workdir / "report", evaluation))
    return evaluation


def open_run(config: ConfigDict, workdir: epath.PathLike, step: int | None = None) -> Run:
    """Reads the run in `workdir` and opens the data set; `UserError` where something is missing or does not match."""
    workdir, run_config, step = open_checkpoint(workdir, step)
    with run_config.ignore_type():
        set_chosen(run_config.data, config.data)
        set_chosen(run_config.test, config.test)
    check_positions(run_config)
    data, test = run_config.data, run_config.test
    if test.crop > test.short_side:
        raise UserError(f"config.test.crop={test.crop} must be at most config.test.short_side={test.short_side}.")
    dataset = open_known_dataset(data, workdir, load_identity(workdir))
    check_labels(Mixture((dataset,)), Classification(run_config).multi_label)
    check_classes(dataset.name, dataset.class_names, run_config.task.class_names, f"the run in {workdir}")
    if not dataset.num_videos(data.eval_split):
        raise UserError(
            f"The split {data.eval_split} of the data set {dataset.name} is empty: there is nothing to test."
        )
    overlap = overlap_with_pretraining(run_config, dataset)
    excluded = overlap.to_exclude() if overlap and config.exclude_pretraining_videos else frozenset()
    return Run(
        run_config, workdir, step, dataset, whole_batch(config.batch_size, test.spatial_views), overlap, excluded
    )


def overlap_with_pretraining(run_config: ConfigDict, dataset: Dataset) -> Overlap | None:
    """Compares the tested split with the videos of the run that this one started from; None: from random weights."""
    if run_config.init_from is None:
        return None
    source = epath.Path(run_config.init_from).expanduser()
    if not (source / "config.json").exists():
        gone = f"The run in {run_config.init_from} is no longer there, and nothing says which videos it has seen."
        return Overlap(None, not_compared=(gone,))
    return find_overlap(source, dataset, run_config.data.eval_split)


def choices(modalities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The choices of modalities that a task is tested with: what it has, and of two, each alone."""
    alone = {name: (name,) for name in modalities}
    return alone if len(modalities) == 1 else {BOTH: modalities, **alone}


def score_run(run: Run, task: Classification, mesh: Mesh) -> Scored:
    """Scores all videos of the split with each choice of modalities."""
    modalities = tuple(run.config.task.modalities)
    inputs = tuple(INPUTS[name] for name in modalities)
    flags = tuple(FLAGS[name] for name in modalities) if len(modalities) > 1 else ()
    tested = choices(modalities)

    def apply(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        variants = [
            {name: batch[FLAGS[name]] & (name in chosen) for name in modalities} if flags else {}
            for chosen in tested.values()
        ]
        features = {name: batch[name] for name in inputs}
        return dict(zip(tested, task.scores(variables, features, variants), strict=True))

    videos = score_videos(
        jit_scorer(apply, mesh),
        load_variables(run, task, mesh),
        run.batches(),
        (*inputs, *flags),
        run.config.test.pool,
        mesh,
    )
    unreadable = [record for text in gather(to_text(run.unreadable)) for record in from_text(text)]
    return select(run, videos, unreadable, tested)


def load_variables(run: Run, task: Classification, mesh: Mesh) -> Variables:
    """The variables of the checkpoint, whole on every device."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), abstract_batch(run.config))
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    return restore_variables(run.workdir, run.step, placed)


def select(
    run: Run, videos: Mapping[str, Video], unreadable: list[Unreadable], tested: Mapping[str, tuple[str, ...]]
) -> Scored:
    """Leaves out the videos that do not count, with the reason, and stacks the others."""
    data, task = run.config.data, run.config.task
    skipped = {
        record.video_id or f"record {record.number}": f"cannot be read: {record.reason}" for record in unreadable
    }
    kept = []
    for video_id, video in videos.items():
        if video_id in skipped:  # Some of its views could be read.
            continue
        lacking = [name for name in task.modalities if not video.present[name]]
        if lacking and (not data.keep_incomplete or len(lacking) == len(task.modalities)):
            skipped[video_id] = LACKS[lacking[0]]
        elif video_id in run.excluded:
            skipped[video_id] = SEEN
        elif video.label.ndim == 0 and video.label < 0:
            skipped[video_id] = NO_LABEL
        else:
            kept.append(video_id)
    rows = [pooled(videos[video_id], run.config.test.pool) for video_id in kept]
    present = [videos[video_id].present for video_id in kept]
    return Scored(
        kept,
        np.array([videos[video_id].label for video_id in kept]),
        {choice: np.array([row[choice] for row in rows]) for choice in tested},
        {choice: np.array([any(row[name] for name in names) for row in present]) for choice, names in tested.items()},
        dict(sorted(skipped.items())),
    )


def summarize(run: Run, scored: Scored) -> dict[str, Any]:
    """All measures as plain values."""
    config, main = run.config, next(iter(scored.scores))
    names = config.task.class_names
    return {
        "run": config.name,
        "step": run.step,
        "total_steps": config.total_steps,
        "init_from": config.init_from,
        "split": config.split,
        "num_splits": config.num_splits,
        "dataset": {
            "name": run.dataset.name,
            "fingerprint": run.dataset.fingerprint,
            "split": run.split,
            "num_classes": len(names),
            "multi_label": run.dataset.multi_label,
            "num_records": run.dataset.num_videos(run.split),
            "num_videos": len(scored.video_ids),
            "num_without_class": int((~scored.labels.any(1)).sum()) if scored.labels.ndim == 2 else 0,
            "num_skipped": len(scored.skipped),
            "skipped": dict(Counter(reason.split(":")[0] for reason in scored.skipped.values())),
            **count_missing(run.dataset),
        },
        "overlap": run.overlap and run.overlap.to_json(bool(run.excluded)),
        "views": config.test.to_dict(),
        "measures": {
            choice: measure(scores[scored.counted[choice]], scored.labels[scored.counted[choice]])
            for choice, scores in scored.scores.items()
        },
        "classes": class_table(scored.scores[main], scored.labels, names),
        "confusion": confusion_matrix(scored.scores[main], scored.labels).tolist(),
    }


def count_missing(dataset: Dataset) -> dict[str, int | None]:
    """Videos of all splits that annotations name and that are not in the data set, by why; None where nobody knows.

    `num_missing`: there was no file. `num_rejected`: it could not be used.
    """
    path = dataset.directory / VIDEOS
    if not path.exists():
        return {"num_missing": None, "num_rejected": None}
    counts = Counter(outcome.outcome for outcome in read_outcomes(path))
    return {"num_missing": counts[MISSING], "num_rejected": counts[REJECTED]}


def write(run: Run, evaluation: Mapping[str, Any], scored: Scored) -> None:
    """Writes what was measured; STEP.json last, whose presence says that all is there."""
    path = run.workdir / "eval" / f"{run.step}.videos.jsonl"
    with writing_measures(path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(map(video_line, video_rows(run, scored))))
    record(run.workdir, evaluation)


def video_rows(run: Run, scored: Scored) -> Iterator[dict[str, Any]]:
    """A row for each video: its labels, the best classes and their scores; or why it was skipped."""
    names, main = run.config.task.class_names, next(iter(scored.scores.values()))
    for video_id, label, score in zip(scored.video_ids, scored.labels, main, strict=True):
        own = np.flatnonzero(label) if label.ndim else [label]
        best = np.argsort(-score, kind="stable")[:5]
        yield {
            "video_id": video_id,
            "labels": [names[number] for number in own],
            "best": {names[number]: round(float(score[number]), 6) for number in best},
        }
    for video_id, reason in scored.skipped.items():
        yield {"video_id": video_id, "skipped": reason}


def video_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON."""
    return json.dumps(row) + "\n"
