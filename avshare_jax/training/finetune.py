"""A downstream run from its config: split, starting weights, classes, plan, training."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.data.batches import train_batches
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.mixtures import Mixture, open_mixture
from avshare_jax.data.unreadable import UnreadableRecords
from avshare_jax.models.avbert import WHOLE
from avshare_jax.objectives.classification import MULTI_LABEL
from avshare_jax.schema.base import LARGEST_INT32
from avshare_jax.settings import UserError
from avshare_jax.training import plan, pretrained
from avshare_jax.training.checkpoints import check_workdir, latest_step
from avshare_jax.training.classification import Classification
from avshare_jax.training.goodput import DATASET, RESTORE, Goodput
from avshare_jax.training.hosts import Preemption, first_process_first
from avshare_jax.training.loop import train
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.optimizer import make_finetuning_optimizer
from avshare_jax.training.profiles import parse_steps
from avshare_jax.training.sharding import check_layout
from avshare_jax.training.step import TrainState

SHOWN_METRICS = ("top1",)


def finetune(
    config: ConfigDict, workdir: epath.PathLike, profile_steps: str | None = None, goodput: Goodput | None = None
) -> None:
    """Says what will be done and trains; see `loop.train`.

    Args:
      config: made by `recipes.classification`.
      workdir: of the run; one that holds checkpoints of the same task, split and data set is gone on with.
      profile_steps: `FIRST:LAST`, steps to write a profile of.
      goodput: what measures where the time goes; by default, from when this process was started.

    Raises:
      UserError, DatasetError: something in the config does not fit the machine, the data set, the weights to start
        from, or the workdir.
    """
    goodput = goodput or Goodput.of_process()
    preemption = Preemption()  # Before anything that takes long.
    profiled = parse_steps(profile_steps)
    schema.check(config, (schema.CLASSIFICATION,))
    check_workdir(workdir)
    config = with_split(config)
    mesh = make_mesh(config.mesh)
    check_layout(config, mesh)
    asked = config.model
    config.model = pretrained.starting_model(config, workdir)
    check_positions(config)
    goodput.turn_to(DATASET)
    with first_process_first("data set"):
        mixture = open_mixture(config.data)
    config = with_classes_and_steps(config, mixture, workdir)
    task = Classification(config)
    network = pretrained.network_shapes(config, task, mesh)
    check_frozen(config, sorted(network["params"]))
    weights = None
    if config.init_from is not None and latest_step(workdir) is None:
        with goodput.during(RESTORE):
            weights = pretrained.load_network(config, network)  # Before the workdir belongs to a run from there.
    print(plan.describe_run(config, workdir, mesh, task), flush=True)
    print(plan.describe_dataset(config, mixture), flush=True)
    print(pretrained.describe_start(config), flush=True)
    print(pretrained.describe_sizes(config, asked), flush=True)
    if weights and (differences := pretrained.frontend_differences(config)):
        print(f"  It was trained on media that were prepared otherwise: {differences}.", flush=True)
    unreadable = UnreadableRecords(config.data.max_unreadable_share)

    def make_batches(start_step: int) -> Iterator[dict[str, np.ndarray]]:
        return train_batches(
            mixture,
            config.data,
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            unreadable=unreadable,
            modalities=tuple(config.task.modalities),
            labeled=True,
        )

    def start_from(state: TrainState) -> TrainState:
        nonlocal weights
        # Once they lie in the state, nothing else keeps them. Where all of the run's checkpoints are damaged, they are
        # read again.
        found, weights = weights or pretrained.load_network(config, network), None
        return pretrained.put_network(found, state)

    train(
        config,
        workdir,
        task=task,
        make_batches=make_batches,
        dataset_identity={"name": mixture.name, "fingerprint": mixture.fingerprint},
        mesh=mesh,
        shown_metrics=SHOWN_METRICS,
        measure_input=lambda: {"unreadable_records": len(unreadable)},
        preemption=preemption,
        goodput=goodput,
        profile_steps=profiled,
        is_trained=task.is_trained,
        make_optimizer=make_finetuning_optimizer,
        start_from=None if config.init_from is None else start_from,
    )
    print(f"Done. Evaluate it with:\n  python eval.py --config=configs/eval.py --workdir={workdir}", flush=True)


def with_split(config: ConfigDict) -> ConfigDict:
    """Returns a copy of the config in which the data set's splits are those of `config.split`."""
    config = config.copy_and_resolve_references()
    for name in ("train_split", "eval_split"):
        config.data[name] = config.data[name].replace("{split}", str(config.split))
    return config


