"""Imports the weights of the authors' released AVBERT (PyTorch), and exports a run's under the same names.

    python -m avshare_jax.interop.avbert CHECKPOINT --workdir=DIR                  a released checkpoint to a workdir
    python -m avshare_jax.interop.avbert --export=FILE.safetensors --workdir=DIR   a run's last checkpoint to a file

CHECKPOINT is a file of `torch.save`, or holds the same names as .npz or .safetensors; what stands before all of its
names, such as `module.`, is left out. For Python, `from_torch` and `to_torch` map tensors to variables and back.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.devices import check_devices
from avshare_jax.interop import files, released_names, workdirs
from avshare_jax.interop.released_names import from_torch, to_torch
from avshare_jax.outputs import check_file, check_folder
from avshare_jax.settings import UserError, load_config_file, quiet_libraries

__all__ = ["export_checkpoint", "from_torch", "import_checkpoint", "main", "to_torch"]


def import_checkpoint(checkpoint: Path, workdir: str, recipe: ConfigDict, *, heads: int = 12, layers: int = 6) -> None:
    """Makes a workdir of a released checkpoint and says what became of its tensors; WORKDIR/imported.json names each.

    Args:
      checkpoint: see `files.read_tensors`.
      workdir: to write; may not hold a run.
      recipe: config of a pretraining run, which says how clips are cut, see `workdirs.write_imported`.
      heads: as for `from_torch`.
      layers: as for `from_torch`.

    Raises:
      UserError: the file cannot be read, its tensors do not fit, or the workdir cannot be written.
    """
    tensors = files.read_tensors(checkpoint)
    prefix = released_names.common_prefix(tensors)
    state_dict = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    try:
        model_config, variables = from_torch(state_dict, heads=heads, layers=layers)
    except ValueError as error:
        raise UserError(f"{checkpoint} cannot be imported. {error}") from error
    ignored = released_names.ignored_tensors(state_dict)
    used = sorted(state_dict.keys() - {name for names in ignored.values() for name in names})
    account = {"checkpoint": checkpoint.name, "prefix": prefix, "used": used, "ignored": ignored}
    workdirs.write_imported(workdir, recipe, model_config, variables, account)
    print(describe_import(account, model_config, variables))


def describe_import(account: Mapping[str, Any], model_config: ConfigDict, variables: Mapping[str, Any]) -> str:
    """Says how many tensors were used, which kinds of tensors were not, and the sizes that were read off."""
    ignored = account["ignored"]
    count = len(account["used"]) + sum(map(len, ignored.values()))
    parameters, statistics = (
        sum(leaf.size for leaf in jax.tree.leaves(variables[name])) for name in ("params", "batch_stats")
    )
    widths = f"CNNs {model_config.visual_cnn.width} and {model_config.audio_cnn.width} wide"
    others = [f"{name} {model_config[name]}" for name in ("hidden", "heads", "mlp", "layers", "rank", "positions")]
    return "\n".join(
        [
            f"{account['checkpoint']} holds {count} tensors:",
            *([f"  all names begin with {account['prefix']}, which is left out"] if account["prefix"] else []),
            f"  {len(account['used'])} used: {parameters:,} parameters, {statistics:,} running statistics of BatchNorm",
            *(f"  {len(names)} ignored, {kind}: {abbreviate(names)}" for kind, names in ignored.items()),
            f"Network: {', '.join([widths, *others])}.",
        ]
    )


def abbreviate(names: Sequence[str]) -> str:
    """Names the modules (first part of a name) of some tensors and how many each has."""
    modules = [name.partition(".")[0] for name in names]
    return ", ".join(f"{modules.count(module)} in {module}" for module in dict.fromkeys(modules))


def export_checkpoint(workdir: str, path: Path) -> None:
    """Writes a run's last checkpoint as a .safetensors file with the released names.

    Raises:
      UserError: there is no checkpoint, its network is not of the released kind, or the file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"{path} must be called something.safetensors.")
    check_folder(path.parent)
    check_file(path)
    config, step, variables = workdirs.read_network(workdir)
    try:
        tensors = to_torch(config.model, variables)
    except ValueError as error:
        raise UserError(f"The run in {workdir} cannot be exported. {error}") from error
    files.write_safetensors(path, tensors, {"heads": str(config.model.heads), "layers": str(config.model.layers)})
    print(f"Wrote step {step} of {workdir} to {path}: {len(tensors)} tensors with the released names.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m avshare_jax.interop.avbert",
        description="Imports the released AVBERT's weights into a workdir, or exports a run's under the same names.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "checkpoint", nargs="?", type=expanduser, metavar="CHECKPOINT", help="torch.save file, .npz or .safetensors"
    )
    what.add_argument("--export", type=expanduser, metavar="FILE.safetensors", help="file to write instead")
    parser.add_argument("--workdir", required=True, type=expanduser, metavar="DIR", help="to write; to read for export")
    parser.add_argument("--heads", type=int, default=12, help="attention heads, which no file tells; %(default)s")
    parser.add_argument("--layers", type=int, default=6, help="layers, which no file tells; %(default)s")
    parser.add_argument(
        "--config",
        default="configs/pretrain.py:10s",
        help="recipe that says how clips are cut for the network and from which data; %(default)s",
    )
    options = parser.parse_args(arguments)
    quiet_libraries()
    try:
        check_devices()
        if options.export:
            export_checkpoint(options.workdir, Path(options.export))
        else:
            recipe = load_config_file(options.config)
            schema.check(recipe, (schema.PRETRAINING,))
            import_checkpoint(
                Path(options.checkpoint), options.workdir, recipe, heads=options.heads, layers=options.layers
            )
            print(
                f"Wrote {options.workdir}. Evaluate it on a prepared data set with:\n  python eval.py "
                f"--config=configs/eval.py --workdir={options.workdir} --config.data.name=NAME"
            )
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
