"""UCF101: the visual CNN and a linear head are fine-tuned to recognize 101 actions.

    python -m avshare_jax.prepare ucf101 --videos=UCF-101 --annotations=ucfTrainTestlist --name=ucf101 --fps=30
    python main.py --config=configs/finetune_ucf101.py --config.init_from=RUN --workdir=DIR               split 1
    python main.py --config=configs/finetune_ucf101.py:split=2 --config.init_from=RUN --workdir=DIR       split 2
    python -m avshare_jax.protocol --config=configs/finetune_ucf101.py --config.init_from=RUN --workdir=DIR   all three

RUN is the workdir of a pretraining run or of imported weights; without it, training starts from random weights. The
released code reaches 87.5 % top-1 and 97.4 % top-5, the mean of three splits. Marks: see `avshare_jax/recipes.py`.
"""

from ml_collections import ConfigDict

from avshare_jax import recipes
from avshare_jax.data.frontend import FrontEnd


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe with fields set by `variant`, such as `split=2`; `ValueError` where one is unknown."""
    config = recipes.classification("finetune_ucf101", FrontEnd(fps=30.0), modalities=("visual",))
    config.num_splits = 3  # (C)
    config.batch_size = 32  # (C)
    config.epochs = 20.0  # (C)
    config.task.dropout = 0.5  # (C)
    config.data.update(train_split="train{split}", eval_split="test{split}")
    # One clip (C) of 32 frames (C), every other of 30 a second (C): 2.1 s.
    config.data.update(num_clips=1, frames_per_clip=32, frame_stride=2, mel_frames=273)
    config.optimizer.update(learning_rate=0.03, network_learning_rate=1e-4, decay="cosine")  # (C)
    config.test.update(temporal_views=10, spatial_views=3, short_side=128, crop=128, pool="mean")  # (C)
    return recipes.apply_changes(config, variant, {}, config.name)
