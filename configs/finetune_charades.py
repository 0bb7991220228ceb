"""Charades: the whole network and two heads are fine-tuned to find all of 157 actions in videos of 30 s.

    python -m avshare_jax.prepare charades --videos=Charades_v1 --annotations=DIR --name=charades
    python main.py --config=configs/finetune_charades.py --config.init_from=RUN --workdir=DIR

RUN is the workdir of a pretraining run or of imported weights; without it, training starts from random weights. The
paper has 29.5 mAP (second-hand). No code of it was released: heads and rates are those of Kinetics-Sounds (R), with
a sigmoid for each class, binary cross-entropy, and the views' highest scores. Marks: see `avshare_jax/recipes.py`.
"""

from ml_collections import ConfigDict

from avshare_jax import recipes
from avshare_jax.data.frontend import FrontEnd


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe with fields set by `variant`; `ValueError` where one is unknown."""
    config = recipes.classification("finetune_charades", FrontEnd(), modalities=("visual", "audio"))
    config.batch_size = 5  # (R)
    config.epochs = 20.0  # (R)
    config.task.update(heads=("clips", "tokens"), dropout=0.5, loss={"name": "binary_cross_entropy"})  # (R)
    # Thirty clips of 16 frames (R), as in pretraining: 30 s (P).
    config.data.update(num_clips=30, frames_per_clip=16, frame_stride=1, mel_frames=128)
    config.augment.update(frequency_mask=0.05, time_mask=0.05)  # (R) as in pretraining
    config.optimizer.update(learning_rate=1e-3, network_learning_rate=1e-4, decay="cosine")  # (R)
    config.test.update(temporal_views=10, spatial_views=3, short_side=128, crop=128, pool="max")  # (R), views (R)
    config.checkpoint_every = 2_000
    return recipes.apply_changes(config, variant, {}, config.name)
