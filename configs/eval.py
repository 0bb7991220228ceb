"""Evaluation of a checkpoint of any task; what it measures depends on the task that the run was trained for.

    python eval.py --config=configs/eval.py --workdir=runs/demo

    python eval.py --config=configs/eval.py --workdir=DIR --config.data.name=NAME       on another data set
    python eval.py --config=configs/eval.py --workdir=DIR --watch                       each checkpoint as it lands

Model, data set and seed of the run come from WORKDIR/config.json; what evaluation adds or changes is in
avshare_jax/recipes.py, where an installed package has it, too.
"""

from ml_collections import ConfigDict

from avshare_jax import recipes


def get_config() -> ConfigDict:
    """Returns the evaluation config."""
    return recipes.evaluation()
