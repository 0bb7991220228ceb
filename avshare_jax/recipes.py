"""What the config files share: changes after the colon, how runs are run, and the classification of videos.

Marks on values here and in the config files: (P) stated by the paper, (C) read in the released code, (R) second-hand or
our choice where nothing is published.
"""

import ast
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from avshare_jax import settings, sizes
from avshare_jax.data.frontend import FrontEnd

Changes = Mapping[str, Callable[[ConfigDict], None]]


def apply_changes(config: ConfigDict, variant: str, changes: Changes, plain_name: str) -> ConfigDict:
    """Makes the changes of `FILE.py:variant`, in their order, and returns the config.

    Args:
      config: to change; its `name` becomes that of the changes.
      variant: names of changes and values of fields, comma-separated, as in `10s,optimizer.learning_rate=3e-4`.
      changes: functions that change a config, by name.
      plain_name: name of the config without changes.

    Raises:
      ValueError: a change or a field does not exist, or a value does not fit.
    """
    for change in filter(None, variant.split(",")):
        if "=" in change:
            set_field(config, *change.split("=", 1))
        elif change in changes:
            changes[change](config)
            config.name = change if config.name == plain_name else f"{config.name}_{change}"
        else:
            known = f"There are: {', '.join(changes)}" if changes else "Values of fields can be set, as in split=2"
            raise ValueError(f"there is no variant {change!r}. {known}")
    return config


def set_field(config: ConfigDict, name: str, text: str) -> None:
    """Sets a field such as `optimizer.learning_rate` from text; `ValueError` where it does not exist or fit."""
    known = list(settings.field_names(config))
    if name not in known:
        raise ValueError(f"the config has no field {name!r}{settings.nearest_name(name, known)}")
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    *groups, leaf = name.split(".")
    for group in groups:
        config = config[group]
    try:
        config[leaf] = value
    except TypeError as error:
        raise ValueError(f"{name}={text} does not fit: {error}") from error


def running(*, log_every: int, checkpoint_every: int) -> dict[str, Any]:
    """Fields of all training runs: memory, devices, and how often something is written."""
    return {
        "norm_groups": 1,  # BatchNorm over the whole batch; n: over each n-th of it by itself
        # What memory a step takes, and what that costs: docs/sharding.md.
        "memory": {
            "remat": "none",  # what the CNNs' backward pass keeps: none (all of it), convolutions, blocks or stages
            "clip_chunks": 1,  # the CNNs take 1/n of each video's clips at a time, with BatchNorm over these
            "accumulation_steps": 1,  # the step takes 1/n of the batch at a time, with all objectives over these
        },
        # Axes of devices; -1: what is left. Rows of the batch lie along data and fsdp, clips along clip.
        "mesh": {"data": -1, "fsdp": 1, "clip": 1},
        # What is split over which axes of the mesh: docs/sharding.md.
        "sharding": {
            "batch": ("data", "fsdp"),  # rows
            "clip": ("clip",),  # clips of a video, in the CNNs
            # Parameters, and what the optimizer keeps of each: the first pattern found in an array's path counts.
            # It is split along its longest axis that divides. An array without a pattern is an error.
            "parameters": (
                (r"/(kernel|bilinear|u|v|a)$", ("fsdp",)),
                (r"/(bias|scale|position|modality|(visual|audio)_(bos|mask_vector))$", ()),
                (r"^batch_stats/", ()),
            ),
            "smallest": 16_384,  # arrays of fewer numbers are whole on every device
        },
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
        "checkpoints_kept": 3,
        "max_nonfinite_steps": 10,
        "peer_timeout_seconds": 100,  # after which a process ends whose peer has died
    }


def clip_objectives() -> dict[str, Any]:
    """Fields of objectives on single clips, which the paper does not have; its recipe leaves all weights at 0."""
    return {
        "contrast_weight": 0.0,  # InfoNCE between a clip's image and its own sound, against clips of other videos
        "contrast_unit": "clips",  # or videos: between the means of their clips
        "contrast_same_video": 0.0,  # what another clip of the same video counts as among the negatives, in clips
        "within_weight": 0.0,  # the same between two neighboring clips of a video, for each modality
        "variance_weight": 0.0,  # VICReg: standard deviations of projections are to be at least 1
        "covariance_weight": 0.0,  # VICReg: dimensions of projections are to be uncorrelated
        "sigreg_weight": 0.0,  # SIGReg: projections are to be an isotropic normal distribution
        "sigreg_slices": 256,  # directions in which it looks, drawn for each step
        # Each CNN's features of a clip go through a projector of two layers, for these objectives alone.
        "projector_hidden": 512,
        "projector_width": 128,
    }


def demo_clips(config: ConfigDict) -> None:
    """Clips of the demo's generated 8-second videos."""
    frontend = FrontEnd(fps=16.0, short_side=46, sample_rate=16_000, n_fft=1_000, hop_length=500, mels=32)
    config.data.update(
        name="demo",
        frontend=ConfigDict(dataclasses.asdict(frontend)),
        num_clips=8,
        frames_per_clip=4,
        frame_stride=4,
        mel_frames=32,
        min_short_side=42,
        max_short_side=46,
        crop=40,
        num_workers=1,
    )


