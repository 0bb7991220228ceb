"""Kinetics-Sounds: the whole network and two heads are fine-tuned on image and sound together.

    python -m avshare_jax.prepare kinetics_sounds --videos=DIR --annotations=train.csv --annotations=val.csv \\
        --name=kinetics_sounds --fps=32
    python main.py --config=configs/finetune_kinetics_sounds.py --config.init_from=RUN --workdir=DIR
    python main.py --config=configs/finetune_kinetics_sounds.py:demo --config.init_from=runs/demo --workdir=DIR

RUN is the workdir of a pretraining run or of imported weights; without it, training starts from random weights. The
released code reaches 85.8 % top-1 and 97.8 % top-5. Marks: see `avshare_jax/recipes.py`.
"""

from ml_collections import ConfigDict

from avshare_jax import recipes, sizes
from avshare_jax.data.frontend import FrontEnd


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe with the changes of `variant`, such as `demo`; `ValueError` where one is unknown."""
    config = recipes.classification("finetune_kinetics_sounds", FrontEnd(fps=32.0), modalities=("visual", "audio"))
    config.batch_size = 5  # (C)
    config.epochs = 20.0  # (C)
    config.task.update(heads=("clips", "tokens"), dropout=0.5)  # (C)
    config.data.update(eval_split="val")
    # Ten clips of 32 frames (C), 32 of them a second (R): ten seconds, which is what the videos last.
    config.data.update(num_clips=10, frames_per_clip=32, frame_stride=1, mel_frames=128)
    config.augment.update(frequency_mask=0.05, time_mask=0.05)  # (R) as in pretraining
    config.model.positions = 22  # (C) of the released checkpoint
    config.optimizer.update(learning_rate=1e-3, network_learning_rate=1e-4, decay="cosine")  # (C)
    config.test.update(temporal_views=10, spatial_views=3, short_side=128, crop=128, pool="mean")  # (C), sizes (R)
    config.checkpoint_every = 2_000
    return recipes.apply_changes(config, variant, {"demo": demo}, config.name)


def demo(config: ConfigDict) -> None:
    """The same on the demo's generated videos with its tiny network, in minutes on a CPU; docs/downstream.md."""
    recipes.demo_clips(config)
    config.data.eval_split = "test"
    config.model = sizes.tiny()
    config.batch_size = 16
    config.epochs = 8.0
    config.task.dropout = 0.1
    config.augment.update(frequency_mask=0.0, time_mask=0.0)
    config.optimizer.update(learning_rate=1e-2, network_learning_rate=1e-3)
    config.test.update(temporal_views=1, spatial_views=1, short_side=44, crop=40)
    config.checkpoint_every = 100
