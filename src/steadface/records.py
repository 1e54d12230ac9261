"""What a JSON file says, as types: a file that people can edit is a claim until it has been checked.

Strict: nothing is cast ("-1" is no number, "false" and 0 are no bool), NaN and infinity are no numbers, and every
figure has its range. JSON of more than some 200 levels is refused by the parser.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from steadface.errors import InvalidInput, short

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
"""For dataclasses that are read from files, as their `__pydantic_config__`; they are checked where they are read."""

SMALL = 2**20
"""Bytes of a file that states a few dozen figures; real ones have some 10 KiB."""

LARGEST_LOG = 256 * 2**20
"""Bytes of what a run writes down while it trains: a million logged steps."""


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the interval begins at {ends[0]:g} and ends before that, at {ends[1]:g}")
    return ends


Rate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]
"""Rounding included."""
Count = Annotated[int, Field(ge=0, le=2**64)]
Interval = Annotated[tuple[Share, Share], AfterValidator(_rising)]
CosineInterval = Annotated[tuple[Cosine, Cosine], AfterValidator(_rising)]
Word = Annotated[str, Field(min_length=1, max_length=4096)]
"""A name or a path."""


class Record(BaseModel):
    """Frozen; refuses what is of another type, out of range, infinite or not a number, and leaves out unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values in the order of the fields."""
        return self.model_dump(mode="json", exclude_unset=True)


Kind = TypeVar("Kind")


def parsed(kind: type[Kind], data: bytes | str | Mapping[str, Any]) -> Kind:
    """JSON, as text or read already, as a record or a dataclass with `STRICT`.

    Raises InvalidInput, which names the place of the first fault, for what is none.
    """
    try:
        text = json.dumps(data) if isinstance(data, Mapping) else data
        found: Kind = _adapter(cast(Any, kind)).validate_json(text)
        return found
    except ValidationError as error:
        raise InvalidInput(first_fault(error)) from None
    except (ValueError, TypeError, RecursionError) as error:  # what JSON cannot say
        raise InvalidInput(short(str(error), 200)) from None


_adapter = cache(TypeAdapter[Any])


def first_fault(error: ValidationError) -> str:
    """Where the first of the faults lies, and what it is, without the values and addresses that pydantic adds."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step) for step in fault["loc"])
    what = short(fault["msg"].removeprefix("Value error, "), 200)
    return f"{short(place)}: {what}" if place else what
