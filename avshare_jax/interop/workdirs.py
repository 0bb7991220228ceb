"""Networks in and out of workdirs: what import writes and export reads."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import (
    Checkpoints,
    check_finite,
    claim_workdir,
    latest_step,
    restore_network,
)
from avshare_jax.training.run_config import read_config
from avshare_jax.training.step import TrainState

Variables = dict[str, Any]


def write_imported(
    workdir: str, recipe: ConfigDict, model_config: ConfigDict, variables: Variables, account: Mapping[str, Any]
) -> None:
    """Writes a workdir with an imported network as its checkpoint of step 0, without heads and optimizer's state.

    Args:
      workdir: to write.
      recipe: config of a pretraining run. Its clips and front end are how clips are cut for the network unless
        evaluation is told otherwise; its data set and steps are left out, because nobody knows the network's.
      model_config: of the network.
      variables: `params` and `batch_stats` of the network.
      account: where the network comes from, written to WORKDIR/imported.json; JSON values.

    Raises:
      UserError: the workdir holds a run or cannot be written, the recipe has more clips than the network has positions,
        or weights are not finite.
    """
    if (epath.Path(workdir) / "config.json").exists():
        raise UserError(f"The workdir {workdir} holds a run already: choose another --workdir.")
    if recipe.data.num_clips >= model_config.positions:
        raise UserError(
            f"The recipe cuts {recipe.data.num_clips} clips, but the network has {model_config.positions} positions, "
            f"one of them for BOS: choose a --config with at most {model_config.positions - 1} clips."
        )
    check_finite(variables, "The file")
    config = recipe.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        config.name, config.model, config.total_steps, config.data.name = "avbert", model_config, 0, None
    claim_workdir(workdir, config, {"name": None, "fingerprint": None})
    (epath.Path(workdir) / "imported.json").write_text(json.dumps(account, indent=2) + "\n")
    state = TrainState(
        step=jnp.int32(0),
        params={"network": variables["params"]},
        batch_stats={"network": variables["batch_stats"]},
        opt_state=(),
        skipped=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
    )
    with Checkpoints(workdir, kept=1) as checkpoints:
        checkpoints.save(state)


def read_network(workdir: str) -> tuple[ConfigDict, int, Variables]:
    """Reads the network of a run's last checkpoint, trained or imported, without its pretraining heads.

    Returns:
      The run's config, the step, and `params` and `batch_stats` of `models.build(config.model)` on this process's first
      device.

    Raises:
      UserError: there is no run or no checkpoint in the workdir.
    """
    config, step = read_config(workdir), latest_step(workdir)
    if step is None:
        raise UserError(f"The run in {workdir} has no checkpoint yet: train it further with main.py.")
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = abstract_network(config.model)
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    return config, step, restore_network(workdir, step, placed)


def abstract_network(model_config: ConfigDict) -> Variables:
    """Returns the shapes of `params` and `batch_stats` of a network, computing nothing."""
    batch = {"frames": np.zeros((1, 1, 2, 32, 32, 3), np.float32), "log_mel": np.zeros((1, 1, 16, 16), np.float32)}
    model = models.build(model_config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
