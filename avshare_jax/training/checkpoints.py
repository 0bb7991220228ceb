"""Checkpoints of a run's state, and the run's identity: which model and which data set a workdir belongs to.

WORKDIR/config.json        the config of the run
WORKDIR/dataset.json       name and fingerprint of its data set
WORKDIR/checkpoints/STEP/  `variables` (params, batch_stats), `trainer` (the rest of the state), and `checksums` of both
WORKDIR/damaged/STEP/      checkpoints that did not come back as they were saved

Orbax restores arrays with flipped bits without a word, so every leaf has a checksum, which is compared whenever a
checkpoint is read.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import LatestN

from avshare_jax import schema
from avshare_jax.data.errors import shortage
from avshare_jax.settings import UserError, differences, listed, reason
from avshare_jax.training.checksums import tree_checksums
from avshare_jax.training.hosts import first_process_first, gather
from avshare_jax.training.ownership import Ownership
from avshare_jax.training.step import TrainState

# What makes a run another one when it changes, beside its data set.
IDENTITY = ("model", "seed", "task", "split", "init_from")
# What depends on the machine or changes nothing that is learned, so that nobody has to be told.
UNANNOUNCED = (
    *("data.data_dir", "data.num_workers", "data.prefetch", "demo.videos_dir"),
    *("mesh", "sharding", "memory.remat", "log_every", "checkpoint_every", "checkpoints_kept", "peer_timeout_seconds"),
)


# What every config.json has, whatever is trained.
CONFIG_FIELDS = {"name": str, "seed": int, "total_steps": (int, type(None)), "model": dict, "data": dict}
# Of a whole checkpoint.
ITEMS = ("variables", "trainer")
PARTS = (*ITEMS, "checksums")
# What devices, storage and the system say of themselves, and not of what a checkpoint holds.
NO_DAMAGE = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")
NOT_ALLOWED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "Permission denied")


class DamagedCheckpointError(Exception):
    """A checkpoint cannot be read or holds other bits than were saved; the message is a sentence."""


class UnusableCheckpointError(UserError):
    """A checkpoint that is to be read is damaged; the message says what to do."""


class Checkpoints:
    """Saves and restores the state of one run. A context manager: leaving it waits until all saves are on disk."""

    def __init__(self, workdir: epath.PathLike, kept: int):
        """Opens `workdir`/checkpoints for writing and keeps the latest `kept` of them.

        Raises:
          UserError: another run has the workdir, or it cannot be written.
        """
        check_workdir(workdir)
        self.ownership = Ownership(workdir)
        try:
            self._open(workdir, kept)
        except BaseException:
            self.ownership.release()
            raise

    def _open(self, workdir: epath.PathLike, kept: int) -> None:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=LatestN(kept),
            # What a killed process left half written.
            cleanup_tmp_directories=True,
        )
        self._directory, self._options = _directory(workdir), options
        self._set_aside_incomplete()
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._last: int | None = None  # The step whose checkpoint may still be in the writing.

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            failure = self.finish_last()
            self._manager.close()
        finally:
            self.ownership.release()
        if failure and kind is None:
            raise UserError(f"{failure} Make room and give the same command again to go on from there.")

    def latest_step(self) -> int | None:
        """The last step whose checkpoint is complete."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Copies the state off the devices, then writes it in the background; a checkpoint appears atomically.

        Where that fails, as on a full disk, the next call says so, and older checkpoints stay; leaving the context
        raises `UserError` where it happens to the last one.
        """
        if failure := self.finish_last():
            print(f"{failure} Training goes on.", flush=True)
        self.ownership.check()
        step = int(state.step)
        if step != self.latest_step():
            items = _items(state)
            arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
            arguments["checksums"] = ocp.args.JsonSave(tree_checksums(items))
            self._last = step
            self._manager.save(step, args=ocp.args.Composite(**arguments), force=True)

    def restore(self, abstract_state: TrainState) -> TrainState:
        """Restores the last complete checkpoint to the shapes, dtypes and shardings of `abstract_state`.

        Raises:
          UserError: its arrays are not those of the state.
          DamagedCheckpointError: it is damaged.
        """
        self._manager.wait_until_finished()
        step, items = self.latest_step(), _items(abstract_state)
        _check_fits(self._manager, step, items["variables"])
        restored = _restore(self._manager, step, {name: ocp.args.StandardRestore(item) for name, item in items.items()})
        return TrainState(**restored["variables"], **restored["trainer"])

    def verify_latest(self) -> None:
        """Reads the last checkpoint and compares its checksums; `DamagedCheckpointError` where it is damaged.

        It needs no shapes, so that neither a data set nor a compiled program has to be there.
        """
        step, failure = self.latest_step(), None
        try:
            with _reader(self._directory.parent) as reader:
                items = {name: _as_numpy(self._directory / str(step) / name) for name in ITEMS}
                restored = _restore(reader, step, items)
            if len(jax.tree.leaves([restored[name] for name in ITEMS])) != len(restored["checksums"]):
                failure = f"The checkpoint of step {step} in {self._directory} lacks arrays."
        except DamagedCheckpointError as error:
            failure = str(error)
        if failures := [problem for problem in gather(failure) if problem]:
            raise DamagedCheckpointError(failures[0])

    def set_aside_latest(self) -> epath.Path:
        """Moves the last checkpoint, which is damaged, out of the way; returns where it is now."""
        step = self.latest_step()
        with first_process_first("set aside"):
            if (self._directory / str(step)).exists():
                self._set_aside(step)
        self._manager.close()
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        return self._aside(step)

    def _set_aside_incomplete(self) -> None:
        """Moves folders away that are called as checkpoints, but are none: Orbax goes by their names."""
        with first_process_first("incomplete"):
            for step in sorted(_named_steps(self._directory) - set(_complete_steps(self._directory))):
                self._set_aside(step)
                print(f"The checkpoint of step {step} is not whole. It is now in {self._aside(step)}.", flush=True)

    def _aside(self, step: int) -> epath.Path:
        return self._directory.parent / "damaged" / str(step)

    def _set_aside(self, step: int) -> None:
        aside = self._aside(step)
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():
            aside.rmtree()
        (self._directory / str(step)).rename(aside)

    def finish_last(self) -> str:
        """Waits for the checkpoint that is being written; returns a sentence where that failed, else nothing."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # Orbax passes on whatever its thread, TensorStore or the system raised.
            self._manager.close()
            self._manager = ocp.CheckpointManager(self._directory, options=self._options)
            whole = self.latest_step()
            left = "there is none before it" if whole is None else f"the last whole one is of step {whole}"
            return f"The checkpoint of step {self._last} could not be written ({_first_line(error)}); {left}."
        return ""


