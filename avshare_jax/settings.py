"""What the binaries share: the config flag, its error messages, and one-sentence endings for user mistakes."""

import contextlib
import difflib
import functools
import io
import logging as python_logging
import os
import re
import resource
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from avshare_jax.data.errors import shortage
from avshare_jax.data.names import printable_lines

FindMistakes = Callable[[Mapping[str, Any]], list[str]]

CRASHED = 70
"""Exit code after an error in the program: EX_SOFTWARE. 1 would say that the user made a mistake."""


SECONDS_TO_END = 60.0
"""How long a process that is done may take to end; several say farewell to each other, which takes some."""


class UserError(Exception):
    """A mistake that the user can repair; its message is a sentence that says what is wrong and what to do."""


def reason(error: Exception) -> str:
    """What an error says, in one line; that of cloud storage has many, and may be an `OSError` without `strerror`."""
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".")


def run(
    main: Callable[[ConfigDict], None],
    default_config: str,
    find_mistakes: FindMistakes,
    user_errors: tuple[type[Exception], ...] = (),
) -> None:
    """Parses and checks the command line, calls `main(config)` and leaves the process.

    The config is `--config=FILE.py[:VARIANT]` with overrides like `--config.optimizer.b1=0.8`. `UserError` and the
    classes in `user_errors` end the process with their message on stderr and exit code 1, without a traceback; other
    errors with one, and with exit code `CRASHED`, so that a script may start it again.

    Args:
      main: what the binary does.
      default_config: where there is no `--config`.
      find_mistakes: gives a sentence for each mistake in the fields of a config, as `schema.find_mistakes`.
      user_errors: beside `UserError`.
    """
    quiet_libraries()
    allow_open_files()
    expected = (UserError, *user_errors)
    try:
        # Before the flag exists: it reads the overrides as soon as it is defined.
        arguments = flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False)
        check_arguments(arguments, default_config, find_mistakes)
        config = config_flags.DEFINE_config_file("config", default_config, "Config file: FILE.py or FILE.py:VARIANT.")
    except (flags.Error, UserError) as error:
        sys.exit(f"error: {str(error).removeprefix('ERROR:: ')}")

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(f"error: {_flag_sentence(str(error))}")

    def guarded(argv: Sequence[str]) -> None:
        try:
            if argv[1:]:
                raise UserError(f"Unexpected argument {argv[1]!r}: settings are written --name=value.")
            main(config.value)
        except expected as error:
            sys.exit(f"error: {printable_lines(str(error))}")
        except KeyboardInterrupt:
            sys.exit("Interrupted.")
        except Exception as error:
            if sentence := shortage(error):
                sys.exit(f"error: {sentence}")
            traceback.print_exc()
            sys.exit(CRASHED)

    with ending_surely():
        app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def ending_surely(seconds: float = SECONDS_TO_END) -> Iterator[None]:
    """Ends the process `seconds` after what is inside has ended, should threads of libraries keep it from ending."""
    code = 0
    try:
        yield
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        raise
    finally:
        timer = threading.Timer(seconds, os._exit, [code])
        timer.daemon = True
        timer.start()


def _flag_sentence(error: str) -> str:
    """What absl says of a flag, as a sentence: of `--num_processes=a`, that it must be a positive integer."""
    wrong = re.match(r"flag --([^=]+)=(.*?): ", error, re.DOTALL)
    if wrong and wrong[1] in flags.FLAGS:
        return f"--{wrong[1]}={wrong[2]} must be {flags.FLAGS[wrong[1]].parser.syntactic_help or 'true or false'}."
    return error


def check_arguments(arguments: Sequence[str], default_config: str, find_mistakes: FindMistakes) -> None:
    """Checks the config that the arguments choose, and their `--config.FIELD`.

    Args:
      arguments: of the command line.
      default_config: where they choose none.
      find_mistakes: as for `run`.

    Raises:
      UserError: the config file cannot be used; or lists all mistakes in fields: those that do not exist, with the
        nearest, and values that a field cannot have.
    """
    chosen = _config_argument(arguments, default_config)
    config = load_config_file(chosen)
    known, mistakes = sorted(field_names(config)), []
    overrides, unreadable = _overrides(arguments, config), {}
    for name, given in overrides.items():
        if name not in known:
            mistakes.append(f"The config has no field {name!r}{nearest_name(name, known)}.")
        elif _field_type(config, name) is NoneType:
            mistakes.append(
                f"config.{name} is None in this config, and of what type it could be is not known: set it behind the "
                f"colon, as in --config={chosen}{',' if ':' in chosen else ':'}{name}=VALUE."
            )
        elif not _parse_override(config, name, given):
            unreadable[name] = given[-1].partition("=")[2] if "=" in given[-1] else given[-1]
    values = config.to_dict()
    for name, text in unreadable.items():  # As it was typed: the schema says what it should have been.
        *groups, leaf = name.split(".")
        functools.reduce(lambda group, part: group[part], groups, values)[leaf] = None if text == "None" else text
    mistakes += find_mistakes(values)
    if not mistakes:
        mistakes = [
            f"config.{name} cannot be set to None on the command line: copy the config file and set it there."
            for name, text in unreadable.items()
            if text == "None"
        ]
    if mistakes:
        raise UserError(list_mistakes(mistakes))


