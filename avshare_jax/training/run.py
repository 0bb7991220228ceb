"""A pretraining run from its config: checks, plan, data set, training."""

import math
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avshare_jax.data.batches import train_batches
from avshare_jax.data.dataset import is_unfinished
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.mixtures import Mixture, dataset_names, open_mixture
from avshare_jax.data.records import dataset_directory
from avshare_jax.data.sources import demo
from avshare_jax.data.unreadable import UnreadableRecords
from avshare_jax.models.factorized import ORTHOGONAL_MAPS, SHARING
from avshare_jax.models.transformer import TRANSFORMERS
from avshare_jax.objectives.negatives import LOG_WEIGHTS
from avshare_jax.prepare import prepare
from avshare_jax.settings import UserError, check_fields
from avshare_jax.training import plan
from avshare_jax.training.checkpoints import check_workdir
from avshare_jax.training.goodput import DATASET, Goodput
from avshare_jax.training.hosts import Preemption, first_process_first
from avshare_jax.training.loop import train
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.profiles import parse_steps
from avshare_jax.training.sharding import check_layout

LIMITS = {
    **dict.fromkeys(("batch_size", "total_steps", "max_nonfinite_steps"), (1, math.inf)),
    **dict.fromkeys(("log_every", "checkpoint_every", "checkpoints_kept"), (1, math.inf)),
    **dict.fromkeys(("data.frames_per_clip", "data.frame_stride", "data.mel_frames", "data.crop"), (1, math.inf)),
    **dict.fromkeys(("seed", "data.num_workers", "data.prefetch"), (0, math.inf)),
    **dict.fromkeys(
        ("augment.flip", "augment.frequency_mask", "augment.time_mask", "augment.modality_dropout"), (0, 1)
    ),
    **dict.fromkeys(("objectives.mask_fraction", "optimizer.warmup_fraction", "data.max_unreadable_share"), (0, 1)),
}
DEMO_LIMITS = {"demo.seed": (0, math.inf), "demo.num_train": (1, math.inf), "demo.num_test": (1, math.inf)}
CHOICES = {
    "model.dtype": ("float32", "bfloat16"),
    "model.fusion": tuple(TRANSFORMERS),
    "model.layer_sharing": SHARING,
    "model.transformer_sharing": SHARING,
    "model.orthogonal_map": tuple(ORTHOGONAL_MAPS),
    "objectives.negative_sampling": tuple(LOG_WEIGHTS),
}
DEMO = "demo"
SHOWN_METRICS = ("mep/loss", "mep/multimodal_visual_top1", "mep/multimodal_audio_top1", "cpp/bos_accuracy")


def pretrain(config: ConfigDict, workdir: epath.PathLike, profile_steps: str | None = None) -> None:
    """Says what will be done, makes the demo's data set where it is missing, and trains; see `loop.train`.

    Args:
      config: of `configs/pretrain.py`.
      workdir: of the run; one that holds checkpoints of the same model and data set is gone on with.
      profile_steps: `FIRST:LAST`, steps to write a profile of.

    Raises:
      UserError, DatasetError: something in the config does not fit the machine, the data set or the workdir.
    """
    goodput = Goodput.of_process()
    preemption = Preemption()  # Before anything that takes long.
    profiled = parse_steps(profile_steps)
    check_workdir(workdir)
    check_ranges(config)
    mesh = make_mesh(config.mesh)
    check_layout(config, mesh)
    check_objectives(config)
    task = Pretraining(config)
    print(plan.describe_run(config, workdir, mesh, task), flush=True)

    goodput.turn_to(DATASET)
    with first_process_first("data set"):
        mixture = open_or_make_dataset(config)
    print(plan.describe_dataset(config, mixture), flush=True)
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
        )

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
    )
    print(f"Done. Evaluate it with:\n  python eval.py --config=configs/eval.py --workdir={workdir}", flush=True)


def check_ranges(config: ConfigDict) -> None:
    """Raises `UserError` where a field is outside of what it can mean, whatever the others are."""
    check_fields(config, LIMITS | (DEMO_LIMITS if "demo" in config else {}), CHOICES)
    model = config.model
    if model.heads < 1 or model.hidden % model.heads:
        raise UserError(f"config.model.heads={model.heads} must divide config.model.hidden={model.hidden}.")
    if model.rank is None and "factorized" in (model.layer_sharing, model.transformer_sharing):
        raise UserError("config.model.rank=None leaves no factors to share: set layer_sharing and transformer_sharing.")


def check_objectives(config: ConfigDict) -> None:
    """Raises `UserError` where the batch or the network is too small for the clips and negatives that are asked for.

    Takes a config that `check_layout` has passed.
    """
    num_clips, parts, groups = (
        config.data.num_clips,
        config.memory.accumulation_steps,
        config.objectives.negative_groups,
    )
    # Videos of different parts never meet.
    videos = config.batch_size // parts
    if videos < 2 or num_clips < 2:
        raise UserError(
            f"config.batch_size={config.batch_size}{_in_parts(parts)} and config.data.num_clips={num_clips} must both "
            "be at least 2: wrong pairs need another video, masked clips a visible one."
        )
    if groups < 1 or videos % groups:
        raise UserError(
            f"config.objectives.negative_groups={groups} must divide config.batch_size={config.batch_size}"
            f"{_in_parts(parts)}: negatives come from equal parts of the videos that are taken at a time."
        )
    others = videos // groups * num_clips - 1
    if not 1 <= config.objectives.num_negatives <= others:
        raise UserError(
            f"config.objectives.num_negatives={config.objectives.num_negatives} must be between 1 and {others}, the "
            f"other clips of {videos // groups} videos of {num_clips} (config.batch_size={config.batch_size}"
            f"{_in_parts(parts)}, config.objectives.negative_groups={groups})."
        )
    if config.model.positions <= num_clips:
        raise UserError(
            f"config.model.positions={config.model.positions} is too small for {num_clips} clips and BOS: "
            f"use at least {num_clips + 1}."
        )


def _in_parts(parts: int) -> str:
    return f" / config.memory.accumulation_steps={parts}" if parts > 1 else ""


def open_or_make_dataset(config: ConfigDict) -> Mixture:
    """Opens the data set of a config, or several; the demo's own is made first where it is not there."""
    # Under another name, the user means data of their own.
    if "demo" in config and DEMO in dataset_names(config.data.name):
        make_demo_dataset(config)
    return open_mixture(config.data)


def make_demo_dataset(config: ConfigDict) -> None:
    """Renders the demo's videos and prepares them as any folder of videos, as far as that is not done.

    Raises:
      DatasetError: the videos or the data set that are there were made with other numbers, or cannot be written.
    """
    data, videos = config.data, Path(config.demo.videos_dir).expanduser()
    numbers = {name: config.demo[name] for name in ("num_train", "num_test", "seed")}
    directory = dataset_directory(data.data_dir, DEMO)
    demo.check_made_with(directory.parent, demo.demo_numbers(**numbers))
    if directory.exists() and not is_unfinished(data.data_dir, DEMO):
        return
    print(f"The demo has no data set yet: making {numbers['num_train'] + numbers['num_test']} videos in {videos}.")
    demo.note_made_with(directory.parent, demo.demo_numbers(**numbers))
    listing = demo.find(videos, **numbers)
    print(prepare(listing, DEMO, data.data_dir, FrontEnd(**data.frontend)), flush=True)
