"""One connection to the file of a gallery, which is trusted with nothing before it was looked at.

In every transaction the tables are compared with those of a gallery (`steadface.gallery.storage.sqlite.schema`), and
what SQLite had learned of them before is forgotten whenever somebody else has written. Triggers do not run, functions
that reach out of the database are not called from it, and no value is longer than `LONGEST`.

A gallery that can only be read, file or folder, is read without locks if nothing beside it holds changes, since SQLite
could note nowhere who reads; every transaction then asks whether the file is as it was.
"""

import itertools
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from steadface.errors import InvalidInput, NotFound, SteadfaceError, Unavailable, Unsupported, short
from steadface.gallery.storage import LONGEST, RESTORE
from steadface.gallery.storage.sqlite.files import OpenedFiles, Stamp
from steadface.gallery.storage.sqlite.rows import VERSION, Rows
from steadface.gallery.storage.sqlite.schema import check_schema

APPLICATION = 0x53464741
"""Marks the file as a gallery of ours ("SFGA")."""
LOOKED_THROUGH = 2**28
"""Bytes of a file that is looked through, in memory; a larger one is rewritten at once, which takes three times as
long."""
LOOKED_AGAIN = 2**32
"""Bytes to be compared, at most, in looking for what a new file may still hold: a second or two."""

STEPS, STEPS_PER_BYTE, STEPS_AT_ONCE = 2 * 10**7, 10, 10**6
"""Of SQLite's machine, in a transaction: a row takes some tens or hundreds, and a hundred bytes or more."""
READING, WRITING = "DEFERRED", "IMMEDIATE"

