"""Evaluates the last checkpoint of a run: python eval.py --config=configs/eval.py --workdir=DIR.

With --watch, each checkpoint of a running training as it lands, until the last.
"""

import os
from functools import partial

from absl import flags
from ml_collections import ConfigDict

from avshare_jax import schema, settings
from avshare_jax.data.errors import DatasetError

WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Folder of the run to evaluate.")
WATCH = flags.DEFINE_bool("watch", False, "Evaluate each checkpoint as it lands, until the run's last step.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX does not find it by itself.")
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Processes that test together, with --coordinator.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0, with --coordinator.", lower_bound=0
)


def main(config: ConfigDict) -> None:
    """Evaluates; JAX and the libraries for plots are imported only once the command line is known to be right."""
    from avshare_jax.compilation_cache import keep_compiled_programs
    from avshare_jax.training import hosts

    hosts.connect(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, config.peer_timeout_seconds)
    with hosts.ending_together():
        keep_compiled_programs()
        from avshare_jax.evaluation.runs import evaluate_run, watch

        (watch if WATCH.value else evaluate_run)(config, os.path.expanduser(WORKDIR.value))


if __name__ == "__main__":  # Data-reading worker processes import this file.
    find_mistakes = partial(schema.find_mistakes, kinds=(schema.EVALUATION,))
    settings.run(main, "configs/eval.py", find_mistakes, user_errors=(DatasetError,))
