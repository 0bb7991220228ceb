"""What the groups of the schema are made of: a strict model with rules, and the kinds of values that fields take."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

BROKEN_RULES = "broken_rules"


class Group(BaseModel):
    """A group of fields of a config.

    A field with a default came later than others: a config that was recorded before lacks it, and the default is how
    such a run was trained. A config that is given now has every field but those of `may_lack`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    may_lack: ClassVar[tuple[str, ...]] = ()

    def broken_rules(self) -> Iterator[str]:
        """Yields a sentence for each rule between fields that is broken; every field is right by itself."""
        yield from ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        if sentences := list(self.broken_rules()):
            raise PydanticCustomError(BROKEN_RULES, "these fields do not go together", {"sentences": sentences})
        return self


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


AsTuple = BeforeValidator(_as_tuple)
"""Config files may have lists, which the network takes as well."""

LARGEST_INT32, LARGEST_INT64 = 2**31 - 1, 2**63 - 1
MOST_ELEMENTS = 2**20
"""Along one axis of an array: a larger number is a slip of the keyboard, and no machine's memory holds it."""

# Paths and names with control characters cannot be opened (NUL) or printed in one line.
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
Count = Annotated[int, Field(ge=1, le=LARGEST_INT32)]
Size = Annotated[int, Field(ge=1, le=MOST_ELEMENTS)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_INT64)]
Workers = Annotated[int, Field(ge=0, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
FrameRate = Annotated[float, Field(gt=0, le=10_000)]
ShortSide = Annotated[int, Field(ge=2, le=2**16)]
WindowLength = Annotated[int, Field(ge=0, le=MOST_ELEMENTS)]
Views = Annotated[int, Field(ge=1, le=10_000)]
Pool = Literal["mean", "max"]
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
