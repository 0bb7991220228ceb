"""A pretraining run from its config: checks, plan, data set, training."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avshare_jax.data.batches import train_batches
from avshare_jax.data.dataset import Dataset, check_frontend, open_dataset
from avshare_jax.data.demo import write_demo_videos
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import dataset_directory
from avshare_jax.objectives.negatives import LOG_WEIGHTS
from avshare_jax.prepare import ProgressLine, prepare_folder
from avshare_jax.settings import UserError
from avshare_jax.training import plan
from avshare_jax.training.checkpoints import check_workdir
from avshare_jax.training.loop import train
from avshare_jax.training.mesh import check_batch_size, make_mesh
from avshare_jax.training.pretraining import Pretraining

SHOWN_METRICS = ("mep/loss", "mep/multimodal_visual_top1", "mep/multimodal_audio_top1", "cpp/bos_accuracy")


def pretrain(config: ConfigDict, workdir: epath.PathLike) -> None:
    """Says what will be done, makes the demo's data set where it is missing, and trains; see `loop.train`.

    Args:
      config: of `configs/pretrain.py`.
      workdir: of the run; one that holds checkpoints of the same model and data set is gone on with.

    Raises:
      UserError, DatasetError: something in the config does not fit the machine, the data set or the workdir.
    """
    check_workdir(workdir)
    check_ranges(config)
    mesh = make_mesh(config.mesh)
    check_batch_size(config.batch_size, mesh)
    check_objectives(config)
    task = Pretraining(config)
    print(plan.describe_run(config, workdir, mesh, task), flush=True)

    dataset = open_or_make_dataset(config)
    check_frontend(dataset, config.data.frontend)
    print(plan.describe_dataset(config, dataset), flush=True)

    def make_batches(start_step: int) -> Iterator[dict[str, np.ndarray]]:
        return train_batches(
            dataset,
            config.data,
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    train(
        config,
        workdir,
        task=task,
        make_batches=make_batches,
        dataset_identity={"name": dataset.name, "fingerprint": dataset.fingerprint},
        mesh=mesh,
        shown_metrics=SHOWN_METRICS,
    )
    print(f"Done. Evaluate it with:\n  python eval.py --config=configs/eval.py --workdir={workdir}", flush=True)


def check_ranges(config: ConfigDict) -> None:
    """Raises `UserError` where a number is outside of what it can mean."""
    counts = ("batch_size", "total_steps", "log_every", "checkpoint_every", "checkpoints_kept", "max_nonfinite_steps")
    limits = [(name, config[name], 1, math.inf) for name in counts]
    limits += [("seed", config.seed, 0, math.inf)]
    limits += [("objectives.mask_fraction", config.objectives.mask_fraction, 0, 1)]
    limits += [(f"augment.{name}", share, 0, 1) for name, share in config.augment.items()]
    for name, value, low, high in limits:
        if not low <= value <= high:
            asked = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"config.{name}={value} must be {asked}.")
    model = config.model
    if model.hidden % model.heads:
        raise UserError(f"config.model.heads={model.heads} must divide config.model.hidden={model.hidden}.")
    if model.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype={model.dtype} must be float32 or bfloat16.")


def check_objectives(config: ConfigDict) -> None:
    """Raises `UserError` where the batch or the network is too small for the clips and negatives that are asked for."""
    sampling = config.objectives.negative_sampling
    if sampling not in LOG_WEIGHTS:
        raise UserError(f"config.objectives.negative_sampling={sampling} is not one of {', '.join(LOG_WEIGHTS)}.")
    num_clips, clips_of_batch = config.data.num_clips, config.batch_size * config.data.num_clips
    if config.batch_size < 2 or num_clips < 2:
        raise UserError(
            f"config.batch_size={config.batch_size} and config.data.num_clips={num_clips} must both be at least 2: "
            "wrong pairs need another video, masked clips a visible one."
        )
    groups = config.objectives.negative_groups
    if groups < 1 or config.batch_size % groups:
        raise UserError(
            f"config.objectives.negative_groups={groups} must divide config.batch_size={config.batch_size}: negatives "
            "come from equal parts of the batch."
        )
    if not 1 <= config.objectives.num_negatives < clips_of_batch // groups:
        raise UserError(
            f"config.objectives.num_negatives={config.objectives.num_negatives} must be between 1 and "
            f"{clips_of_batch // groups - 1}, the other clips of {config.batch_size // groups} videos of {num_clips}."
        )
    if config.model.positions <= num_clips:
        raise UserError(
            f"config.model.positions={config.model.positions} is too small for {num_clips} clips and BOS: "
            f"use at least {num_clips + 1}."
        )


def open_or_make_dataset(config: ConfigDict) -> Dataset:
    """Opens the data set of a config; the demo's own is made first where it is not there."""
    data = config.data
    # Under another name, the user means data of their own.
    if "demo" in config and data.name == "demo":
        check_demo(config)
        if not dataset_directory(data.data_dir, data.name).exists():
            make_demo_dataset(config)
    return open_dataset(data.data_dir, data.name)


def check_demo(config: ConfigDict) -> None:
    """Raises `UserError` where the demo's videos, if they are still there, were made with other numbers."""
    record, wanted = demo_record(config)
    found = json.loads(record.read_text()) if record.exists() else wanted
    if found != wanted:
        raise UserError(
            f"The demo's videos in {config.demo.videos_dir} were made with {found}, and config.demo asks for {wanted}: "
            f"delete that folder, {record} and {dataset_directory(config.data.data_dir, config.data.name).parent}, or "
            "set both config.demo.videos_dir and config.data.data_dir to other folders."
        )


def demo_record(config: ConfigDict) -> tuple[Path, dict[str, int]]:
    """The file beside the demo's videos that says how they were made, and what it says for this config."""
    return Path(f"{config.demo.videos_dir}.json"), {
        name: config.demo[name] for name in ("seed", "num_train", "num_test")
    }


def make_demo_dataset(config: ConfigDict) -> None:
    """Renders the demo's videos and prepares them as any folder of videos."""
    demo, workers = config.demo, os.cpu_count() or 1
    counts = {"train": demo.num_train, "test": demo.num_test}
    print(f"The demo has no data set yet: making {sum(counts.values())} videos in {demo.videos_dir}.", flush=True)
    videos = Path(demo.videos_dir)
    record, numbers = demo_record(config)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(numbers) + "\n")
    write_demo_videos(videos, counts, demo.seed, workers, ProgressLine("videos made"))
    print(prepare_folder(videos, config.data.name, config.data.data_dir, FrontEnd(**config.data.frontend)), flush=True)