def latest_step(workdir: epath.PathLike) -> int | None:
    """Returns the last step with a complete checkpoint under `workdir`; None where there is none."""
    # What process 0 sees, in all processes.
    return gather(max(saved_steps(workdir), default=None))[0]


def restore_variables(workdir: epath.PathLike, step: int, abstract_variables: Mapping[str, Any]) -> dict[str, Any]:
    """Restores `params` and `batch_stats` of a step without the optimizer's state.

    Args:
      workdir: of the run.
      step: one that `latest_step` has returned.
      abstract_variables: `{"params", "batch_stats"}` of `jax.ShapeDtypeStruct` (with shardings, where they matter).

    Raises:
      UserError: its arrays are not those, damaged or not finite.
    """
    target = {name: abstract_variables.get(name, {}) for name in ("params", "batch_stats")}
    with _reader(workdir) as manager:
        _check_fits(manager, step, target)
        restored = _restore_or_end(manager, step, ocp.args.StandardRestore(target))
    check_finite(restored, f"The checkpoint of step {step} in {workdir}")
    return restored


def restore_network(workdir: epath.PathLike, step: int, abstract_variables: Mapping[str, Any]) -> dict[str, Any]:
    """Restores the variables of the network proper, without pretraining heads and the optimizer's state.

    Args:
      workdir: of the run.
      step: one that `latest_step` has returned.
      abstract_variables: `params` and `batch_stats` of `models.build(config.model)`, `jax.ShapeDtypeStruct` with
        shardings.

    Raises:
      UserError: the checkpoint's arrays are not those of the network, damaged or not finite.
    """
    target = {name: {"network": abstract_variables[name]} for name in ("params", "batch_stats")}
    # Without `partial_restore`, the heads would have to be asked for as well.
    restore = ocp.args.PyTreeRestore(
        item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
    )
    with _reader(workdir) as manager:
        _check_fits(manager, step, target, partly=True)
        restored = _restore_or_end(manager, step, restore)
    check_finite(restored, f"The checkpoint of step {step} in {workdir}")
    return {name: tree["network"] for name, tree in restored.items()}


