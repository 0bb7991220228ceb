"""Evaluates the last checkpoint of a run: python eval.py --config=configs/eval.py --workdir=DIR."""

import math
import os

from absl import flags
from ml_collections import ConfigDict

from avshare_jax import settings
from avshare_jax.data.dataset import DatasetError

LIMITS = {
    **dict.fromkeys(("batch_size", "recalibration_batches", "probe.max_iterations", "sheet_videos"), (1, math.inf)),
    **dict.fromkeys(("bootstrap_resamples",), (1, math.inf)),
    "neighbors.temperature": (1e-3, math.inf),
    **dict.fromkeys(("max_videos", "retrieval_gallery"), (2, math.inf)),
    **dict.fromkeys(("seed", "data.num_workers"), (0, math.inf)),
}
WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Folder of the run to evaluate.")


def main(config: ConfigDict) -> None:
    """Evaluates; JAX and the libraries for plots are imported only once the command line is known to be right."""
    settings.check_fields(config, LIMITS)
    from avshare_jax.evaluation.evaluate import evaluate

    evaluate(config, os.path.expanduser(WORKDIR.value))


if __name__ == "__main__":  # Data-reading worker processes import this file.
    settings.run(main, "configs/eval.py", user_errors=(DatasetError,))
