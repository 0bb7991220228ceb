"""The door of configs: every config passes, and every field with a wrong value is refused by its name."""

import inspect
import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from avshare_jax import schema
from avshare_jax.settings import UserError, load_config_file

ROOT = Path(__file__).parent.parent.parent
FILES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
# Every field that any config has is in one of these.
SWEPT = [*FILES, "pretrain.py:demo"]
# Fields of text that are names among others; the rest is free.
CHOICES = {
    *("model.fusion", "model.layer_sharing", "model.transformer_sharing", "model.orthogonal_map", "model.dtype"),
    *("memory.remat", "objectives.negative_sampling", "optimizer.decay", "task.loss.name", "test.pool"),
}
SHARES = {
    *("augment.flip", "augment.frequency_mask", "augment.time_mask", "augment.modality_dropout"),
    *("objectives.mask_fraction", "optimizer.warmup_fraction", "data.max_unreadable_share", "task.dropout"),
    *("optimizer.b1", "optimizer.b2", "model.dropout"),
}
# Infinity: the gradient is not clipped.
MAY_BE_INFINITE = {"optimizer.grad_clip"}


def variants(name):
    """The variants that a config file says it has; "" is the file by itself."""
    get_config = runpy.run_path(str(ROOT / "configs" / name))["get_config"]
    if not inspect.signature(get_config).parameters:
        return [""]
    with pytest.raises(ValueError, match="no variant 'nonsense'") as error:
        get_config("nonsense")
    _, _, changes = str(error.value).partition("There are: ")
    changes = changes.split(", ") if changes else []
    composed = [f"demo,{change}" for change in changes if change not in ("demo", "10s", "16khz")]
    return ["", *changes, *composed]


def load(name):
    return load_config_file(str(ROOT / "configs" / name))


def load_values(name):
    return load(name).to_dict()


def leaves(values, prefix=""):
    """Yields the dotted names and values of all fields that are no groups."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def groups(values, prefix=""):
    """Yields the dotted names of all groups."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield prefix + name
            yield from groups(value, f"{prefix}{name}.")


def changed(values, name, value):
    """Nested dictionaries with another value for one field."""
    first, _, rest = name.partition(".")
    return values | {first: changed(values[first], rest, value) if rest else value}


def without(values, name):
    """Nested dictionaries without a field."""
    first, _, rest = name.partition(".")
    if rest:
        return values | {first: without(values[first], rest)}
    return {name: value for name, value in values.items() if name != first}


def wrong_types(value):
    """Values of other types than that of a field."""
    if isinstance(value, bool):
        return [1, "True", None]
    if isinstance(value, int):
        return [str(value), value + 0.5, float("nan"), True, (value,), {}]
    if isinstance(value, float):
        return [str(value), True, (value,), 1j]
    if isinstance(value, str):
        return [7, (value,), True, None, value.encode()]
    if isinstance(value, tuple):
        return [7, "abc", None, {}, (object(),)]
    assert value is None
    return [{"a": 1}, object()]


def out_of_range(name, value):
    """Values of the right type that a field cannot have; none where any will do."""
    if name in CHOICES:
        return ["nonsense", "", "Mean"]
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [-2, -(2**70), 2**70]
    if isinstance(value, float):
        infinite = [] if name in MAY_BE_INFINITE else [math.inf]
        return [-2.0, math.nan, -math.inf, *infinite, *([1.5] if name in SHARES else [])]
    if isinstance(value, str):
        return ["", "a\0b", "a\nb", "\udcff"]
    if isinstance(value, tuple) and name not in ("task.class_names",):
        return [(-2,), (math.nan,), ("nonsense",), ("\0", ("nonsense",)), ((),)]
    return []


@pytest.mark.parametrize("name", [f"{file}:{variant}" for file in FILES for variant in variants(file)])
def test_every_config_and_variant_passes(name):
    config = load(name.removesuffix(":"))
    before = config.to_json()
    schema.check(config)
    assert config.to_json() == before
    schema.check(json.loads(before), recorded=True)


@pytest.mark.parametrize("name", SWEPT)
def test_every_field_with_a_wrong_value_is_refused_by_its_name(name):
    values, swept = load_values(name), 0
    for field, value in leaves(values):
        for wrong in wrong_types(value) + out_of_range(field, value):
            mistakes = schema.find_mistakes(changed(values, field, wrong))
            # A rule that the value breaks as well may be told beside it.
            assert mistakes and mistakes[0].startswith(f"config.{field}="), (field, wrong, mistakes)
            assert mistakes[0].endswith(".") and "\n" not in mistakes[0] and "must be" in mistakes[0]
            swept += 1
    assert swept > 100
    for group in groups(values):
        for wrong in (None, 3, (), "text"):
            assert schema.find_mistakes(changed(values, group, wrong)) == [
                f"config.{group}={wrong!r} must be a group of fields."
            ]


@pytest.mark.parametrize("name", SWEPT)
def test_every_field_must_be_there_and_no_other(name):
    values = load_values(name)
    for field in (*dict(leaves(values)), *groups(values)):
        found = schema.find_mistakes(changed(values, f"{field}s", 1))
        assert found == [f"The config has no field '{field}s'; the nearest is '{field}'."]
        # What makes a config one of its kind, and what not every config has.
        if field in ("demo", "probe", "task", "objectives", "task.loss.margin"):
            continue
        found = schema.find_mistakes(without(values, field))
        assert f"config.{field} is missing." in found