def _overrides(arguments: Sequence[str], config: ConfigDict) -> dict[str, list[str]]:
    """The arguments that override a field, by its dotted name; with the values that are arguments of their own."""
    found: dict[str, list[str]] = {}
    for position, argument in enumerate(arguments):
        if match := re.match(r"--?(?:no)?config\.([^=]+)", argument):
            given = found.setdefault(match[1], [])
            given.append(argument)
            flag = argument.lstrip("-").startswith("no") or _field_type(config, match[1]) is bool
            if "=" not in argument and not flag:
                given += arguments[position + 1 : position + 2]
    return found


def _field_type(config: ConfigDict, name: str) -> type | None:
    """The type of a field, or None where there is no such field."""
    *groups, leaf = name.split(".")
    for group in groups:
        config = config.get(group)
        if not isinstance(config, ConfigDict):
            return None
    return config.get_type(leaf) if leaf in config else None


def _parse_override(config: ConfigDict, name: str, given: Sequence[str]) -> bool:
    """Sets a field of the config as the arguments say; gives false where they cannot be read as its type."""
    flag_values, argv = flags.FlagValues(), ["", *given]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=argv)
        flag_values(argv)
    except Exception:  # Of flags, or of the library's own parsers.
        return False
    return True


def load_config_file(path_and_variant: str) -> ConfigDict:
    """Returns `get_config(variant)` of `FILE.py[:VARIANT]`.

    Raises:
      UserError: there is no such file or variant, or running the file fails; says at which line.
    """
    path, *variant = path_and_variant.split(":", 1)
    if not Path(path).is_file():
        siblings = [str(sibling) for sibling in Path(path).parent.glob("*.py")]
        raise UserError(f"There is no config file {path!r}{nearest_name(path, siblings)}.")
    try:
        names = runpy.run_path(path)
        if "get_config" not in names:
            raise UserError(f"The config file {path} has no function get_config, which returns the config.")
        config = names["get_config"](*variant)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The config file {path} cannot be used as {path_and_variant!r}: {_where(error, path, variant)}{error}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {path} must return a ConfigDict, and returned {type(config).__name__}.")
    try:
        config.to_dict()
    except Exception as error:  # ml_collections' own kinds.
        raise UserError(
            f"A field in the config file {path} has no value ({reason(error)}): give it one, or use placeholder and "
            "not required_placeholder."
        ) from error
    return config


def _where(error: Exception, path: str, variant: Sequence[str]) -> str:
    """The line of a config file at which an error came up."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    # A syntax error names its line itself, and a wrong variant has none.
    if not lines or isinstance(error, SyntaxError) or (variant and isinstance(error, ValueError)):
        return ""
    return f"line {lines[-1]}: {type(error).__name__}: "


def list_mistakes(mistakes: Sequence[str]) -> str:
    """One sentence as it is; several as lines under a heading."""
    if len(mistakes) == 1:
        return mistakes[0]
    return "\n  ".join((f"The config has {len(mistakes)} mistakes:", *mistakes))


def field_names(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all fields, groups of fields included: `optimizer`, `optimizer.b1`, …"""
    for name, value in config.items():
        yield f"{prefix}{name}"
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


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """Joins the first ten of some names or sentences and counts the rest, for messages that people read."""
    rest = [f"and {len(items) - 10} more"] if len(items) > 10 else []
    return separator.join([*items[:10], *rest])


def quiet_libraries() -> None:
    """Keeps the chatter of absl, Orbax and TensorFlow off the console; call it before TensorFlow is imported.

    What the console's encoding lacks is written as an escape: no name may end a program.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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


def allow_open_files() -> None:
    """Raises the number of files that this process may open to the most that the system allows it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # Some systems call it unlimited, and allow less.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _config_argument(arguments: Sequence[str], default: str) -> str:
    """Returns the value of the last `--config=VALUE` or `--config VALUE` among the arguments, else the default."""
    chosen = default
    for position, argument in enumerate(arguments):
        if match := re.fullmatch(r"--?config=(.*)", argument):
            chosen = match[1]
        elif re.fullmatch(r"--?config", argument) and position + 1 < len(arguments):
            chosen = arguments[position + 1]
    return chosen
