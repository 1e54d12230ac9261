"""What SQLite reports, in words that say which file, what it means and what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steadface.errors import SteadfaceError
from steadface.gallery.keys import Unsealable

RESTORE = "restore a backup (`steadface gallery backup` makes them)"

_MEANINGS = {
    sqlite3.SQLITE_BUSY: "is locked by another process and stayed so; nothing was written: wait for it to finish, or "
    "stop it, and try again",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full; nothing was written and the gallery is as it was: free some "
    "space and try again",
    sqlite3.SQLITE_IOERR: "cannot be read or written, because of the disk, a quota or a limit on file sizes; nothing "
    "was written and the gallery is as it was: look at the disk and try again",
    sqlite3.SQLITE_READONLY: "can only be read; nothing was written: allow writing to the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; SQLite needs to read the file and to write beside it: look at the "
    "permissions of both",
    sqlite3.SQLITE_PERM: "cannot be opened: look at the permissions of the file and its folder",
    sqlite3.SQLITE_NOTADB: "is no gallery (it is not an SQLite database): check the path",
    sqlite3.SQLITE_CORRUPT: f"is damaged: {RESTORE}",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raises `SteadfaceError` about the gallery at `path` for what SQLite cannot do, and rows that do not unseal."""
    try:
        yield
    except Unsealable as error:
        raise SteadfaceError(
            f"the gallery {path} was changed by other means or is damaged ({error} does not unseal); ask `steadface "
            f"gallery verify-log` what was, and {RESTORE}"
        ) from error
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if primary not in _MEANINGS:
            raise
        raise SteadfaceError(f"the gallery {path} {_MEANINGS[primary]} [{error}]") from error
