"""Where a gallery is kept: in a file, in a database at an address, or in a storage of the caller's own."""

import os
import re

from steadface.arguments import as_path
from steadface.errors import InvalidInput, short
from steadface.files import check_given
from steadface.gallery.storage import TIMEOUT, Storage
from steadface.gallery.storage.sqlite import SQLiteStorage

Place = str | os.PathLike[str] | Storage
"""`postgresql://...` is the address of a PostgreSQL database; any other text, or a path, is that of an SQLite file."""

_ADDRESS = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://")
_OF_POSTGRES = ("postgresql", "postgres")
_MADE_A_PATH = re.compile("(postgresql|postgres):/", re.IGNORECASE)
"""What is left of an address that somebody made a `Path` of."""


def storage_at(place: Place, *, timeout: float = TIMEOUT, newest: bool = False) -> Storage:
    """The storage in that place, closed; `timeout` is how long, in seconds, it waits for others who write, and `newest`
    whether what is read has to be all that was committed, so that no standby will do.

    Raises `InvalidInput` for what is no place, and never repeats an address, in which a password may stand.
    """
    if isinstance(place, Storage):
        return place
    if isinstance(place, str) and (found := _ADDRESS.match(place)):
        if found[1] not in _OF_POSTGRES:
            raise InvalidInput(
                f"{short(found[1])}://... is no place for a gallery; name a file, or a database as postgresql://..."
            )
        from steadface.gallery.storage.postgres import PostgresStorage  # loads psycopg, which few need

        return PostgresStorage(place, timeout=timeout, newest=newest)
    path = as_path(place, "the gallery")
    if _MADE_A_PATH.match(str(path)):
        raise InvalidInput(
            "the address of a gallery was made a path, which takes a part of it away; write postgresql://... as a str"
        )
    check_given(path)
    return SQLiteStorage(path, timeout=timeout)


def is_file(place: Place) -> bool:
    """Whether one machine has it."""
    return isinstance(storage_at(place), SQLiteStorage)


def identified(place: Place) -> str:
    """The same for two spellings of one place, as far as can be told without opening it."""
    storage = storage_at(place)
    return os.path.realpath(storage.path) if isinstance(storage, SQLiteStorage) else storage.name
