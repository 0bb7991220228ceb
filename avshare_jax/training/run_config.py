"""The config of a run, read back from its workdir and checked as if it were given now."""

from etils import epath
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import load_config


def read_config(workdir: epath.PathLike) -> ConfigDict:
    """Returns the config of the training run, or of the imported weights, in a workdir.

    Fields that came after it was recorded have the values that it was trained with.

    Raises:
      UserError: there is no run, or its config.json is damaged, or holds what no run can be trained with.
    """
    config = load_config(workdir)
    schema.fill_in(config)
    try:
        schema.check(config, schema.TRAINING, recorded=True)
    except UserError as error:
        path = epath.Path(workdir) / "config.json"
        raise UserError(
            f"{path} is damaged or was edited: restore it from a copy, or choose another run. {error}"
        ) from error
    return config
