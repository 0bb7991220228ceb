"""Mistakes on the command line end in a sentence."""

import math

import pytest
from ml_collections import ConfigDict

from avshare_jax import settings

CONFIG = """
from ml_collections import ConfigDict

def get_config(variant="small"):
    if variant not in ("small", "large"):
        raise ValueError(f"no variant {variant!r}")
    return ConfigDict({"steps": 1, "fast": True, "optimizer": {"learning_rate": 0.1, "b1": 0.9}})
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(CONFIG)
    return str(path)


def test_correct_overrides_pass(config_file):
    arguments = [f"--config={config_file}:large", "--config.optimizer.b1=0.5", "--noconfig.fast", "-config.steps", "3"]
    settings.check_overrides(arguments, "none.py")
    settings.check_overrides(["--config.steps=2", "--workdir=x"], config_file)


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
        settings.check_overrides([argument, "5"], config_file)


def test_field_like_no_other_is_refused_without_a_guess(config_file):
    with pytest.raises(settings.UserError, match=r"no field 'zzzzzz'\.$"):
        settings.check_overrides(["--config.zzzzzz=1"], config_file)


def test_values_out_of_limits_or_choices_are_named():
    config = ConfigDict({"steps": 3, "optimizer": {"b1": 0.9, "kind": "adam"}})
    limits, choices = {"steps": (1, math.inf), "optimizer.b1": (0, 1)}, {"optimizer.kind": ("adam", "sgd")}
    settings.check_fields(config, limits, choices)
    for field, value, words in (
        ("steps", 0, "config.steps=0 must be at least 1."),
        ("optimizer.b1", 1.5, "config.optimizer.b1=1.5 must be between 0 and 1."),
        ("optimizer.kind", "adm", "config.optimizer.kind=adm must be one of adam, sgd."),
    ):
        wrong = ConfigDict(config.to_dict())
        wrong.update_from_flattened_dict({field: value})
        with pytest.raises(settings.UserError, match=f"^{words}$"):
            settings.check_fields(wrong, limits, choices)


@pytest.mark.parametrize("values", [(), (0,), (1, -2), (1.5,), (True,), ("5",), (math.inf,), (math.nan,)])
def test_tuples_hold_numbers_above_zero(values):
    config = ConfigDict({"group": {"k": (5, 20), "c": (0.1, 1)}})
    settings.check_tuples(config, ["group.c"], whole=["group.k"])
    config.group.k = values
    with pytest.raises(settings.UserError, match=r"config\.group\.k=\(.*\) must be whole numbers above 0"):
        settings.check_tuples(config, ["group.c"], whole=["group.k"])
    config.group.update(k=(5,), c=values)
    if values == (1.5,):
        settings.check_tuples(config, ["group.c"], whole=["group.k"])
    else:
        with pytest.raises(settings.UserError, match=r"config\.group\.c=\(.*\) must be numbers above 0"):
            settings.check_tuples(config, ["group.c"], whole=["group.k"])


def test_missing_config_file_names_the_nearest(config_file):
    with pytest.raises(settings.UserError, match=r"no config file '.*recipes.py'; the nearest is '.*recipe.py'"):
        settings.check_overrides(["--config", config_file.replace("recipe", "recipes")], config_file)


def test_unknown_variant_is_a_sentence(config_file):
    with pytest.raises(settings.UserError, match="no variant 'medium'"):
        settings.check_overrides([f"--config={config_file}:medium"], config_file)
