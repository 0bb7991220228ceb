"""Runs a network that `avshare_jax.interop.inference` has exported. This file needs JAX and NumPy and nothing else."""

from collections.abc import Callable
from os import PathLike

import jax
import jax.export
import numpy as np

VARIABLES, PROGRAM = "variables/", "stablehlo"


def load(path: str | PathLike[str]) -> Callable[[np.ndarray, np.ndarray], dict[str, jax.Array]]:
    """Loads an exported network.

    Args:
      path: .npz file with the serialized program and the variables it takes.

    Returns:
      A function of `frames` (B, S, T, H, W, 3) uint8 and `log_mel` (B, S, time, mels) float32 that returns the named
      outputs of the network. B may be any number, and each new one compiles once; the other sizes are fixed in the
      file, and a ValueError names the one that is wrong.
    """
    with np.load(path, allow_pickle=False) as file:
        program = jax.export.deserialize(bytearray(file[PROGRAM].tobytes()))
        variables = {name.removeprefix(VARIABLES): file[name] for name in file.files if name.startswith(VARIABLES)}
    variables, call = jax.device_put(variables), jax.jit(program.call)
    return lambda frames, log_mel: call(variables, frames, log_mel)
