"""Pretrains: python main.py --config=configs/pretrain.py[:demo] --workdir=DIR. Run again, it resumes."""

import os

from absl import flags
from ml_collections import ConfigDict

from avshare_jax import settings
from avshare_jax.data.dataset import DatasetError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/<name of the config>.")


def main(config: ConfigDict) -> None:
    """Pretrains; JAX is imported only once the command line is known to be right."""
    from avshare_jax.training.run import pretrain

    pretrain(config, os.path.expanduser(WORKDIR.value or f"runs/{config.name}"))


if __name__ == "__main__":  # Data-reading worker processes import this file.
    settings.run(main, "configs/pretrain.py", user_errors=(DatasetError,))
