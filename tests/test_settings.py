"""Mistakes on the command line end in a sentence."""

import contextlib
import resource
import subprocess
import sys

import pytest
from absl import flags

from avshare_jax import settings
from avshare_jax.data.errors import DatasetError

CONFIG = """
from ml_collections import ConfigDict

def get_config(variant="small"):
    if variant not in ("small", "large"):
        raise ValueError(f"no variant {variant!r}")
    return ConfigDict({"steps": 1, "fast": True, "sizes": (1,), "optimizer": {"learning_rate": 0.1, "b1": 0.9}})
"""


def check(arguments, default_config, find_mistakes=lambda values: []):
    settings.check_arguments(arguments, default_config, find_mistakes)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(CONFIG)
    return str(path)


def test_correct_overrides_pass(config_file):
    arguments = [f"--config={config_file}:large", "--config.optimizer.b1=0.5", "--noconfig.fast", "-config.steps", "3"]
    check(arguments, "none.py")
    check(["--config.steps=2", "--workdir=x"], config_file)


def test_the_schema_sees_the_values_of_the_command_line(config_file):
    """What cannot be read as the field's type stays text, for the schema to say what it should have been."""
    seen = []
    arguments = ["--config.steps", "2", "--noconfig.fast", "--config.optimizer.b1=many", "-config.sizes=(3,4)"]
    check([*arguments, "--config.optimizer.learning_rate=1"], config_file, lambda values: seen.append(values) or [])
    optimizer = {"learning_rate": 1.0, "b1": "many"}
    assert seen == [{"steps": 2, "fast": False, "sizes": (3, 4), "optimizer": optimizer}]
    check(["--config.sizes=5", "--config.sizes=6"], config_file, lambda values: seen.append(values) or [])
    check(["--config.sizes=(5,", "--config.optimizer=7"], config_file, lambda values: seen.append(values) or [])
    check(["--config.steps=x", "--config.fast", "--workdir", "y"], config_file, lambda v: seen.append(v) or [])
    assert [values["sizes"] for values in seen[1:]] == [(5, 6), "(5,", (1,)]
    assert (seen[2]["optimizer"], seen[3]["steps"], seen[3]["fast"]) == ("7", "x", True)


def test_a_field_without_a_type_is_set_behind_the_colon(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(CONFIG.replace('"steps": 1', '"steps": None'))
    with pytest.raises(settings.UserError, match=r"config.steps is None .*--config=.*recipe.py:large,steps=VALUE.$"):
        check([f"--config={path}:large", "--config.steps=3"], "none.py")


def test_none_that_a_field_may_be_but_no_flag_can_say_is_a_sentence(config_file):
    with pytest.raises(settings.UserError, match=r"^config.steps cannot be set to None on the command line: copy"):
        check(["--config.steps=None"], config_file)
    with pytest.raises(settings.UserError, match=r"^config.steps=None must be a whole number.$"):
        check(
            ["--config.steps=None"],
            config_file,
            lambda values: [f"config.steps={values['steps']} must be a whole number."],
        )


def test_mistakes_in_names_and_values_are_listed_together(config_file):
    arguments = ["--config.step=1", "--config.optimizer.b3=1", "--config.steps=0"]
    with pytest.raises(settings.UserError) as error:
        check(arguments, config_file, lambda values: [f"config.steps={values['steps']} must be at least 1."])
    assert str(error.value).splitlines() == [
        "The config has 3 mistakes:",
        "  The config has no field 'step'; the nearest is 'steps'.",
        "  The config has no field 'optimizer.b3'; the nearest is 'optimizer.b1'.",
        "  config.steps=0 must be at least 1.",
    ]


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("--config.step=2", "steps"),
        ("--config.optimizer.learning_rat=2", "optimizer.learning_rate"),
        ("--config.optimiser.b1=2", "optimizer.b1"),
        ("--config.learning_rate=2", "optimizer.learning_rate"),
        ("--config.optimizer.lerning_rate", "optimizer.learning_rate"),
    ],
)
def test_mistyped_field_names_the_nearest(config_file, argument, nearest):
    with pytest.raises(settings.UserError, match=rf"no field '[\w.]+'; the nearest is '{nearest}'"):
        check([argument, "5"], config_file)


def test_field_like_no_other_is_refused_without_a_guess(config_file):
    with pytest.raises(settings.UserError, match=r"no field 'zzzzzz'\.$"):
        check(["--config.zzzzzz=1"], config_file)


def test_missing_config_file_names_the_nearest(config_file):
    with pytest.raises(settings.UserError, match=r"no config file '.*recipes.py'; the nearest is '.*recipe.py'"):
        check(["--config", config_file.replace("recipe", "recipes")], config_file)


