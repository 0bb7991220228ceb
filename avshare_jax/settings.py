"""What the binaries share: the config flag, its error messages, and one-sentence endings for user mistakes."""

import difflib
import functools
import logging as python_logging
import math
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

CRASHED = 70
"""Exit code after an error in the program: EX_SOFTWARE. 1 would say that the user made a mistake."""


class UserError(Exception):
    """A mistake that the user can repair; its message is a sentence that says what is wrong and what to do."""


def reason(error: Exception) -> str:
    """What an error says, in one line; that of cloud storage has many, and may be an `OSError` without `strerror`."""
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".")


def run(main: Callable[[ConfigDict], None], default_config: str, user_errors: tuple[type[Exception], ...] = ()) -> None:
    """Parses the command line, calls `main(config)` and leaves the process.

    The config is `--config=FILE.py[:VARIANT]` with overrides like `--config.optimizer.b1=0.8`. `UserError` and the
    classes in `user_errors` end the process with their message on stderr and exit code 1, without a traceback; other
    errors with one, and with exit code `CRASHED`, so that a script may start it again.
    """
    quiet_libraries()
    expected = (UserError, *user_errors)
    try:
        # Before the flag exists: it reads the overrides as soon as it is defined.
        check_overrides(sys.argv[1:], default_config)
        config = config_flags.DEFINE_config_file("config", default_config, "Config file: FILE.py or FILE.py:VARIANT.")
    except (flags.Error, UserError) as error:
        sys.exit(f"error: {error}")

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(f"error: {error}")

    def guarded(argv: Sequence[str]) -> None:
        try:
            if argv[1:]:
                raise UserError(f"Unexpected argument {argv[1]!r}: settings are written --name=value.")
            main(config.value)
        except expected as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("Interrupted.")
        except Exception:
            traceback.print_exc()
            sys.exit(CRASHED)

    app.run(guarded, flags_parser=parse)


def check_overrides(arguments: Sequence[str], default_config: str) -> None:
    """Checks that each `--config.FIELD` argument names a field of the config file that the arguments choose.

    Raises:
      UserError: the config file does not exist or rejects its variant, or a field does not exist; names the nearest.
    """
    known = sorted(field_names(load_config_file(_config_argument(arguments, default_config))))
    for argument in arguments:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match and match[1] not in known:
            raise UserError(f"The config has no field {match[1]!r}{nearest_name(match[1], known)}.")


def load_config_file(path_and_variant: str) -> ConfigDict:
    """Returns `get_config(variant)` of `FILE.py[:VARIANT]`; `UserError` where there is no such file or variant."""
    path, *variant = path_and_variant.split(":", 1)
    if not Path(path).is_file():
        siblings = [str(sibling) for sibling in Path(path).parent.glob("*.py")]
        raise UserError(f"There is no config file {path!r}{nearest_name(path, siblings)}.")
    try:
        return runpy.run_path(path)["get_config"](*variant)
    except (TypeError, ValueError) as error:
        raise UserError(f"The config file {path} cannot be used as {path_and_variant!r}: {error}") from error


def check_fields(
    config: ConfigDict, limits: Mapping[str, tuple[float, float]], choices: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Checks values that are right or wrong by themselves.

    Args:
      config: any.
      limits: lowest and highest value by the dotted name of the field.
      choices: all values by the dotted name of the field.

    Raises:
      UserError: names the first field that is out of its limits, or none of its choices.
    """
    for name, (low, high) in limits.items():
        value = functools.reduce(getattr, name.split("."), config)
        if not low <= value <= high:
            asked = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"config.{name}={value} must be {asked}.")
    for name, known in (choices or {}).items():
        value = functools.reduce(getattr, name.split("."), config)
        if value not in known:
            raise UserError(f"config.{name}={value} must be one of {', '.join(known)}.")


def check_tuples(config: ConfigDict, names: Sequence[str], whole: Sequence[str] = ()) -> None:
    """Checks tuples of numbers above 0 to choose from.

    Args:
      config: any.
      names: dotted names of fields.
      whole: the same, of fields whose numbers have to be whole.

    Raises:
      UserError: names the first field that is empty or holds anything else.
    """
    for name in (*names, *whole):
        values, kinds = functools.reduce(getattr, name.split("."), config), (int,) if name in whole else (int, float)
        if not values or not all(type(value) in kinds and 0 < value < math.inf for value in values):
            kind = "whole numbers" if name in whole else "numbers"
            raise UserError(f"config.{name}={values} must be {kind} above 0, at least one.")


def field_names(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all fields, groups of fields included: `optimizer`, `optimizer.b1`, …"""
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from field_names(value, f"{prefix}{name}.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted name, old, new) for each value that differs between two JSON objects; None where there is none."""
    for key in sorted({*old, *new}):
        name, values = prefix + key, (old.get(key), new.get(key))
        if all(isinstance(value, Mapping) for value in values):
            yield from differences(*values, f"{name}.")
        elif values[0] != values[1]:
            yield name, *values


def nearest_name(name: str, known: Sequence[str]) -> str:
    """Returns the part of an error message that names the nearest of the known names; empty where none is near."""
    by_leaf = {candidate.rpartition(".")[2]: candidate for candidate in known}
    near = difflib.get_close_matches(name, known, n=1)
    near = near or [by_leaf[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], by_leaf, n=1)]
    return f"; the nearest is {near[0]!r}" if near else ""


def quiet_libraries() -> None:
    """Keeps the chatter of absl, Orbax and TensorFlow off the console; call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Training does without TensorFlow; what brings it in elsewhere need not announce oneDNN.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Grain's workers leave their last batches' shared memory to Python's tracker, which frees it with a warning.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    logging.set_verbosity(logging.ERROR)
    for name in ("", "absl", "orbax", "jax", "tensorflow"):  # "" is what Beam's imports complain through.
        python_logging.getLogger(name).setLevel(python_logging.ERROR)
    # Beam logs the traceback of every error that it also raises.
    python_logging.getLogger("apache_beam").setLevel(python_logging.CRITICAL)


def _config_argument(arguments: Sequence[str], default: str) -> str:
    """Returns the value of the last `--config=VALUE` or `--config VALUE` among the arguments, else the default."""
    chosen = default
    for position, argument in enumerate(arguments):
        if match := re.fullmatch(r"--?config=(.*)", argument):
            chosen = match[1]
        elif re.fullmatch(r"--?config", argument) and position + 1 < len(arguments):
            chosen = arguments[position + 1]
    return chosen
