"""Pretraining: the paper's recipe, its ablations, and a demo that trains on two CPU cores.

    python main.py --config=configs/pretrain.py --workdir=DIR          the paper's recipe, on accelerators
    python main.py --config=configs/pretrain.py:demo                   generated videos, a small network, minutes
    python main.py --config=configs/pretrain.py:10s,late_fusion,optimizer.learning_rate=3e-4 --workdir=DIR

What follows the colon are changes to the recipe, made in that order: names of `CHANGES` and values of fields.
Marks on values: (P) stated by the paper, (C) read in the released code, (R) second-hand or our choice where nothing is
published.
"""

import dataclasses
from collections.abc import Callable

from ml_collections import ConfigDict

from avshare_jax import recipes, sizes
from avshare_jax.data.frontend import PRESETS


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe with the changes of `variant`, comma-separated; `ValueError` where one is unknown."""
    return recipes.apply_changes(paper(), variant, CHANGES, "pretrain")


def paper() -> ConfigDict:
    """The paper's run: 256 videos of 30 s a step for 220,000 steps, on 64 V100 (P)."""
    return ConfigDict(
        {
            "name": "pretrain",
            "seed": 0,
            "batch_size": 256,  # (P)
            "total_steps": 220_000,  # (P)
            "data": {
                "name": "my_videos",  # several: "speech+music"; evaluation takes the first
                "data_dir": "data",
                "weights": (),  # of several data sets in the batches; (): in proportion to their numbers of videos
                "train_split": "train",
                "eval_split": "test",
                # What the data set must have been prepared with; these are the defaults of `avshare_jax.prepare`.
                # Spectrogram (C): 128 frames per 1-second clip at 44.1 kHz.
                "frontend": {
                    "fps": 16.0,  # (P) 480 frames in 30 s
                    "short_side": 160,
                    "sample_rate": 44_100,
                    "n_fft": 690,
                    "win_length": 0,  # as n_fft
                    "hop_length": 345,
                    "mels": 80,
                },
                "keep_incomplete": False,  # True: also train on videos that lack image or sound
                "max_unreadable_share": 0.01,  # of a data set's training records; the run ends when more are damaged
                "num_clips": 30,  # (P)
                "frames_per_clip": 16,  # (P)
                "frame_stride": 1,
                "mel_frames": 128,  # (C)
                "min_short_side": 128,  # (C)
                "max_short_side": 160,  # (C)
                "crop": 112,  # (P)
                "num_workers": 8,
                "prefetch": 2,
            },
            "augment": {"flip": 0.5, "frequency_mask": 0.05, "time_mask": 0.05, "modality_dropout": 0.0},  # (P)
            "model": sizes.base(),
            "objectives": {
                "mask_fraction": 0.15,  # (R)
                "num_negatives": 64,  # (R)
                "negative_sampling": "similar",  # (P) the paper's best; or dissimilar, uniform, current_sequence
                "negative_groups": 1,  # negatives from the whole batch; n: from one n-th of it
                "masked_weight": 1.0,
                "multimodal_weight": 1.0,  # (R) alpha
                "pair_weight": 1.0,  # (R) beta
                **recipes.clip_objectives(),
            },
            "optimizer": {
                "learning_rate": 1e-4,  # (R)
                "warmup_fraction": 0.06,  # (R)
                "decay": "linear",  # (R) to 0; or cosine
                "b1": 0.9,  # (P)
                "b2": 0.98,  # (P)
                "eps": 1e-8,
                "weight_decay": 1e-4,  # (P)
                "grad_clip": 1.0,  # (R)
            },
            **recipes.running(log_every=100, checkpoint_every=2_000),
        }
    )


def ten_seconds(config: ConfigDict) -> None:
    """Ten clips, for the usual releases of Kinetics and AudioSet, whose videos last 10 s at most (C)."""
    config.data.num_clips = 10
    config.model.positions = 22  # (C) of the released checkpoint


