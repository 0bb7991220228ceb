"""ESC-50: a linear head on the frozen audio CNN tells 50 environmental sounds apart.

    python -m avshare_jax.prepare esc50 --videos=ESC-50-master --name=esc50 --frontend=avbert_2s
    python main.py --config=configs/linear_esc50.py --config.init_from=RUN --workdir=DIR              fold 1 is tested
    python main.py --config=configs/linear_esc50.py:split=2 --config.init_from=RUN --workdir=DIR      fold 2 is tested
    python -m avshare_jax.protocol --config=configs/linear_esc50.py --config.init_from=RUN --workdir=DIR      all five

RUN is the workdir of a pretraining run or of imported weights; without it, the frozen network has random weights. The
released code reaches 85.9 % top-1 and 96.9 % top-5, the mean of five folds. Marks: see `avshare_jax/recipes.py`.
"""

from ml_collections import ConfigDict

from avshare_jax import recipes
from avshare_jax.data.frontend import PRESETS


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe with fields set by `variant`, such as `split=2`; `ValueError` where one is unknown."""
    config = recipes.classification("linear_esc50", PRESETS["avbert_2s"], modalities=("audio",))
    config.num_splits = 5  # (C)
    config.batch_size = 128  # (C)
    config.epochs = 300.0  # (C)
    config.task.update(dropout=0.1, frozen=("network",), loss={"name": "multi_margin", "margin": 0.1})  # (C)
    config.data.update(train_split="train{split}", eval_split="test{split}")
    # One clip of 2 s (C), which is 32 of the front end's 16 frames a second.
    config.data.update(num_clips=1, frames_per_clip=32, frame_stride=1, mel_frames=128)
    config.augment.update(frequency_mask=0.05, time_mask=0.05)  # (R) as in pretraining
    config.optimizer.update(learning_rate=3e-3, decay="linear", weight_decay=0.0)  # (C), but the weight decay is (R)
    config.test.update(temporal_views=10, spatial_views=1, pool="mean")  # (C)
    return recipes.apply_changes(config, variant, {}, config.name)