def check_finite(variables: Mapping[str, Any], where: str) -> None:
    """Raises `UserError` where numbers in a tree of arrays are NaN or infinite; `where` begins its sentence."""
    finite = jax.device_get(_are_finite(variables))
    leaves = jax.tree_util.tree_leaves_with_path(finite)
    if bad := [jax.tree_util.keystr(path, simple=True, separator="/") for path, whole in leaves if not whole]:
        raise UserError(
            f"{where} holds numbers that are not finite, in {len(bad)} of {len(leaves)} arrays: "
            f"{listed(bad)}. Nothing can be computed from them: take other weights."
        )


@jax.jit
def _are_finite(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), tree)


def saved_shapes(workdir: epath.PathLike, step: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's variables by their paths, such as "params/network/visual_cnn/stem/kernel".

    Empty where the checkpoint cannot be read.
    """
    try:
        path = _directory(workdir) / str(step) / "variables"
        return _shapes(ocp.StandardCheckpointer().metadata(path).item_metadata.tree)
    except Exception:  # Damaged, which restoring will say.
        return {}


def saved_steps(workdir: epath.PathLike) -> list[int]:
    """The steps that have a complete checkpoint under `workdir`, ascending.

    Any process may ask, without the others: Orbax's manager would wait for them, and goes by the names of folders.
    """
    return _complete_steps(_directory(workdir))


def load_config(workdir: epath.PathLike) -> ConfigDict:
    """Returns the config that the run in `workdir` was started with.

    Raises:
      UserError: there is no run in `workdir`, or its config.json is damaged.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(
            f"There is no run in {workdir} (it has no config.json): train one with main.py --workdir={workdir}."
        )
    content = read_object(path, CONFIG_FIELDS)
    try:
        return ConfigDict(_tuples(content))
    except (TypeError, ValueError, AttributeError) as error:  # Names that no field can have.
        raise _damaged(path, reason(error)) from error


def load_identity(workdir: epath.PathLike) -> dict[str, str | None]:
    """Returns `name` and `fingerprint` of the data set of the run in `workdir`, both None for imported weights.

    Raises:
      UserError: the run's dataset.json is damaged or missing.
    """
    path = epath.Path(workdir) / "dataset.json"
    identity = read_object(path, {"name": (str, type(None)), "fingerprint": (str, type(None))})
    parts = [value and value.count("+") for value in identity.values()]
    if len(set(parts)) > 1:  # Those of several data sets are joined by it.
        raise _damaged(path, "it has not one fingerprint for each name")
    return identity


def read_object(path: epath.Path, fields: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Reads a JSON object that a run has written.

    Args:
      path: of the file.
      fields: which it must have, and of which types.

    Raises:
      UserError: it cannot be read, or lacks a field, or has one of another type.
    """
    try:
        content = json.loads(path.read_text(), parse_constant=_no_nan)
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, reason(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__} instead of fields by name")
    for name, types in fields.items():
        if name not in content:
            raise _damaged(path, f"it has no {name}")
        if not isinstance(content[name], types) or isinstance(content[name], bool):
            raise _damaged(path, f"its {name} is {content[name]!r}")
    return content


def _no_nan(name: str) -> float:
    if name == "NaN":
        raise ValueError("it holds NaN where a number should be")
    return float(name)


def _damaged(path: epath.Path, why: str) -> UserError:
    return UserError(f"{path} is damaged or was edited ({why}): restore it from a copy, or choose another run.")


def check_workdir(workdir: epath.PathLike) -> None:
    """Makes `workdir` where it is missing; raises `UserError` where it cannot be written."""
    try:
        path = epath.Path(workdir)
        path.mkdir(parents=True, exist_ok=True)
        if "://" not in str(workdir):
            with tempfile.TemporaryFile(dir=path):
                pass
    except OSError as error:
        raise UserError(
            f"The workdir {workdir} cannot be written ({error.strerror or error}): choose another --workdir."
        ) from error


def check_run(workdir: epath.PathLike, config: ConfigDict, dataset: Mapping[str, Any]) -> list[str]:
    """Checks that `workdir` can be written and holds this run or none.

    Args:
      workdir: of the run.
      config: of the run; `config.model` and `config.seed` must be what they were, other fields may change.
      dataset: `name` and `fingerprint` of the data set, JSON values.

    Returns:
      What has changed since the run was recorded and may change what it learns, as "FIELD was OLD and is now NEW".

    Raises:
      UserError: names what makes this another run, or says that `workdir` cannot be written.
    """
    check_workdir(workdir)
    path = epath.Path(workdir)
    if not (path / "config.json").exists():
        return []
    recorded = differences(read_object(path / "config.json", CONFIG_FIELDS), _plain(config))
    changed = [each for each in recorded if each[1] is not None or not schema.is_default(config, each[0], each[2])]
    another = [difference for difference in changed if difference[0].startswith(IDENTITY)]
    another += differences(load_identity(path), dict(dataset), "dataset.")
    if another:
        phrases = ", ".join(f"{name} is {old} and not {new}" for name, old, new in another)
        raise UserError(
            f"The workdir {workdir} belongs to another run, where {phrases}: "
            "choose another --workdir, or repeat that run's settings."
        )
    return [f"{name} was {old} and is now {new}" for name, old, new in changed if not name.startswith(UNANNOUNCED)]


def claim_workdir(workdir: epath.PathLike, config: ConfigDict, dataset: Mapping[str, Any]) -> None:
    """Records what the run in `workdir` trains and on what; prints what has changed since this was last recorded.

    Takes and raises the same as `check_run`.
    """
    if changes := check_run(workdir, config, dataset):
        print(f"Going on with other settings than before: {', '.join(changes)}.", flush=True)
    if jax.process_index() > 0:
        return
    path = epath.Path(workdir)
    # The config last: its presence says that both are there.
    for name, content in (("dataset", dict(dataset)), ("config", _plain(config))):
        replace_text(path / f"{name}.json", json.dumps(content, indent=2) + "\n")


def replace_text(path: epath.Path, text: str) -> None:
    """Replaces a file in one step, so that a killed process leaves the old or the new one."""
    new = path.with_suffix(f".{os.getpid()}.tmp")
    new.write_text(text)
    new.replace(path)


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
    """Splits a state into its two checkpoint items, so that evaluation reads only the first."""
    return {
        "variables": {"params": state.params, "batch_stats": state.batch_stats},
        "trainer": {name: getattr(state, name) for name in ("step", "opt_state", "skipped", "skipped_in_a_row")},
    }


def _check_fits(manager: ocp.CheckpointManager, step: int, variables: Mapping[str, Any], partly: bool = False) -> None:
    """Raises `UserError` where a checkpoint has other variables, by name and shape, than are asked for."""
    saved, wanted = saved_shapes(epath.Path(manager.directory).parent, step), _shapes(variables)
    if not saved:
        return
    names = wanted.keys() if partly else wanted.keys() | saved.keys()
    if different := [name for name in sorted(names) if saved.get(name) != wanted.get(name)]:
        name = different[0]
        raise UserError(
            f"The checkpoint of step {step} in {manager.directory} does not fit the network, which another version of "
            f"this program may have made: choose another --workdir. ({name} has the shape {saved.get(name)} there, and "
            f"{wanted.get(name)} here.)"
        )


def _shapes(tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def _restore(manager: ocp.CheckpointManager, step: int, items: Mapping[str, Any]) -> Mapping[str, Any]:
    """Restores a checkpoint's items and compares checksums; `DamagedCheckpointError` where it is not what was saved."""
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**items, checksums=ocp.args.JsonRestore()))
        saved = restored["checksums"]
    except Exception as error:  # Damage comes as almost anything, down to JSONDecodeError.
        _raise_again_if_no_damage(error)
        raise DamagedCheckpointError(
            f"The checkpoint of step {step} in {manager.directory} cannot be read ({_first_line(error)})."
        ) from error
    if saved.get("trainer/step") != tree_checksums(jnp.int32(step))[""]:
        raise DamagedCheckpointError(
            f"The checkpoint of step {step} in {manager.directory} holds the state of another step."
        )
    found = tree_checksums({name: restored[name] for name in items})
    if changed := [name for name, checksum in found.items() if saved.get(name) != checksum]:
        raise DamagedCheckpointError(
            f"The checkpoint of step {step} in {manager.directory} is damaged: {changed[0]} is not what was saved"
            f"{f', and {len(changed) - 1} other arrays' if len(changed) > 1 else ''}."
        )
    return restored