def classification(name: str, frontend: FrontEnd, modalities: tuple[str, ...]) -> ConfigDict:
    """The recipe that the downstream tasks start from; each config file sets what its protocol has of its own.

    Args:
      name: of the config.
      frontend: what the data set must have been prepared with.
      modalities: what the task sees, "visual" or "audio" or both.
    """
    return ConfigDict(
        {
            "name": name,
            "seed": 0,
            # The workdir of a run, or of imported weights, whose network this one starts from and whose sizes it has;
            # None: it starts from random weights, with the sizes below.
            "init_from": config_dict.placeholder(str),
            # Which of the publisher's splits or folds, of how many; it stands for {split} in the names below.
            "split": 1,
            "num_splits": 1,
            "batch_size": 32,
            "epochs": 20.0,
            "total_steps": config_dict.placeholder(int),  # None: as many as the epochs have
            "task": {
                "modalities": modalities,
                "heads": ("clips",),  # linear on the CNNs' features of a clip; "tokens": on the Transformers' outputs
                "loss": {"name": "cross_entropy"},  # or multi_margin, or binary_cross_entropy for several labels
                "dropout": 0.5,  # before the heads' linear layers
                # Parts of the network that stay as they are, BatchNorm's statistics included; "network": all of it.
                "frozen": (),
                "class_names": (),  # (): those of the data set, whose order gives them their numbers
            },
            "data": {
                "name": name.split("_", 1)[1],
                "data_dir": "data",
                "weights": (),
                "train_split": "train",
                "eval_split": "test",
                "frontend": dataclasses.asdict(frontend),
                "keep_incomplete": False,  # True: also use videos that lack one of the task's modalities
                "max_unreadable_share": 0.01,
                "num_clips": 1,
                "frames_per_clip": 16,
                "frame_stride": 1,
                "mel_frames": 128,
                "min_short_side": 128,  # (C)
                "max_short_side": 160,  # (C)
                "crop": 112,  # (C)
                "num_workers": 8,
                "prefetch": 2,
            },
            "augment": {"flip": 0.5, "frequency_mask": 0.0, "time_mask": 0.0, "modality_dropout": 0.0},
            "model": sizes.base(),
            "optimizer": {
                "learning_rate": 1e-3,  # of the heads
                "network_learning_rate": 1e-4,
                "decay": "cosine",  # to 0; or linear
                "warmup_fraction": 0.0,
                "b1": 0.9,  # (C)
                "b2": 0.999,  # (C)
                "eps": 1e-6,  # (C)
                "weight_decay": 5e-6,  # (C) of UCF101; none on BatchNorm
            },
            # The views of a video whose scores eval.py pools: by their mean, or by max.
            "test": {"temporal_views": 10, "spatial_views": 3, "short_side": 128, "crop": 128, "pool": "mean"},
            **running(log_every=20, checkpoint_every=500),
        }
    )


def evaluation() -> ConfigDict:
    """Returns the config of evaluation, as `configs/eval.py` has it: what it adds to, or changes in, the run's."""
    return ConfigDict(
        {
            "seed": 0,
            # Videos, or views in tests of classification. MEP chooses among the clips of a batch, so its chance level
            # depends on this.
            "batch_size": 16,
            "max_videos": 2000,  # of each split; tests of classification take all
            # Not set: as in training. Imported weights have no data set of their own, so they need a name.
            "data": {
                "name": config_dict.placeholder(str),
                "data_dir": config_dict.placeholder(str),
                "train_split": config_dict.placeholder(str),
                "eval_split": config_dict.placeholder(str),
                "frontend": {
                    "fps": config_dict.placeholder(float),
                    "short_side": config_dict.placeholder(int),
                    "sample_rate": config_dict.placeholder(int),
                    "n_fft": config_dict.placeholder(int),
                    "win_length": config_dict.placeholder(int),
                    "hop_length": config_dict.placeholder(int),
                    "mels": config_dict.placeholder(int),
                },
                "num_clips": config_dict.placeholder(int),
                "frames_per_clip": config_dict.placeholder(int),
                "frame_stride": config_dict.placeholder(int),
                "mel_frames": config_dict.placeholder(int),
                "min_short_side": config_dict.placeholder(int),
                "max_short_side": config_dict.placeholder(int),
                "crop": config_dict.placeholder(int),
                "num_workers": 0,  # Threads: to start processes for each pass over a small data set takes longer.
            },
            # Views of a video in tests of classification. Not set: as in the config of the run.
            "test": {
                "temporal_views": config_dict.placeholder(int),
                "spatial_views": config_dict.placeholder(int),
                "short_side": config_dict.placeholder(int),
                "crop": config_dict.placeholder(int),
                "pool": config_dict.placeholder(str),
            },
            "poll_seconds": 10.0,  # how often --watch looks for a new checkpoint
            "peer_timeout_seconds": 100,  # after which a process ends whose peer has died
            "exclude_pretraining_videos": False,  # leave out test videos whose ids are among those of pretraining
            "recalibration_batches": 8,  # training batches that give the fresh network its BatchNorm statistics
            # Logistic regression; each probe chooses between standardized and whitened features, and C, the inverse of
            # the L2 penalty, on every fifth training video.
            "probe": {
                "standardized_c": (0.1, 1.0, 10.0),
                "whitened_c": (0.001, 0.01, 0.1, 1.0),
                "max_iterations": 100,
            },
            # Vote of the k nearest training videos by cosine similarity, with weights exp(similarity / temperature);
            # k, too, is chosen on every fifth training video.
            "neighbors": {"k": (5, 20, 100), "temperature": 0.07},
            # Retrieval by features: penalties in multiples of the mean variance, chosen on every fifth training video.
            "canonical_penalties": (0.001, 0.01, 0.1, 1.0),
            "bootstrap_resamples": 1000,  # of the test videos, for 95 % intervals of probes and retrieval
            "retrieval_gallery": 200,  # test videos; every image is scored against every sound: gallery^2 pairs
            "sheet_videos": 6,  # rows of the report's sheet of test videos
        }
    )