def test_unknown_variant_is_a_sentence(config_file):
    with pytest.raises(settings.UserError, match="no variant 'medium'"):
        check([f"--config={config_file}:medium"], config_file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(:\n", r"line 1\)$"),
        ("import nowhere_to_be_found\n", "line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'$"),
        ("\nrate = 1 / 0\n", "line 2: ZeroDivisionError: division by zero$"),
        ("\nrate = float('x')\n", "line 2: ValueError: could not convert string to float: 'x'$"),
        ("def get_config():\n    return undefined\n", "line 2: NameError: name 'undefined' is not defined$"),
        ("def config():\n    return None\n", "has no function get_config, which returns the config.$"),
        ("def get_config():\n    return {}\n", "must return a ConfigDict, and returned dict.$"),
        (
            "from ml_collections import ConfigDict, config_dict\n\n"
            "def get_config():\n    return ConfigDict({'seed': config_dict.required_placeholder(int)})\n",
            "has no value .*: give it one, or use placeholder",
        ),
        ("def get_config():\n    pass\n", "must return a ConfigDict, and returned NoneType.$"),
        ("\0", "source code .*null bytes"),
    ],
)
def test_a_config_file_that_fails_says_where(tmp_path, text, sentence):
    path = tmp_path / "recipe.py"
    path.write_text(text)
    with pytest.raises(settings.UserError, match=sentence) as error:
        settings.load_config_file(str(path))
    assert str(path) in str(error.value)


def test_a_variant_where_there_are_none_is_a_sentence(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text("def get_config():\n    pass\n")
    with pytest.raises(
        settings.UserError, match=r"cannot be used as '.*recipe.py:demo': get_config\(\) takes 0 positional"
    ):
        settings.load_config_file(f"{path}:demo")


@pytest.fixture
def run(monkeypatch, config_file):
    """Runs a binary of these arguments; returns what `main` got, and how the process ended."""
    known, parsed = set(flags.FLAGS), flags.FLAGS.is_parsed()
    monkeypatch.setattr(settings, "quiet_libraries", lambda: None)
    monkeypatch.setattr(settings, "ending_surely", contextlib.nullcontext)  # It would end the tests.
    flags.DEFINE_integer("test_settings_count", None, "of something", lower_bound=1)
    flags.DEFINE_bool("test_settings_fast", None, "or slow")
    own = set(flags.FLAGS)

    def run(*arguments, error=None, mistakes=()):
        calls = []

        def main(config):
            calls.append(config)
            if error:
                raise error

        monkeypatch.setattr(sys, "argv", ["binary", *arguments])
        with pytest.raises(SystemExit) as ending:
            settings.run(main, config_file, lambda values: list(mistakes), user_errors=(DatasetError,))
        for flag in set(flags.FLAGS) - own:
            delattr(flags.FLAGS, flag)
        return calls, ending.value.code

    yield run
    for flag in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()
    if parsed:
        flags.FLAGS.mark_as_parsed()


def test_a_binary_gets_the_config_of_its_command_line(run):
    calls, code = run("--config.steps=3", "--config.sizes=(1,2)", "--test_settings_count=4")
    assert code in (None, 0)
    assert (calls[0].steps, calls[0].sizes) == (3, (1, 2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.step=3"], "error: The config has no field 'step'; the nearest is 'steps'."),
        (["--test_settings_count=a"], "error: --test_settings_count=a must be a positive integer."),
        (["--test_settings_count=0"], "error: --test_settings_count=0 must be a positive integer."),
        (["--test_settings_fast=maybe"], "error: --test_settings_fast=maybe must be true or false."),
        (["--test_settings_cuont=1"], "error: Unknown command line flag 'test_settings_cuont'"),
        (["--config"], "error: Missing value for flag --config"),
        (["--config="], "error: There is no config file ''."),
        (["steps=3"], "error: Unexpected argument 'steps=3': settings are written --name=value."),
        (["--flagfile=/nowhere/flags"], "error: Unable to open flagfile"),
    ],
)
def test_a_mistake_on_the_command_line_ends_before_anything_is_done(run, arguments, sentence):
    calls, code = run(*arguments)
    # Python prints a text and gives the exit code 1.
    assert calls == [] and code.startswith(sentence)


def test_mistakes_of_the_schema_end_before_anything_is_done(run):
    assert run(mistakes=["config.steps=1 must be even."]) == ([], "error: config.steps=1 must be even.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (settings.UserError("a sentence"), "error: a sentence"),
        (DatasetError("another"), "error: another"),
        (KeyError("bug"), settings.CRASHED),
        (KeyboardInterrupt(), "Interrupted."),
    ],
)
def test_how_a_process_ends_says_who_is_to_blame(run, error, code, capfd):
    calls, ended = run(error=error)
    assert len(calls) == 1 and ended == code
    assert ("Traceback" in capfd.readouterr().err) == (code == settings.CRASHED)


def test_as_many_files_may_be_opened_as_the_system_allows():
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before, 256), most))
    try:
        settings.allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.mark.parametrize(
    ("error", "sentence"), [(MemoryError(), "Memory"), (OSError(24, "Too many"), "Too many files")]
)
def test_shortages_end_with_a_sentence_that_no_launcher_retries(run, error, sentence):
    _, code = run(error=error)
    assert code.startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [("pass", 0, ""), ("raise UserError('Wrong.')", 1, "error: Wrong.\n"), ("sys.exit(75)", 75, "")],
)
def test_a_thread_that_hangs_does_not_keep_the_process_from_ending(config_file, ending, code, said):
    """As those of Orbax do that wait for another process; Python itself would wait for them."""
    program = f"""
import functools, sys, threading
from avshare_jax import settings
from avshare_jax.settings import UserError
settings.ending_surely = functools.partial(settings.ending_surely, 0.1)

def main(config):
    threading.Thread(target=threading.Event().wait).start()
    {ending}

settings.run(main, {config_file!r}, lambda values: [])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (code, said)