def _raise_again_if_no_damage(error: Exception) -> None:
    """Raises an error again that lies in the machine: a whole checkpoint is neither moved away nor called damaged."""
    if any(text in str(error) for text in NOT_ALLOWED):
        raise UserError(f"A checkpoint may not be read ({_first_line(error)}): repair its permissions.") from error
    if shortage(error) or any(text in str(error) for text in NO_DAMAGE):
        raise error


def _restore_or_end(manager: ocp.CheckpointManager, step: int, argument: Any) -> Any:
    """Restores a checkpoint's variables; `UserError`, in all processes, where one of them finds it damaged or gone."""
    variables, failure = None, None
    try:
        variables = _restore(manager, step, {"variables": argument})["variables"]
    except DamagedCheckpointError as error:
        failure = error
    if failures := [problem for problem in gather(failure and str(failure)) if problem]:
        imported = (epath.Path(manager.directory).parent / "imported.json").exists()
        again = "Run main.py on the workdir again, which goes on from the checkpoint before, or remove that step."
        raise UnusableCheckpointError(
            f"{failures[0]} {'Import it again, into another workdir.' if imported else again}"
        ) from failure
    return variables


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _named_steps(directory: epath.Path) -> set[int]:
    """Steps by the names of finished folders: those in the writing are called otherwise, or marked."""
    if not directory.exists():
        return set()
    named = [path for path in directory.iterdir() if path.name.isdecimal() and str(int(path.name)) == path.name]
    return {int(path.name) for path in named if ocp.utils.is_checkpoint_finalized(path)}