def check_positions(config: ConfigDict) -> None:
    """Raises `UserError` where the Transformers have too few positions for the clips."""
    model, data = config.model, config.data
    if "tokens" in config.task.heads and model.positions <= data.num_clips:
        raise UserError(
            f"config.data.num_clips={data.num_clips} is too many: the network has {model.positions} positions, one of "
            "them for BOS."
        )


def with_classes_and_steps(config: ConfigDict, mixture: Mixture, workdir: epath.PathLike) -> ConfigDict:
    """Returns a copy of the config with the data set's classes, and the number of steps that its epochs have.

    Raises:
      DatasetError: the data set has no labels, other ones than the task needs, or no video to train on.
      UserError: its classes are not those of the config or of the run in the workdir.
    """
    config = config.copy_and_resolve_references()
    check_labels(mixture, multi_label=config.task.loss.name in MULTI_LABEL)
    class_names = mixture.datasets[0].class_names
    recorded = pretrained.recorded_config(workdir)
    where = {
        f"the run in {workdir}": recorded.task.class_names if recorded else (),
        "the config": config.task.class_names,
    }
    for owner, known in where.items():
        if known:
            check_classes(mixture.name, class_names, known, owner)
    config.task.class_names = class_names
    num_videos = mixture.num_videos(config.data.train_split)
    if not num_videos:
        raise DatasetError(f"The split {config.data.train_split} of the data set {mixture.name} is empty.")
    if config.total_steps is None:
        config.total_steps = max(1, round(config.epochs * num_videos / config.batch_size))
    if config.total_steps > LARGEST_INT32:
        raise UserError(
            f"config.epochs={config.epochs} of {num_videos} videos are {config.total_steps} steps, but a run has at "
            f"most {LARGEST_INT32}: use fewer."
        )
    return config


def check_labels(mixture: Mixture, multi_label: bool) -> None:
    """Raises `DatasetError` where data sets have no labels, not of the kind that is needed, or not all the same."""
    for dataset in mixture.datasets:
        if len(dataset.class_names) < 2:
            found = "no labels" if not dataset.class_names else "a single class"
            raise DatasetError(
                f"The data set {dataset.directory} has {found}: classification needs at least two classes."
            )
        if dataset.multi_label != multi_label:
            kind = "several labels" if dataset.multi_label else "one label"
            raise DatasetError(
                f"Records of the data set {dataset.directory} have {kind}, which config.task.loss.name does not "
                "fit: binary_cross_entropy is for several labels, the other losses are for one."
            )
        first = mixture.datasets[0]
        if dataset.class_names != first.class_names:
            check_classes(dataset.name, dataset.class_names, first.class_names, f"the data set {first.name}")


def check_classes(name: str, found: tuple[str, ...], known: tuple[str, ...], owner: str) -> None:
    """Raises `UserError` where the classes of the data set `name` are not those that `owner` knows."""
    if len(found) != len(known):
        raise UserError(
            f"The data set {name} has {len(found)} classes, but {owner} has {len(known)}: they must be the same."
        )
    for number, (ours, theirs) in enumerate(zip(found, known, strict=True)):
        if ours != theirs:
            raise UserError(
                f"The classes of the data set {name} are not those of {owner}: number {number} is {ours!r} in the data "
                f"set and {theirs!r} there."
            )


def check_frozen(config: ConfigDict, parts: Sequence[str]) -> None:
    """Raises `UserError` where a part that is to be frozen is none of the network's."""
    if unknown := set(config.task.frozen) - {WHOLE, *parts}:
        raise UserError(
            f"config.task.frozen names {', '.join(sorted(unknown))}, which the network does not have: its parts are "
            f"{', '.join(parts)}, and {WHOLE} means all of them."
        )
