"""Pretraining: the paper's recipe, and a demo of it that trains on two CPU cores.

    python main.py --config=configs/pretrain.py --workdir=DIR          the paper's recipe, on accelerators
    python main.py --config=configs/pretrain.py:demo                   generated videos, a small network, minutes
    python main.py --config=configs/pretrain.py:demo,long              the same with more steps

Marks on values: (P) stated by the paper, (C) read in the released code, (R) second-hand or our choice where nothing is
published.
"""

from ml_collections import ConfigDict

from avshare_jax.models import sizes


def get_config(variant: str = "paper") -> ConfigDict:
    """Returns the config of `paper`, `demo` or `demo,long`."""
    variants = {"paper": paper, "demo": demo, "demo,long": demo_long}
    if variant not in variants:
        raise ValueError(f"configs/pretrain.py has no variant '{variant}'. It has: {', '.join(variants)}.")
    return variants[variant]()


def paper() -> ConfigDict:
    """The paper's run: 256 videos of 30 s a step for 220,000 steps, on 64 V100 (P)."""
    return ConfigDict(
        {
            "name": "pretrain",
            "seed": 0,
            "batch_size": 256,  # (P)
            "total_steps": 220_000,  # (P)
            "data": {
                "name": "my_videos",
                "data_dir": "data",
                "train_split": "train",
                "eval_split": "test",
                # What the data set must have been prepared with; these are the defaults of `avshare_jax.prepare`.
                # Spectrogram (C): 128 frames per 1-second clip at 44.1 kHz.
                "frontend": {
                    "fps": 16.0,  # (P) 480 frames in 30 s
                    "short_side": 160,
                    "sample_rate": 44_100,
                    "n_fft": 690,
                    "hop_length": 345,
                    "mels": 80,
                },
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
            },
            "optimizer": {
                "learning_rate": 1e-4,  # (R)
                "warmup_fraction": 0.06,  # (R)
                "b1": 0.9,  # (P)
                "b2": 0.98,  # (P)
                "eps": 1e-8,
                "weight_decay": 1e-4,  # (P)
                "grad_clip": 1.0,  # (R)
            },
            "mesh": {"data": -1},
            "log_every": 100,
            "checkpoint_every": 2_000,
            "checkpoints_kept": 3,
            "max_nonfinite_steps": 10,
        }
    )


def demo() -> ConfigDict:
    """Generated 8-second videos and the tiny network; the README gives time and results."""
    config = paper()
    config.name = "demo"
    config.batch_size = 16
    config.total_steps = 900
    config.demo = ConfigDict({"videos_dir": "data/demo_videos", "num_train": 1200, "num_test": 400, "seed": 0})
    config.data.update(
        name="demo",
        frontend=ConfigDict(
            {"fps": 16.0, "short_side": 46, "sample_rate": 16_000, "n_fft": 1_000, "hop_length": 500, "mels": 32}
        ),
        num_clips=8,
        frames_per_clip=4,
        frame_stride=4,
        mel_frames=32,
        min_short_side=42,
        max_short_side=46,
        crop=40,
        num_workers=1,
    )
    # The paper's masks are the same for all clips of a video. On the demo's plain sounds, recognizing the mask is the
    # easiest way to tell a video's own clips from negatives: 18 % top-1 in training, chance without augmentation.
    config.augment.update(frequency_mask=0.0, time_mask=0.0)
    config.model = sizes.tiny()
    config.objectives.mask_fraction = 0.25
    config.objectives.num_negatives = 32
    config.optimizer.learning_rate = 3e-3
    config.log_every = 20
    config.checkpoint_every = 300
    return config


def demo_long() -> ConfigDict:
    """The demo with more steps; at most an hour on two cores."""
    config = demo()
    config.name = "demo_long"
    config.total_steps = 3_000
    return config
