"""A pretraining run from its config: checks, plan, data set, training."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.data.batches import train_batches
from avshare_jax.data.dataset import is_unfinished
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.mixtures import Mixture, dataset_names, open_mixture
from avshare_jax.data.records import dataset_directory
from avshare_jax.data.sources import demo
from avshare_jax.data.unreadable import UnreadableRecords
from avshare_jax.prepare import prepare
from avshare_jax.training import plan
from avshare_jax.training.checkpoints import check_workdir
from avshare_jax.training.goodput import DATASET, Goodput
from avshare_jax.training.hosts import Preemption, first_process_first
from avshare_jax.training.loop import train
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.profiles import parse_steps
from avshare_jax.training.sharding import check_layout

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
    schema.check(config, (schema.PRETRAINING,))
    check_workdir(workdir)
    mesh = make_mesh(config.mesh)
    check_layout(config, mesh)
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
    data, videos = config.data, Path(os.path.expanduser(config.demo.videos_dir))
    numbers = {name: config.demo[name] for name in ("num_train", "num_test", "seed")}
    directory = dataset_directory(data.data_dir, DEMO)
    demo.check_made_with(directory.parent, demo.demo_numbers(**numbers))
    if directory.exists() and not is_unfinished(data.data_dir, DEMO):
        return
    print(f"The demo has no data set yet: making {numbers['num_train'] + numbers['num_test']} videos in {videos}.")
    demo.note_made_with(directory.parent, demo.demo_numbers(**numbers))
    listing = demo.find(videos, **numbers)
    print(prepare(listing, DEMO, data.data_dir, FrontEnd(**data.frontend)), flush=True)
