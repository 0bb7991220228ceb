"""Trains what a config describes; run again, it resumes.

python main.py --config=configs/pretrain.py[:demo] --workdir=DIR                        pretraining
python main.py --config=configs/finetune_ucf101.py --config.init_from=RUN --workdir=DIR     a downstream task
"""

import os
from functools import partial

from absl import flags
from ml_collections import ConfigDict

from avshare_jax import schema, settings
from avshare_jax.data.errors import DatasetError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/<name of the config>.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX does not find it by itself.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run, with --coordinator.", lower_bound=1)
PROFILE_STEPS = flags.DEFINE_string("profile_steps", None, "FIRST:LAST, steps to write a profile of: docs/running.md.")
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder for compiled programs; by default $JAX_COMPILATION_CACHE_DIR or ~/.cache/avshare_jax/compiled. : none.",
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0, with --coordinator.", lower_bound=0
)


def main(config: ConfigDict) -> None:
    """Trains; JAX is imported only once the command line is known to be right."""
    from avshare_jax.compilation_cache import keep_compiled_programs
    from avshare_jax.training import hosts

    hosts.connect(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, config.peer_timeout_seconds)
    with hosts.ending_together():
        keep_compiled_programs(COMPILATION_CACHE.value)
        if "task" in config:
            from avshare_jax.training.finetune import finetune as train
        else:
            from avshare_jax.training.run import pretrain as train

        train(config, os.path.expanduser(WORKDIR.value or f"runs/{config.name}"), PROFILE_STEPS.value)


if __name__ == "__main__":  # Data-reading worker processes import this file.
    find_mistakes = partial(schema.find_mistakes, kinds=schema.TRAINING)
    settings.run(main, "configs/pretrain.py", find_mistakes, user_errors=(DatasetError,))
