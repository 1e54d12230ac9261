"""What people pass, checked before any work: each of these returns it, or names the argument, the value and what is
allowed in an `InvalidInput`.
"""

import difflib
import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from steadface.errors import InvalidInput, quoted, short
from steadface.files import is_name

AnyPath = str | os.PathLike[str]


def as_path(value: Any, name: str) -> Path:
    """A `str` or path as a `Path`."""
    if not isinstance(value, str | os.PathLike) or isinstance(path := os.fspath(value), bytes):
        raise InvalidInput(f"{name} is {_kind(value)}; give a path, as a str or a Path")
    if not path or not is_name(path):
        raise InvalidInput(f"{name} {quoted(path)} is not a path; name a file or folder")
    return Path(path)


def choice(name: str, value: Any, literal: Any) -> Any:
    """One of the strings of a `Literal`."""
    allowed = get_args(literal)
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1) if isinstance(value, str) else []
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise InvalidInput(f"{name} {quoted(value)} is not known; choose {_either(allowed)}{meant}")
    return value


def rate(name: str, value: Any) -> float:
    """A share strictly between 0 and 1, of more than one case in 1e30, which nobody counts."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 1e-30 < float(value) < 1:
        raise InvalidInput(f"{name} {quoted(value)} is not a rate between 0 and 1; ask for e.g. 1e-2")
    return float(value)


def count(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InvalidInput(f"{name} is {short(value)}; give a whole number of {least} or more")
    return int(value)


SEEDS = 2**64
"""torch keeps so many apart; what is made of a seed is taken modulo that."""


def seed(value: Any) -> int:
    """A whole number that torch takes for a seed."""
    if count("seed", value, least=0) >= SEEDS:
        raise InvalidInput(f"seed is {short(value)}; give a whole number below {SEEDS}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Any number; NaN and infinity are left to the caller, who knows the range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidInput(f"{name} is {quoted(value)}, {_kind(value)}; give a number")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Number `number` of `of` shares, from 1 on: of what is counted each has every `of`-th."""

    number: int = 1
    of: int = 1

    @classmethod
    def parsed(cls, text: str) -> "Shard":
        """Of `3/64`, the third of 64. Raises `InvalidInput` for what is none of 1/64 to 64/64."""
        number, _, of = text.partition("/")
        if not (number.isascii() and number.isdecimal() and of.isascii() and of.isdecimal() and len(text) < 20):
            raise InvalidInput(f"{text} is no shard; write 3/64 for the third of 64")
        if not 1 <= int(number) <= int(of):
            raise InvalidInput(f"{text} is none of {of} shards; they are counted from 1/{of} to {of}/{of}")
        return cls(number=int(number), of=int(of))

    def places(self, count: int) -> range:
        """Its places, from 0 on, among so many."""
        return range(self.number - 1, count, self.of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def flag(name: str, value: Any) -> bool:
    """True or False: a text such as "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{name} is {quoted(value)}, {_kind(value)}; give True or False")
    return bool(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _either(allowed: tuple[str, ...]) -> str:
    return " or ".join([", ".join(allowed[:-1]), allowed[-1]] if len(allowed) > 1 else allowed)