def _complete_steps(directory: epath.Path) -> list[int]:
    """Steps of the folders that have all parts of a checkpoint, ascending."""
    return sorted(
        step for step in _named_steps(directory) if all((directory / str(step) / part).exists() for part in PARTS)
    )


def _as_numpy(item: epath.Path) -> ocp.args.PyTreeRestore:
    """Has Orbax restore an item to the memory of this process, whichever devices it was saved from."""
    try:
        tree = ocp.PyTreeCheckpointer().metadata(item).item_metadata.tree
    except Exception as error:  # None without a tree, or whatever the file's reader raised.
        _raise_again_if_no_damage(error)
        raise DamagedCheckpointError(
            f"The checkpoint of step {item.parent.name} in {item.parent.parent} is damaged: nothing says which arrays "
            f"{item.name} has."
        ) from error
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return ocp.args.PyTreeRestore(restore_args=as_numpy)


def _directory(workdir: epath.PathLike) -> epath.Path:
    """Orbax wants absolute paths."""
    return epath.Path(workdir).resolve() / "checkpoints"


def _reader(workdir: epath.PathLike) -> ocp.CheckpointManager:
    """A manager that changes nothing, safe beside a training process."""
    # Made here: making it logs a warning, which commands that are not quiet yet would print when this is imported.
    options = ocp.CheckpointManagerOptions(read_only=True, create=False)
    return ocp.CheckpointManager(_directory(workdir), options=options)


def _plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON would give it back (tuples become lists)."""
    return json.loads(config.to_json())


def _tuples(value: Any) -> Any:
    """Undoes what JSON does to the tuples of a config file."""
    if isinstance(value, Mapping):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
