"""Turns pydantic's errors into sentences that name the field, its value, and what is allowed."""

import reprlib
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from avshare_jax.schema.base import BROKEN_RULES, LARGEST_INT32, LARGEST_INT64, MOST_ELEMENTS, Group
from avshare_jax.settings import nearest_name

Place = tuple[str | int, ...]
Bounds = dict[str, float]

KINDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", tuple: "a tuple"}
BOUNDS = ("ge", "gt", "le", "lt", "min_length", "max_length")
TECHNICAL_LIMITS = (MOST_ELEMENTS, LARGEST_INT32, LARGEST_INT64)
"""Said only where they are exceeded."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxtuple = _SHORT.maxlist = 12


def sentences_of(error: ValidationError, schema: type[Group], values: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence, or several, for each of pydantic's errors.

    Args:
      error: from validating `values`.
      schema: that they were validated by.
      values: a config as nested mappings.
    """
    for detail in error.errors(include_url=False):
        if detail["type"] == BROKEN_RULES:
            yield from detail["ctx"]["sentences"]
        elif detail["type"] == "extra_forbidden":
            name = dotted(detail["loc"])
            yield f"The config has no field {name!r}{nearest_name(name, sorted(schema_names(schema)))}."
        elif detail["type"] == "invalid_key":
            yield f"The config has a field {detail['loc'][-1]!r}, but names of fields are text."
        elif detail["type"] == "missing" and isinstance(detail["loc"][-1], str):
            yield missing(dotted(detail["loc"]))
        else:
            yield _sentence(detail, schema, values)


def _sentence(detail: ErrorDetails, schema: type[Group], values: Mapping[str, Any]) -> str:
    """What is wrong with the value of a field, or with an element of it."""
    field = tuple(part for part in detail["loc"] if isinstance(part, str))
    value, wrong = _value(values, field), detail["input"]
    which = "must be"
    if wrong is not value and isinstance(value, tuple | list):
        which = f"holds {_shown(wrong)}, which must be"
    return f"config.{dotted(field)}={_shown(value)} {which} {_allowed(detail, schema)}."


def _allowed(detail: ErrorDetails, schema: type[Group]) -> str:
    """What the place of an error may hold: "a whole number, at least 1", "between 0 and 1", "linear or cosine"."""
    place = detail["loc"][:-1] if detail["type"] == "missing" else detail["loc"]  # An element that is not there.
    kind, bounds, optional = _unfold(_annotation(schema, place))
    or_none = " or None" if optional else ""
    match detail["type"]:
        case "literal_error":
            choices = get_args(kind)
            near = nearest_name(detail["input"], choices) if isinstance(detail["input"], str) else ""
            *others, last = (*choices, "None") if optional else choices
            return f"{', '.join(others)} or {last}{near}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return _range(bounds, exceeded=detail["type"].startswith("less"))
        case "finite_number":
            return f"a finite number{or_none}"
        case "string_too_short":
            return f"text that is not empty{or_none}"
        case "string_pattern_mismatch":
            return "text without control characters"
        case "string_unicode":
            return "text that can be written as UTF-8"
        case "too_short" | "too_long" | "missing":
            return f"a tuple of {_length(kind, bounds)}"
        case "even":
            return detail["msg"]
    if isinstance(kind, type) and issubclass(kind, Group):
        return "a group of fields"
    allowed = _range(bounds, exceeded=False)
    return f"{KINDS[get_origin(kind) or kind]}{or_none}{f', {allowed}' if allowed else ''}"


def _range(bounds: Bounds, exceeded: bool) -> str:
    """Bounds in words; an upper one that is merely technical is left out unless it is exceeded."""
    if bounds.get("le") in TECHNICAL_LIMITS and not exceeded:
        bounds = {name: bound for name, bound in bounds.items() if name != "le"}
    if "ge" in bounds and "le" in bounds:
        return f"between {bounds['ge']} and {bounds['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return " and ".join(f"{word} {bounds[name]}" for name, word in words.items() if name in bounds)


def _length(kind: Any, bounds: Bounds) -> str:
    """How many elements a tuple must have."""
    elements = get_args(kind)
    if elements[1:] != (Ellipsis,):
        return f"{len(elements)} elements"
    least, most = bounds.get("min_length", 0), bounds.get("max_length")
    if least == most:
        return f"{least} elements"
    return f"at least {least} element(s)" if most is None else f"{least} to {most} elements"


def missing(name: str) -> str:
    """The sentence for a field that a config lacks."""
    return f"config.{name} is missing."


def _annotation(schema: type[Group], place: Place) -> Any:
    """The annotation of a field, or of an element of it."""
    annotation: Any = schema
    for part in place:
        kind = _unfold(annotation)[0]
        if isinstance(part, str):
            field: FieldInfo = kind.model_fields[part]
            annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        else:
            elements = get_args(kind)
            annotation = elements[0] if elements[1:] == (Ellipsis,) else elements[min(part, len(elements) - 1)]
    return annotation


def _unfold(annotation: Any) -> tuple[Any, Bounds, bool]:
    """An annotation's type without wrappers, its bounds by pydantic's names, and whether it may be None."""
    bounds: Bounds = {}
    optional = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            for each in metadata:
                for bound in each.metadata if isinstance(each, FieldInfo) else (each,):
                    bounds |= {name: getattr(bound, name) for name in BOUNDS if hasattr(bound, name)}
        elif get_origin(annotation) in (Union, UnionType):
            optional = True
            (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
        else:
            return annotation, bounds, optional


def schema_names(schema: type[Group], prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of all fields that a schema knows, groups of fields included."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        kind = _unfold(field.annotation)[0]
        if isinstance(kind, type) and issubclass(kind, Group):
            yield from schema_names(kind, f"{prefix}{name}.")


def defaults(schema: type[Group], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted names and defaults of the fields that came later than the first ones."""
    for name, field in schema.model_fields.items():
        kind = _unfold(field.annotation)[0]
        if isinstance(kind, type) and issubclass(kind, Group):
            yield from defaults(kind, f"{prefix}{name}.")
        elif not field.is_required() and name not in schema.may_lack:
            yield prefix + name, field.default


def lacking(group: Group, prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of fields that have their default because the config does not have them."""
    for name in type(group).model_fields:
        if name not in group.model_fields_set:
            if name not in group.may_lack:
                yield prefix + name
        elif isinstance(value := getattr(group, name), Group):
            yield from lacking(value, f"{prefix}{name}.")


def dotted(place: Place) -> str:
    """A place as people write it: `optimizer.b1`."""
    return ".".join(map(str, place))


def _value(values: Any, place: Place) -> Any:
    for part in place:
        values = values[part]
    return values


def _shown(value: Any) -> str:
    return "(a group of fields)" if isinstance(value, Mapping) else " ".join(_SHORT.repr(value).split("\n"))
