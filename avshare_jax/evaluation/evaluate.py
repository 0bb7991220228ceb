"""Evaluates a run's last checkpoint beside the same network with its initial weights, and writes the report."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.data.batches import eval_batches, train_batches
from avshare_jax.data.dataset import Dataset
from avshare_jax.data.unreadable import UnreadableRecords
from avshare_jax.evaluation import report, retrieval
from avshare_jax.evaluation.canonical import canonical_scores
from avshare_jax.evaluation.features import Batch, Features, Variables, extract, jit_encoder
from avshare_jax.evaluation.gallery import Gallery, caption_videos, choose_gallery, read_pictures, score_gallery
from avshare_jax.evaluation.heldout import fresh_variables, heldout_metrics
from avshare_jax.evaluation.linear_probe import linear_predictions
from avshare_jax.evaluation.neighbors import neighbor_predictions
from avshare_jax.evaluation.opening import open_checkpoint, open_known_dataset, set_chosen
from avshare_jax.evaluation.overlap import Overlap, count_videos, describe, find_overlap, leave_out
from avshare_jax.evaluation.probes import probe_networks
from avshare_jax.evaluation.runs import draw, evaluation_file, record
from avshare_jax.evaluation.summary import NO_HEADS, format_table, summary
from avshare_jax.progress import stage, with_progress
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import load_identity, restore_network, restore_variables
from avshare_jax.training.goodput import read_lines, summarize
from avshare_jax.training.pretraining import Pretraining

FEWEST_FOR_CORRELATION = 10


@dataclass(frozen=True)
class Run:
    """A training run, or imported weights, with the split sizes that evaluation uses.

    Attributes:
      config: of the run, from its workdir, with the evaluation's `data` in it.
      workdir: of the run.
      step: of the checkpoint.
      imported: whether its weights came without pretraining heads.
      dataset: what it is evaluated on.
      num_videos: "train" and "test" → number of videos evaluated.
      batch_size: videos.
      overlap: of the test split with the videos of pretraining.
      excluded: ids of test videos that are left out.
      unreadable: records that could not be read so far.
    """

    config: ConfigDict
    workdir: epath.Path
    step: int
    imported: bool
    dataset: Dataset
    num_videos: dict[str, int]
    batch_size: int
    overlap: Overlap
    excluded: frozenset[str] = frozenset()
    unreadable: UnreadableRecords = field(default_factory=UnreadableRecords)

    def batches(self, split: str) -> Iterator[Batch]:
        """Yields every evaluated video of "train" or "test" once; `valid` are those that have image and sound.

        Test videos that lack either, cannot be read or are excluded do not come: batches are whole but for the last.
        """
        data, count = self.config.data, self.num_videos[split]
        name = {"train": data.train_split, "test": data.eval_split}[split]
        options = {"batch_size": self.batch_size, "max_videos": count, "unreadable": self.unreadable}
        batches = with_progress(eval_batches(self.dataset, name, data, **options), count, f"{split} videos")
        complete = (batch | {"valid": batch["valid"] & batch["has_video"] & batch["has_audio"]} for batch in batches)
        return leave_out(complete, self.excluded, self.batch_size) if split == "test" else complete


def evaluate(config: ConfigDict, workdir: epath.PathLike, step: int | None = None) -> dict[str, Any]:
    """Measures everything, prints the table, and writes WORKDIR/eval/STEP.json and then WORKDIR/report/.

    Args:
      config: `configs/eval.py`.
      workdir: of the run.
      step: of a checkpoint; None: the last.

    Returns:
      What the JSON file holds; shares are 0..1.

    Raises:
      UserError: there is no run or no checkpoint in `workdir`, no data set to evaluate it on, or the measures cannot be
        written.
    """
    run = open_run(config, workdir, step)
    print(
        f"Evaluating step {run.step} of {run.workdir} on {run.dataset.name} ({run.num_videos['train']} training and "
        f"{run.num_videos['test']} test videos), beside the network with its initial weights.",
        flush=True,
    )
    if run.imported:
        print(NO_HEADS, flush=True)
    print(describe(run.overlap.to_json(excluded=bool(run.excluded))), flush=True)
    evaluation, gallery = measure(config, run)
    print(f"\n{format_table(summary(evaluation))}\n", flush=True)
    if jax.process_index() == 0:
        record(run.workdir, evaluation)
        print(f"All measures: {evaluation_file(run.workdir, run.step)}", flush=True)
        draw(lambda: write_report(run, evaluation, gallery, config.sheet_videos))
    return evaluation


def write_report(run: Run, evaluation: Mapping[str, Any], gallery: Gallery | None, sheet_videos: int) -> epath.Path:
    """Writes the report of what was measured and returns the path of its page; see `report.write_report`."""
    with stage("report"):
        metrics = report.read_metrics(run.workdir / "metrics.jsonl")
        scores, sheet, pictures = {}, [], {}
        if gallery:
            scores = gallery.scores
            sheet = report.sheet_rows(scores["trained"], gallery.captions, sheet_videos)
            pictures = read_pictures(run.batches("test"), gallery, sheet)
        time_spent = summarize(read_lines(run.workdir / "goodput.jsonl"))
        return report.write_report(run.workdir / "report", evaluation, metrics, scores, sheet, pictures, time_spent)


def measure(config: ConfigDict, run: Run) -> tuple[dict[str, Any], Gallery | None]:
    """Runs both networks over the data; returns all measures (plain values) and the gallery of retrieval.

    Imported weights have no pretraining heads: their `heldout`, `retrieval` and gallery are None.
    """
    task = Pretraining(run.config)
    with stage("networks"):
        networks = load_networks(run, task, config.recalibration_batches)
    heldout = None if run.imported else measure_heldout(config, run, task, networks)
    with stage("features"):
        encoders = {name: encoder_variables(variables) for name, variables in networks.items()}
        encode = jit_encoder(partial(models.build(run.config.model).apply, train=False))
        train, train_labels, _ = extract(encode, encoders, run.batches("train"))
        test, test_labels, test_ids = extract(encode, encoders, run.batches("test"), keep_tokens=not run.imported)
    gallery, found = None, None
    resampling = {"resamples": config.bootstrap_resamples, "seed": config.seed}
    places = choose_gallery(len(test_ids), config.retrieval_gallery, config.seed)
    one_label = test_labels if test_labels.ndim == 1 else np.full(len(test_labels), -1)
    if not run.imported:
        with stage("retrieval"):
            scores = score_gallery(task, networks, test, places)
            found = retrieval.compare_networks(scores, one_label[places], **resampling)
        captions = caption_videos(test_ids, test_labels, run.dataset.class_names)
        gallery = Gallery([test_ids[i] for i in places], [captions[i] for i in places], scores)
    with stage("probes"):
        probes = measure_probes(config, run.dataset.class_names, (train, train_labels), (test, test_labels))
        by_features = retrieve_by_features(config, train, test, places, one_label[places])
    evaluation = {
        "run": run.config.name,
        "step": run.step,
        "total_steps": run.config.total_steps,
        "dataset": {
            "name": run.dataset.name,
            "fingerprint": run.dataset.fingerprint,
            "class_names": list(run.dataset.class_names),
            "num_train_videos": len(train_labels),
            "num_test_videos": len(test_labels),
            "num_unreadable_records": len(run.unreadable),
            **count_videos(run.dataset, {"train": run.config.data.train_split, "test": run.config.data.eval_split}),
        },
        "overlap": run.overlap.to_json(excluded=bool(run.excluded)),
        "heldout": heldout,
        **probes,
        "retrieval": found,
        "feature_retrieval": by_features,
        "parameters": count_parameters(networks["trained"]["params"]["network"], run.config.model),
    }
    return evaluation, gallery


def measure_probes(
    config: ConfigDict,
    class_names: tuple[str, ...],
    train: tuple[Mapping[str, Features], np.ndarray],
    test: tuple[Mapping[str, Features], np.ndarray],
) -> dict[str, Any]:
    """Measures the linear probe and the vote of nearest neighbors; see `probes.probe_networks`.

    Args:
      config: of the evaluation.
      class_names: of the data set.
      train: the networks' features of the training videos, and their labels, (N,) or (N, C).
      test: the same of the test videos.
    """
    linear = functools.partial(linear_predictions, **config.probe)
    vote = functools.partial(neighbor_predictions, **config.neighbors)
    pooled = [{name: found.pooled for name, found in features.items()} for features in (train[0], test[0])]
    resampling = {"resamples": config.bootstrap_resamples, "seed": config.seed}
    return {
        name: probe_networks(probe, class_names, pooled[0], train[1], pooled[1], test[1], **resampling)
        for name, probe in (("linear_probe", linear), ("neighbors", vote))
    }


def retrieve_by_features(
    config: ConfigDict,
    train: Mapping[str, Features],
    test: Mapping[str, Features],
    places: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any] | None:
    """Measures retrieval by canonical correlations in the layers that have seen one modality only.

    Args:
      config: of the evaluation.
      train: the networks' features of the training videos.
      test: the same of the test videos.
      places: of the G videos of the gallery among the test videos.
      labels: (G,) int, -1: none.

    Returns:
      What `retrieval.compare_networks` gives by layer; None, with a printed reason, without enough training videos.
    """

    def pair(features: Features, layer: str) -> tuple[np.ndarray, np.ndarray]:
        return features.pooled[layer]["visual"], features.pooled[layer]["audio"]

    layers = [layer for layer in next(iter(train.values())).pooled if layer != "multimodal"]
    if (count := len(pair(next(iter(train.values())), layers[0])[0])) < FEWEST_FOR_CORRELATION:
        print(f"  no retrieval by features: {count} training videos; {FEWEST_FOR_CORRELATION} are needed", flush=True)
        return None
    resampling = {"resamples": config.bootstrap_resamples, "seed": config.seed}
    found = {}
    for layer in layers:
        scores = {}
        for name, features in train.items():
            gallery = tuple(x[places] for x in pair(test[name], layer))
            scores[name] = canonical_scores(pair(features, layer), gallery, config.canonical_penalties)
        found[layer] = retrieval.compare_networks(scores, labels, **resampling)
    return found


def measure_heldout(
    config: ConfigDict, run: Run, task: Pretraining, networks: Mapping[str, Variables]
) -> dict[str, Any]:
    """Measures the pretraining objectives of both networks on the test videos."""
    with stage("held-out objectives"):
        found, num_videos = heldout_metrics(task, networks, run.batches("test"), jax.random.key(config.seed))
    return {"num_videos": num_videos, "batch_size": run.batch_size, **found}


def open_run(config: ConfigDict, workdir: epath.PathLike, step: int | None = None) -> Run:
    """Reads the run in `workdir` and opens its data set; `UserError` where something is missing or does not match."""
    workdir, run_config, step = open_checkpoint(workdir, step)
    with run_config.ignore_type():  # The data set of imported weights is None.
        set_chosen(run_config.data, config.data)
    trained_on = load_identity(workdir)
    dataset = open_evaluated(run_config, workdir, trained_on)
    splits = {"train": run_config.data.train_split, "test": run_config.data.eval_split}
    num_videos = {name: min(config.max_videos, dataset.num_videos(split)) for name, split in splits.items()}
    if num_videos["test"] < 2:
        raise UserError(
            f"The split {splits['test']!r} of {dataset.name} has {num_videos['test']} videos; 2 are needed."
        )
    batch_size = min(config.batch_size, num_videos["test"])
    clips, needed = batch_size * run_config.data.num_clips, run_config.objectives.num_negatives + 1
    if batch_size < 2 or clips < needed:
        raise UserError(
            f"Evaluation in batches of {batch_size} videos has {clips} clips, but the run's objectives need at least "
            f"2 videos and {needed} clips: use a larger --config.batch_size or more test videos."
        )
    overlap = find_overlap(workdir, dataset, splits["test"])
    excluded = frozenset()
    if config.exclude_pretraining_videos:
        excluded = overlap.to_exclude(least=batch_size)
    return Run(
        run_config, workdir, step, trained_on["name"] is None, dataset, num_videos, batch_size, overlap, excluded
    )


def open_evaluated(run_config: ConfigDict, workdir: epath.Path, trained_on: Mapping[str, str | None]) -> Dataset:
    """Opens the data set that a run's config names, or the first of several; it may be another than was trained on.

    Args:
      run_config: of the run, with the evaluation's `data` in it.
      workdir: of the run.
      trained_on: `name` and `fingerprint` of the data set it was trained on; None for imported weights.

    Raises:
      UserError: imported weights without a data set or with too many clips; or a data set of the name that was trained
        on, but with another fingerprint.
    """
    data = run_config.data
    if data.name is None:
        raise UserError(
            f"The weights in {workdir} were imported and have no data set of their own: say with "
            "--config.data.name=NAME (and --config.data.data_dir=DIR) which to evaluate them on."
        )
    if data.num_clips >= run_config.model.positions:
        raise UserError(
            f"config.data.num_clips={data.num_clips} is too many: the network has {run_config.model.positions} "
            "positions, one of them for BOS."
        )
    return open_known_dataset(data, workdir, trained_on)


def load_networks(run: Run, task: Pretraining, recalibration_batches: int) -> dict[str, Variables]:
    """The network "trained", from the checkpoint, and "random", with its initial weights; on this process's device.

    Of the initial network BatchNorm's statistics are measured on training batches, see `fresh_variables`.
    """
    options = {"seed": run.config.seed, "batch_size": run.batch_size, "unreadable": run.unreadable}
    batches = train_batches(run.dataset, run.config.data, **options)
    first = itertools.islice(batches, recalibration_batches)
    random = fresh_variables(task, jax.random.key(run.config.seed), first)
    # Both in the same place, or all that runs on them would be compiled twice.
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), random)
    if run.imported:
        trained = restore_network(run.workdir, run.step, encoder_variables(shapes))
        trained = {name: {"network": tree} for name, tree in trained.items()}
    else:
        trained = restore_variables(run.workdir, run.step, shapes)
    return {"trained": trained, "random": jax.device_put(random, place)}


def encoder_variables(variables: Variables) -> Variables:
    """The variables of the network proper, without the pretraining heads."""
    return {name: variables[name]["network"] for name in ("params", "batch_stats")}


def count_parameters(params: Mapping[str, Any], model_config: ConfigDict) -> dict[str, int]:
    """Parameters of the network's parts as `plots.plot_parameters` draws them, and of unshared Transformers."""
    counts = models.parameter_counts(params)
    named = ("visual_cnn", "audio_cnn", "transformer")
    return {
        "visual_cnn": counts["visual_cnn"].total,
        "audio_cnn": counts["audio_cnn"].total,
        "tokens": sum(count.total for part, count in counts.items() if part not in named),
        "transformer_shared": counts["transformer"].shared,
        "transformer_private": counts["transformer"].private,
        "transformer_unshared": models.unshared_transformer_parameters(model_config),
    }