def sixteen_kilohertz(config: ConfigDict) -> None:
    """Sound at 16 kHz with a 25 ms window every 10 ms, as speech and AudioSet models have it (not the paper's)."""
    config.data.update(frontend=ConfigDict(dataclasses.asdict(PRESETS["16khz"])), mel_frames=100)


def demo(config: ConfigDict) -> None:
    """Generated 8-second videos and the tiny network; the README gives time and results."""
    config.batch_size = 16
    config.total_steps = 900
    config.demo = ConfigDict({"videos_dir": "data/demo_videos", "num_train": 1200, "num_test": 400, "seed": 0})
    recipes.demo_clips(config)
    # The paper's masks are the same for all clips of a video. On the demo's plain sounds, recognizing the mask is the
    # easiest way to tell a video's own clips from negatives: 18 % top-1 in training, chance without augmentation.
    config.augment.update(frequency_mask=0.0, time_mask=0.0)
    config.model = sizes.tiny()
    config.objectives.mask_fraction = 0.25
    config.objectives.update(num_negatives=32, projector_hidden=128, projector_width=64)
    config.optimizer.learning_rate = 3e-3
    config.log_every = 20
    config.checkpoint_every = 300


def long(config: ConfigDict) -> None:
    """More steps for the demo; at most an hour on two cores."""
    config.total_steps = 3_000


def full_weights(layer_sharing: str, transformer_sharing: str) -> Callable[[ConfigDict], None]:
    """Returns a change to weights that are not factorized, shared or not."""
    return lambda config: config.model.update(
        rank=None, layer_sharing=layer_sharing, transformer_sharing=transformer_sharing
    )


def factorized(layer_sharing: str, transformer_sharing: str) -> Callable[[ConfigDict], None]:
    """Returns a change to other sharing of factorized weights."""
    return lambda config: config.model.update(layer_sharing=layer_sharing, transformer_sharing=transformer_sharing)


def negatives(sampling: str) -> Callable[[ConfigDict], None]:
    """Returns a change to another choice of negatives."""
    return lambda config: config.objectives.update(negative_sampling=sampling)


CHANGES = {
    "10s": ten_seconds,
    "demo": demo,
    "long": long,
    "16khz": sixteen_kilohertz,
    # Fusion; the recipe's is mid.
    "early_fusion": lambda config: config.model.update(fusion="early"),
    "late_fusion": lambda config: config.model.update(fusion="late"),
    # Sharing; the recipe shares everything across layers, and U across Transformers.
    "nothing_shared": full_weights("none", "none"),
    "transformers_share": full_weights("none", "all"),
    "layers_share": full_weights("all", "none"),
    "everything_shared": full_weights("all", "all"),
    "transformers_share_u": factorized("none", "factorized"),
    "layers_share_factors": factorized("all", "none"),
    "layers_and_transformers_share_u": factorized("factorized", "factorized"),  # not in the paper
    "cayley": lambda config: config.model.update(orthogonal_map="cayley"),
    # Negatives; the recipe's are content-aware and similar.
    "sequence_negatives": negatives("current_sequence"),
    "uniform_negatives": negatives("uniform"),
    "dissimilar_negatives": negatives("dissimilar"),
    # Objectives; the recipe has both.
    "masked_embedding_only": lambda config: config.objectives.update(pair_weight=0.0),
    "correct_pair_only": lambda config: config.objectives.update(masked_weight=0.0),
    # Objectives on clips, not in the paper; each comes on top of what there is.
    "contrast": lambda config: config.objectives.update(contrast_weight=2.0),
    "contrast_within": lambda config: config.objectives.update(within_weight=2.0),
    "vicreg": lambda config: config.objectives.update(variance_weight=2.0, covariance_weight=0.1),
    "sigreg": lambda config: config.objectives.update(sigreg_weight=0.05),
}
