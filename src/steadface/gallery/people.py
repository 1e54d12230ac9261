"""Who is enrolled: names, consent and its expiry, and the unit vectors that stand for a person."""

import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.errors import SteadfaceError, quoted, short
from steadface.gallery.checks import UNIT
from steadface.gallery.identity import ModelIdentity

Vectors = NDArray[np.float32]

LONGEST = 200
"""Characters of a name."""

JOINERS = "\u200c\u200d"
"""The zero-width non-joiner and joiner: unseen, but a part of how names are written in Persian and Indic scripts."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody enrolled. `id` is random and outlives the name in the log; `number` is that of the row. Times are UTC;
    `templates` counts them.
    """

    id: str
    name: str
    created: datetime
    expires: datetime | None
    consent: str | None
    notes: str | None
    templates: int
    number: int

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


def checked_name(name: str) -> str:
    """The name in Unicode's composed form, so that names that look alike are one. Raises `SteadfaceError`."""
    if not isinstance(name, str):
        raise SteadfaceError(f"a name is text, and this is {type(name).__name__}; give the person's name as a string")
    name = unicodedata.normalize("NFC", name)
    unwritable = any(unicodedata.category(c)[0] == "C" for c in name if c not in JOINERS)
    if not name or name != name.strip().strip(JOINERS) or len(name) > LONGEST or unwritable:
        raise SteadfaceError(
            f"{quoted(name)} is no name for a person: it takes 1 to {LONGEST} characters, none of them a control "
            "character, no space around them, and joiners (U+200C, U+200D) only between letters"
        )
    return name


def checked_expiry(expires: date | str | None, now: datetime, name: str) -> datetime | None:
    """As `parse_expiry` reads it. Raises `SteadfaceError` for what is no such time, and for one that has passed."""
    if expires is None:
        return None
    end = parse_expiry(expires)
    if end <= now:
        raise SteadfaceError(f"the expiry {expires} of {name} has passed (it is {now:%Y-%m-%d %H:%M} UTC)")
    return end


def parse_expiry(expires: date | str) -> datetime:
    """A `date` or `2031-12-31`, to the end of that day in UTC; a `datetime` with its zone or
    `2031-12-31T18:00+01:00`. In UTC.

    Raises `SteadfaceError` for anything else.
    """
    moment: object = expires
    if isinstance(expires, str):
        try:
            parse = date.fromisoformat if len(expires) == len("2031-12-31") else datetime.fromisoformat
            moment = parse(expires)
        except ValueError:
            moment = None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        return datetime.combine(moment, time.max, UTC)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        why = "names no time zone" if isinstance(expires, datetime) else "is no date"
        raise SteadfaceError(
            f"the expiry {short(str(expires))} {why}; write 2031-12-31, or a time with its zone, 2031-12-31T18:00+01:00"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise SteadfaceError(f"the expiry {expires} lies outside of the years 1 to 9999; give another") from None


def checked_vectors(vectors: ArrayLike, model: ModelIdentity, whose: str) -> Vectors:
    """Unit vectors (n, D) as float32. Raises `SteadfaceError` for another shape, NaN, infinity, or other lengths."""
    found = np.asarray(vectors, dtype=np.float32)
    if found.ndim != 2 or not len(found) or found.shape[1] != model.dimension:
        raise SteadfaceError(
            f"the vectors of {whose} have shape {found.shape}; the gallery takes one or more of {model.dimension} "
            f"numbers each, (n, {model.dimension}), as its model {model.name} makes them"
        )
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(found, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))
    if len(wrong):
        raise SteadfaceError(
            f"vector {wrong[0] + 1} of {whose} is no unit vector (its length is {lengths[wrong[0]]:.4g}); was its "
            "image readable, and the embedding normalised?"
        )
    return found