_MEANINGS: dict[int, tuple[type[SteadfaceError], str]] = {
    sqlite3.SQLITE_BUSY: (
        Unavailable,
        "is locked by another process and stayed so; nothing was written: wait for it to finish, or stop it, and try "
        "again",
    ),
    sqlite3.SQLITE_FULL: (
        Unavailable,
        "cannot grow, the disk is full; nothing was written and the gallery is as it was: free some space and try "
        "again",
    ),
    sqlite3.SQLITE_IOERR: (
        Unavailable,
        "cannot be read or written, because of the disk, a quota or a limit on file sizes; nothing was written and the "
        "gallery is as it was: look at the disk and try again",
    ),
    sqlite3.SQLITE_READONLY: (
        Unavailable,
        "can only be read; nothing was written: allow writing to the file and its folder",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        Unavailable,
        "cannot be opened; SQLite needs to read the file and to write beside it: look at the permissions of both",
    ),
    sqlite3.SQLITE_PERM: (Unavailable, "cannot be opened: look at the permissions of the file and its folder"),
    sqlite3.SQLITE_NOTADB: (InvalidInput, "is not a gallery (it is not an SQLite database): check the path"),
    sqlite3.SQLITE_TOOBIG: (
        InvalidInput,
        f"has, or was given, a value longer than {LONGEST} bytes, which none needs; nothing was written",
    ),
}
_DAMAGED = (InvalidInput, f"is damaged or was changed by other means: {RESTORE}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite cannot do becomes a `SteadfaceError` that says which file, what it means and what to do."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        kind, meaning = _MEANINGS.get(primary_code(error), _DAMAGED)
        # SQLite's words may repeat what stands in the file.
        raise kind(f"the gallery {path} {meaning} [{printable(str(error))}]") from error
    except UnicodeDecodeError as error:  # of SQLite's own words, where they repeat what stands in the file
        kind, meaning = _DAMAGED
        raise kind(f"the gallery {path} {meaning} [it holds text that is not UTF-8]") from error


def primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def printable(said: str) -> str:
    """In one line, without what a terminal would take for a command."""
    return short("".join(c if c.isprintable() else "?" for c in said), 200)


class Connection:
    """For one thread at a time: transactions wait for `lock`.

    Every use raises as `OpenedFiles.check` does where the files are no longer `files`, by default what is there now,
    and `Unavailable` once this was closed.
    """

    def __init__(self, path: Path, *, timeout: float, files: OpenedFiles | None = None) -> None:
        if not path.is_file():
            raise NotFound(f"no gallery at {path}; check the path, or make one with `steadface gallery create`")
        self.path, self.files = path, files or OpenedFiles(path)
        self.lock = threading.RLock()
        self.closed = False
        self._looked_at: int | None = None
        self._sound: tuple[Stamp | None, int] | None = None
        with explained(path):
            self._sqlite = self._connected(timeout)
            try:
                self.files.check()
                with self.transaction(READING):
                    pass
            except BaseException:
                self._sqlite.close()
                raise

    def _connected(self, timeout: float) -> sqlite3.Connection:
        """To read and to write, or only to read where nothing else can be done."""
        try:
            return self._checked(connected(self.path, timeout))
        except sqlite3.OperationalError as error:
            if primary_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            self.files.keep()
            return self._checked(connected(self.path, timeout, access="mode=ro&immutable=1"))

    @contextmanager
    def transaction(self, kind: str) -> Iterator[Rows]:
        """`READING`: one state throughout. `WRITING`: on the disk once this returns."""
        with self._held() as sqlite, self._bounded(sqlite):
            stamp = self.files.stamp()
            if strange := self._sound is not None and self.files.written_elsewhere(self._sound[0]):
                self.files.check_filled()
                sqlite.execute("PRAGMA shrink_memory")  # or pages would be taken as they were
            sqlite.execute(f"BEGIN {kind}")
            try:
                sqlite.execute("SELECT 1 FROM main.sqlite_master LIMIT 1").fetchone()  # now files are open
                self.files.check()
                self._look_at(sqlite, stamp, strange=strange)
                yield Rows(sqlite, str(self.path))
                with self.files.writing() if kind == WRITING else nullcontext():
                    sqlite.execute("COMMIT")
            except BaseException:
                if sqlite.in_transaction:  # some faults have rolled it back already
                    sqlite.execute("ROLLBACK")
                raise
            self.files.check()  # it may have happened meanwhile: then nothing is acknowledged

    @contextmanager
    def outside_transactions(self) -> Iterator[sqlite3.Connection]:
        """SQLite's connection, for what needs none."""
        with self._held() as sqlite:
            with self.transaction(READING):
                pass
            try:
                yield sqlite
            finally:
                self._looked_at = None  # it may have read the list of tables anew, unseen

    def rewrite(self, traces: Sequence[bytes], *, anyway: bool) -> None:
        """Cuts the write-ahead log off and, where the file holds one of the traces, or `anyway`, makes it anew.

        Raises `InvalidInput` where it still holds one of them then.
        """
        with self.outside_transactions() as sqlite, self.files.writing():
            self._cut_log()
            if not anyway and not self._may_hold(traces):
                return
            with self._bounded(sqlite):
                sqlite.execute("VACUUM")
            self._cut_log()
            if self._still_holds(traces):
                raise InvalidInput(
                    f"copies of what was deleted remain in {self.path}, in rows that are in use, where somebody put "
                    "them by other means: `steadface gallery verify-log` may say which"
                )

    def close(self) -> None:
        """Does nothing where it is closed already."""
        with self.lock:
            self.closed = True
            self._sqlite.close()

    def check_open(self) -> None:
        if self.closed:
            raise Unavailable(f"the gallery {self.path} was closed; open it again with Gallery.open")

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        with self.lock, explained(self.path):
            self.check_open()
            yield self._sqlite

    @contextmanager
    def _bounded(self, sqlite: sqlite3.Connection) -> Iterator[None]:
        """SQLite stops where it takes more steps than any file of the size that it has by then can need: a few pages
        that lead to each other in many ways would keep it busy for years.
        """
        steps = itertools.count(STEPS_AT_ONCE, STEPS_AT_ONCE)
        sqlite.set_progress_handler(lambda: next(steps) > STEPS + STEPS_PER_BYTE * self.files.taken(), STEPS_AT_ONCE)
        try:
            yield
        finally:
            sqlite.set_progress_handler(None, 0)

    def _look_at(self, sqlite: sqlite3.Connection, stamp: Stamp | None, *, strange: bool) -> None:
        """Raises `InvalidInput` where the state that this transaction sees is not that of a gallery.

        Where somebody else has written into the file (`strange`) though nobody has changed the gallery, another file
        was copied over it, or a process has brought the log into it late: the whole file is looked through.
        """
        known, self._looked_at = self._looked_at, None
        (now,) = sqlite.execute("PRAGMA data_version").fetchone()
        if strange and self._sound is not None and now == self._sound[1]:
            Rows(sqlite, str(self.path)).check()
        if now != known:
            # Else SQLite might go by a list of tables that was there for a moment, and put back since.
            sqlite.execute("PRAGMA writable_schema = RESET")
            self.files.check_size(Rows(sqlite, str(self.path)).size())
        check_schema(sqlite, str(self.path))
        self._looked_at, self._sound = now, (stamp, now)

    def _checked(self, sqlite: sqlite3.Connection) -> sqlite3.Connection:
        """Closed again where this is not a gallery."""
        try:
            self._check_kind(sqlite)
        except BaseException:
            sqlite.close()
            raise
        return sqlite

    def _check_kind(self, sqlite: sqlite3.Connection) -> None:
        application, version = (
            sqlite.execute(f"PRAGMA {what}").fetchone()[0] for what in ("application_id", "user_version")
        )
        if application != APPLICATION or version < 1:
            raise InvalidInput(
                f"{self.path} is not a gallery of Steadface (a database of another kind, or one whose making was "
                "interrupted); check the path"
            )
        if version > VERSION:
            raise Unsupported(
                f"the gallery {self.path} was made by a newer Steadface (layout {version}, and this one knows "
                f"{VERSION}); upgrade Steadface"
            )
        # A backup comes as a single file; from here on it is a gallery like any other.
        with suppress(sqlite3.OperationalError):  # where it can only be read, or another process does the same
            sqlite.execute("PRAGMA journal_mode = WAL")

    def _cut_log(self) -> None:
        busy, *_ = self._sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unavailable(f"{self.path} is being read by another process, and its log cannot be cut off yet")

    def _may_hold(self, traces: Sequence[bytes]) -> bool:
        """Whether the file may hold any of them."""
        return self._size() > LOOKED_THROUGH or self._holds(traces)

    def _still_holds(self, traces: Sequence[bytes]) -> bool:
        """As far as it can be told in a moment: not in a large file, and not for more traces than that allows."""
        size = self._size()
        return size <= LOOKED_THROUGH and self._holds(traces[: LOOKED_AGAIN // max(size, 1)])

    def _holds(self, traces: Sequence[bytes]) -> bool:
        """SQLite reads the file: had this process opened it besides, closing it would drop SQLite's locks (POSIX), and
        the next process to leave the gallery would take the write-ahead log away from under this one.
        """
        content = self._sqlite.serialize() if traces else b""
        return any(trace in content for trace in traces)

    def _size(self) -> int:
        return Rows(self._sqlite, str(self.path)).size()


def connected(path: Path, timeout: float, access: str = "mode=rw") -> sqlite3.Connection:
    """To a file that is there; what was committed is flushed, and deleted cells are overwritten."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{access}", uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    try:
        _distrust(connection)
        for pragma in ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _distrust(connection: sqlite3.Connection) -> None:
    """What SQLite recommends for a file that somebody else may have made (sqlite.org/security.html)."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
