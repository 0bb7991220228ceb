"""Exports a run's network as a program (StableHLO) with its variables.

    python -m avshare_jax.interop.inference --workdir=DIR --output=FILE.npz

`exported.load` runs it, and needs nothing else of this project.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.devices import check_devices
from avshare_jax.interop import workdirs
from avshare_jax.interop.exported import PROGRAM, VARIABLES
from avshare_jax.models.placement import written_for
from avshare_jax.outputs import check_file, check_folder
from avshare_jax.settings import UserError, quiet_libraries

PLATFORMS = ("cpu", "cuda", "tpu")
SIZES = {
    "num_clips": "clips of a video",
    "frames_per_clip": "frames of a clip",
    "crop": "height and width of a frame, in pixels",
    "mel_frames": "rows of a clip's spectrogram",
    "mels": "bands of a spectrogram",
}


def clip_sizes(data_config: ConfigDict) -> dict[str, int]:
    """Returns the sizes (keys of `SIZES`) of the clips that a run's `config.data` cuts."""
    return {name: (data_config.frontend if name == "mels" else data_config)[name] for name in SIZES}


def write_exported(
    path: Path, model_config: ConfigDict, variables: Mapping[str, Any], sizes: Mapping[str, int]
) -> None:
    """Writes a network's inference function and its variables to an .npz file for `exported.load`.

    Args:
      path: file to write.
      model_config: as for `models.build`.
      variables: `params` and `batch_stats`, without pretraining heads.
      sizes: see `SIZES`. Only the number of videos stays open.

    Raises:
      UserError: the file cannot be written.
    """
    network = models.build(model_config)

    def infer(variables: Mapping[str, Any], frames: jax.Array, log_mel: jax.Array) -> dict[str, jax.Array]:
        batch = {"frames": frames, "log_mel": log_mel}
        return network.apply(traverse_util.unflatten_dict(variables, sep="/"), batch, train=False)

    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    (videos,) = jax.export.symbolic_shape("b")
    clips = (videos, sizes["num_clips"])
    frames = (*clips, sizes["frames_per_clip"], sizes["crop"], sizes["crop"], 3)
    log_mel = (*clips, sizes["mel_frames"], sizes["mels"])
    with written_for("gpu"):  # For all platforms alike, wherever the file is written.
        program = jax.export.export(jax.jit(infer), platforms=PLATFORMS)(
            {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()},
            jax.ShapeDtypeStruct(frames, np.uint8),
            jax.ShapeDtypeStruct(log_mel, np.float32),
        )
    arrays = {VARIABLES + name: np.asarray(leaf) for name, leaf in flat.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays, **{PROGRAM: np.frombuffer(program.serialize(), np.uint8)})
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def export_inference(workdir: str, path: Path, sizes: Mapping[str, int | None]) -> None:
    """Exports the network of a run's last checkpoint.

    Args:
      workdir: of the run, trained or imported.
      path: .npz file to write.
      sizes: see `SIZES`; None: those of the run.

    Raises:
      UserError: there is no checkpoint, the sizes do not fit the network, or the file cannot be written.
    """
    if path.suffix != ".npz":
        raise UserError(f"{path} must be called something.npz.")
    check_folder(path.parent)
    check_file(path)
    config, step, variables = workdirs.read_network(workdir)
    sizes = clip_sizes(config.data) | {name: size for name, size in sizes.items() if size is not None}
    if sizes["num_clips"] >= config.model.positions:
        raise UserError(
            f"--num_clips={sizes['num_clips']} is too many: the network has {config.model.positions} positions, one of "
            "them for BOS."
        )
    write_exported(path, config.model, variables, sizes)
    shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
    print(f"Wrote step {step} of {workdir} to {path} for {', '.join(PLATFORMS)}: any number of videos, {shown}.")
    print("Load it with avshare_jax.interop.exported.load, which needs JAX and NumPy only.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake of the user ends it with a sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m avshare_jax.interop.inference",
        description="Exports a run's network as a program that needs JAX and NumPy only.",
    )
    parser.add_argument("--workdir", required=True, type=expanduser, metavar="DIR", help="of the run")
    parser.add_argument("--output", required=True, type=expanduser, metavar="FILE.npz", help="file to write")
    for name, text in SIZES.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text}; as in the run, unless given")
    options = parser.parse_args(arguments)
    quiet_libraries()
    try:
        check_devices()
        export_inference(options.workdir, Path(options.output), {name: getattr(options, name) for name in SIZES})
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
