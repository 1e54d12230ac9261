"""What PostgreSQL refuses, in words that say which gallery, what it means and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from steadface.errors import InvalidInput, SteadfaceError, Unavailable, first_line
from steadface.gallery.storage import RESTORE

AGAIN = "nothing was written: try again"
FORBIDDEN = (
    "may not be used so by this role; nothing was written: connect as another, or have it allowed, by `steadface "
    "gallery grant` where there is a gallery, and with CREATE on the database to make one"
)
_LOST = (
    Unavailable,
    "cannot be reached, was cut off, or does not let this role in; nothing was written: see what is said behind this, "
    "and try again when the server is up",
)
_OTHERS = (Unavailable, "could not be used as it was asked for; nothing was written: see what its server says")
_MEANINGS: dict[str, tuple[type[SteadfaceError], str]] = {
    "": _LOST,
    "08": _LOST,
    "57": _LOST,
    "25P03": _LOST,
    "55P03": (
        Unavailable,
        f"is locked by others and stayed so; {AGAIN}, or see who holds it (pg_stat_activity)",
    ),
    "57014": (Unavailable, f"took longer than the server allows, or somebody stopped it; {AGAIN}"),
    "40": (Unavailable, f"was changed by other means at the same moment; {AGAIN}"),
    "53": (Unavailable, f"cannot go on: its server is short of space, memory or connections; {AGAIN} later"),
    "58": (Unavailable, f"cannot be read or written, because of its server's disk; {AGAIN} later"),
    "25006": (
        Unavailable,
        "can only be read there (a standby, or a database set to read only); nothing was written: give the address of "
        "the primary (several hosts with target_session_attrs=read-write find it)",
    ),
    "42501": (Unavailable, FORBIDDEN),
    "3F": (Unavailable, "is no longer there; nothing was written: look what became of its schema"),
    "42P01": (Unavailable, "is no longer there; nothing was written: look what became of its tables"),
    "XX": (InvalidInput, f"is damaged on its server: {RESTORE}"),
    "42": (InvalidInput, f"is damaged or was changed by other means: {RESTORE}"),
    "22": (InvalidInput, "was given, or has, a value that PostgreSQL does not take; nothing was written"),
    "23": (InvalidInput, f"is damaged or was changed by other means: {RESTORE}"),
}
"""By the beginning of PostgreSQL's code of the error, of which there is none where the server has not spoken."""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What PostgreSQL cannot do becomes a `SteadfaceError` that says which gallery, what it means and what to do."""
    try:
        yield
    except psycopg.Error as error:
        code = error.sqlstate or ""
        if not code and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise  # psycopg's, of a use that is wrong
        kind, meaning = next((_MEANINGS[code[:n]] for n in (5, 2) if code[:n] in _MEANINGS), _OTHERS)
        said = first_line(error) if error.diag.message_primary is None else error.diag.message_primary
        raise kind(f"the gallery {name} {meaning} [{said}]") from error
