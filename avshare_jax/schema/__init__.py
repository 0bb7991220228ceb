"""The schema of configs: which fields there are, what they may hold, and which values go together.

Configs are written and overridden as `ml_collections` files. `check` is their door: each binary calls it before JAX is
imported, and it names all mistakes at once. Checks that need devices or the data set come later, where these are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from pydantic import ValidationError

from avshare_jax.schema.base import Group
from avshare_jax.schema.evaluation import Evaluation
from avshare_jax.schema.sentences import defaults, lacking, missing, sentences_of
from avshare_jax.schema.training import Classification, Pretraining, RecordedPretraining
from avshare_jax.settings import UserError, list_mistakes

PRETRAINING, CLASSIFICATION, EVALUATION = "pretraining", "a downstream task", "evaluation"
SCHEMAS: dict[str, type[Group]] = {
    PRETRAINING: Pretraining,
    CLASSIFICATION: Classification,
    EVALUATION: Evaluation,
}
TRAINING = (PRETRAINING, CLASSIFICATION)


def kind_of(config: Mapping[str, Any] | ConfigDict) -> str:
    """What a config is of, by the groups that it alone has: one of `SCHEMAS`."""
    if "task" in config:
        return CLASSIFICATION
    return EVALUATION if "probe" in config or "poll_seconds" in config else PRETRAINING


def find_mistakes(
    config: Mapping[str, Any] | ConfigDict, kinds: Sequence[str] = tuple(SCHEMAS), recorded: bool = False
) -> list[str]:
    """Finds what is wrong in a config; takes the same as `check`.

    Returns:
      A sentence for each mistake; none where the config is right.
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else config
    if not isinstance(values, Mapping):
        return [f"A config must be a group of fields, and not of the type {type(values).__name__}."]
    kind = kind_of(values)
    if kind not in kinds:
        taken = " and ".join(kinds)
        return [f"The config is one of {kind}, but this command takes those of {taken}: choose another --config."]
    schema = RecordedPretraining if recorded and kind == PRETRAINING else SCHEMAS[kind]
    try:
        found = schema.model_validate(values, extra="ignore" if recorded else "forbid")
    except ValidationError as error:
        return list(sentences_of(error, schema, values))
    return [] if recorded else [missing(name) for name in lacking(found)]


def check(
    config: Mapping[str, Any] | ConfigDict, kinds: Sequence[str] = tuple(SCHEMAS), recorded: bool = False
) -> None:
    """Checks all fields of a config, and what must go together; JAX is not needed. The config stays as it is.

    Args:
      config: of any kind; anything else is a mistake as well.
      kinds: of config that are taken.
      recorded: whether it is that of WORKDIR/config.json, which other versions may have written. Fields that this
        version does not know are then passed over; fields that it lacks are, too, where the schema has a default for
        them: that is how runs were trained before there was the field. Steps may be 0 and the data set None, as those
        of imported weights are. Lists are as good as tuples in any case.

    Raises:
      UserError: lists all mistakes, each a sentence with the field's name as it is typed, its value, and what is
        allowed.
    """
    if mistakes := find_mistakes(config, kinds, recorded):
        raise UserError(list_mistakes(mistakes))


def fill_in(config: ConfigDict) -> None:
    """Adds the fields that the recorded config of an older run lacks, with their defaults: it was trained like that."""
    for name, value in defaults(SCHEMAS[kind_of(config)]):
        *groups, leaf = name.split(".")
        group = config
        for each in groups:
            group = group.get(each, {})
        if isinstance(group, ConfigDict) and leaf not in group:
            with group.unlocked():
                group[leaf] = value


def is_default(config: Mapping[str, Any] | ConfigDict, name: str, value: Any) -> bool:
    """Whether a value of the field with this dotted name is what runs had before there was the field."""
    return (name, value) in list(defaults(SCHEMAS[kind_of(config)]))
