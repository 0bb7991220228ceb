"""Opens a checkpoint, and the data set that it is evaluated on."""

from collections.abc import Mapping

from etils import epath
from ml_collections import ConfigDict

from avshare_jax.data.dataset import Dataset, check_frontend, open_dataset
from avshare_jax.data.mixtures import dataset_names
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import latest_step
from avshare_jax.training.run_config import read_config


def open_checkpoint(workdir: epath.PathLike, step: int | None) -> tuple[epath.Path, ConfigDict, int]:
    """The workdir of a run, its config, and the step of a checkpoint, by default the last.

    Raises:
      UserError: there is no run, its config is damaged, or it has no checkpoint.
    """
    workdir = epath.Path(workdir)
    run_config = read_config(workdir)
    step = latest_step(workdir) if step is None else step
    if step is None:
        raise UserError(f"The run in {workdir} has no checkpoint yet: train it further with main.py.")
    return workdir, run_config, step


def open_known_dataset(data: ConfigDict, workdir: epath.Path, trained_on: Mapping[str, str | None]) -> Dataset:
    """Opens the data set that a config names, or the first of several; it may be another than was trained on.

    Args:
      data: of the config.
      workdir: of the run.
      trained_on: `name` and `fingerprint` of the data set it was trained on; None for imported weights.

    Raises:
      UserError: it has the name of one that was trained on, but another fingerprint.
    """
    dataset = open_dataset(data.data_dir, dataset_names(data.name)[0])
    check_frontend(dataset, data.frontend)
    if (fingerprint := trained_fingerprint(trained_on, dataset.name)) not in (None, dataset.fingerprint):
        raise UserError(
            f"The run in {workdir} was trained on a data set with fingerprint {fingerprint}, but "
            f"{dataset.name} in {data.data_dir} has {dataset.fingerprint}: "
            "say with --config.data.data_dir=DIR where the original is."
        )
    return dataset


def trained_fingerprint(trained_on: Mapping[str, str | None], name: str) -> str | None:
    """Fingerprint of the data set of that name among those that a run was trained on; None where it was not."""
    names, fingerprints = ((trained_on[key] or "").split("+") for key in ("name", "fingerprint"))
    return dict(zip(names, fingerprints, strict=True)).get(name)


def set_chosen(config: ConfigDict, changes: ConfigDict) -> None:
    """Sets the fields that are not None in `changes`, group by group."""
    for name, value in changes.items():
        if isinstance(value, ConfigDict):
            set_chosen(config[name], value)
        elif value is not None:
            config[name] = value