def test_all_mistakes_are_listed_in_one_error():
    values = changed(load_values("pretrain.py:demo"), "optimizer.decay", "cosin")
    values["batch_size"], values["seeds"] = "16", 1
    values["model"]["visual_cnn"]["stage_sizes"] = (1, 0, 1.5)
    with pytest.raises(UserError) as error:
        schema.check(values)
    first, *lines = str(error.value).splitlines()
    assert first == "The config has 5 mistakes:"
    assert [line.strip() for line in lines] == [
        "config.batch_size='16' must be a whole number, at least 1.",
        "config.model.visual_cnn.stage_sizes=(1, 0, 1.5) holds 0, which must be between 1 and 1000.",
        "config.model.visual_cnn.stage_sizes=(1, 0, 1.5) holds 1.5, which must be a whole number, between 1 and 1000.",
        "config.optimizer.decay='cosin' must be linear or cosine; the nearest is 'cosine'.",
        "The config has no field 'seeds'; the nearest is 'seed'.",
    ]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("pretrain.py", "optimizer.learning_rate", 1),  # a whole number is a number
        ("pretrain.py", "optimizer.grad_clip", math.inf),
        ("pretrain.py", "augment.flip", -0.0),
        ("pretrain.py", "model.visual_cnn.stage_sizes", [3, 4, 6, 3]),
        ("pretrain.py", "seed", 2**63 - 1),
        ("pretrain.py", "data.name", "видео+動画"),
        ("pretrain.py", "data.data_dir", "gs://bucket/data"),
        ("pretrain.py", "model.dropout", 0),
        ("finetune_ucf101.py", "init_from", "~/runs/my run"),
        ("finetune_ucf101.py", "total_steps", 5),
        ("finetune_ucf101.py", "task.class_names", ("a", "", "b\n")),
        ("eval.py", "data.frontend.fps", 30),
    ],
)
def test_unusual_values_that_are_right_pass(name, field, value):
    assert schema.find_mistakes(changed(load_values(name), field, value)) == []


@pytest.mark.parametrize(
    ("name", "kinds", "sentence"),
    [
        ("eval.py", schema.TRAINING, "one of evaluation, but this command takes those of pretraining and a downstream"),
        ("pretrain.py", (schema.EVALUATION,), "one of pretraining, but this command takes those of evaluation"),
        ("linear_esc50.py", (schema.PRETRAINING,), "one of a downstream task, but this command takes those of pretr"),
    ],
)
def test_a_config_of_another_kind_gets_a_sentence(name, kinds, sentence):
    with pytest.raises(UserError, match=sentence):
        schema.check(load(name), kinds)


@pytest.mark.parametrize("config", [None, [], 3, "text", [("seed", 0)]])
def test_what_is_no_config_gets_a_sentence(config):
    with pytest.raises(UserError, match="A config must be a group of fields, and not of the type"):
        schema.check(config)


def test_the_config_of_an_older_run_lacks_what_came_later():
    values = load("pretrain.py").to_dict()
    for name in ("memory", "sharding", "norm_groups", "peer_timeout_seconds"):
        del values[name]
    del values["model"]["fusion"], values["data"]["frontend"]["win_length"], values["mesh"]["clip"]
    values["forgotten"] = 1
    schema.check(values, recorded=True)
    assert len(schema.find_mistakes(values)) == 1  # The field that is too many; then those that are missing.
    del values["forgotten"]
    assert len(schema.find_mistakes(values)) == 7
    del values["model"]["hidden"]
    with pytest.raises(UserError, match=r"^config\.model\.hidden is missing\.$"):
        schema.check(values, recorded=True)


def test_the_config_of_imported_weights_has_no_steps_and_no_data_set():
    values = load("pretrain.py:10s").to_dict()
    values["total_steps"], values["data"]["name"] = 0, None
    schema.check(values, recorded=True)
    assert len(schema.find_mistakes(values)) == 2


def test_fields_that_may_be_none_say_so():
    values = changed(changed(load_values("eval.py"), "test.pool", "men"), "data.crop", 0.5)
    assert schema.find_mistakes(values) == [
        "config.data.crop=0.5 must be a whole number or None, at least 1.",
        "config.test.pool='men' must be mean, max or None; the nearest is 'mean'.",
    ]


def test_odd_objects_get_one_line():
    values = load("pretrain.py").to_dict() | {5: 3, "seed": [ConfigDict({"a": 1})]}
    seed, key = schema.find_mistakes(values)
    assert seed.startswith("config.seed=[a: 1 ]") and seed.endswith("must be a whole number, at least 0.")
    assert key == "The config has a field 5, but names of fields are text."


@pytest.mark.parametrize("damage", [{}, {"model": None}, {"task": {}}, {"seed": "0"}])
def test_a_damaged_recorded_config_is_refused(damage):
    with pytest.raises(UserError):
        schema.check(damage, recorded=True)


def test_the_door_needs_neither_jax_nor_data_libraries():
    code = (
        "import importlib, sys\n"
        "from absl import flags\n"
        "from avshare_jax import schema, settings\n"
        "for name in ('main', 'eval', 'avshare_jax.protocol'):\n"
        "    known = set(flags.FLAGS)\n"
        "    importlib.import_module(name)\n"
        "    for flag in set(flags.FLAGS) - known:\n"  # They define some of the same.
        "        delattr(flags.FLAGS, flag)\n"
        f"for name in {SWEPT}:\n"
        "    schema.check(settings.load_config_file(f'configs/{name}'))\n"
        "heavy = 'jax flax optax orbax tensorflow tensorflow_datasets grain cv2 av sklearn scipy matplotlib numba'\n"
        "print([name for name in heavy.split() if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[]\n", "")
