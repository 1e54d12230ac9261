"""One connection to the file of a gallery, and whether that is still the one that was opened.

Who has a file open keeps it when it is moved, deleted or replaced, and would go on answering from it and writing into
it, where nobody will look again. So the paths' devices and inodes are compared with those of the opened files around
every transaction. SQLite keeps a part of a gallery beside it while it is open (`-wal`, `-shm`): these count as well.
SQLite's own check (SQLITE_READONLY_DBMOVED) covers rollback journals alone.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unavailable, Unsupported
from steadface.gallery.storage.sqlite.rows import RESTORE, Rows

APPLICATION = 0x53464741
"""Marks the file as a gallery of ours ("SFGA")."""
VERSION = 1
LOOKED_THROUGH = 2**28
"""Bytes of a file that is looked through, in memory; a larger one is rewritten at once, which takes three times as
long."""
COMPANIONS = ("-wal", "-shm")

Inode = tuple[int, int]
"""Device and inode; the inode is 0 on file systems that have none, whose files Windows keeps in place while open."""

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
    sqlite3.SQLITE_CORRUPT: (InvalidInput, f"is damaged: {RESTORE}"),
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite cannot do becomes a `SteadfaceError` that says which file, what it means and what to do."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if primary not in _MEANINGS:
            raise
        kind, meaning = _MEANINGS[primary]
        raise kind(f"the gallery {path} {meaning} [{error}]") from error


class OpenedFiles:
    """The file at `path`, as it is when this is made, and its companions, as they are when first looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._absolute = path.absolute()  # a later change of the working directory changes nothing
        self._file = _inode(self._absolute)
        real = self._absolute.resolve()  # SQLite keeps the companions beside what a link leads to
        self._companions: dict[Path, Inode | None] = {real.with_name(real.name + suffix): None for suffix in COMPANIONS}

    def check(self) -> None:
        """Raises `Unavailable` where a file is no longer there, and `Conflict` where another is in its place."""
        now = _inode(self._absolute)
        if now is None:
            raise Unavailable(
                f"the gallery {self.path} was moved away or deleted since it was opened; nothing was done that counts: "
                "put the file back together with those beside it (-wal, -shm), or open the gallery where it is now"
            )
        if now != self._file:
            raise Conflict(
                f"another file has taken the place of the gallery {self.path} since it was opened; nothing was done "
                "that counts: open it again to use the file that is there now, or put the first one back"
            )
        for path, opened in self._companions.items():
            there = _inode(path)
            if opened is not None and there != opened:
                raise Unavailable(
                    f"{path}, a part of the gallery {self.path} while it is open, was moved, deleted or replaced; "
                    "nothing was done that counts: close the gallery, open it again, and see whether the last changes "
                    "are there (leave the files beside a gallery alone while it is open, and do not read them in the "
                    "program that has it open)"
                )
            self._companions[path] = there


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
        with explained(path):
            self._sqlite = connected(path, timeout)
            try:
                self._check_kind()
                self.files.check()
            except BaseException:
                self._sqlite.close()
                raise

    @contextmanager
    def transaction(self, kind: str) -> Iterator[Rows]:
        """`DEFERRED`, to read: one state throughout. `IMMEDIATE`, to write: on the disk once this returns."""
        with self._held() as sqlite:
            sqlite.execute(f"BEGIN {kind}")
            try:
                sqlite.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # now files are open
                self.files.check()
                yield Rows(sqlite, str(self.path))
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
            self.files.check()
            yield sqlite

    def rewrite(self, traces: Sequence[bytes] | None) -> None:
        """Cuts the write-ahead log off and, where the file holds one of the traces (None: anyway), makes it anew."""
        with self.outside_transactions() as sqlite:
            self._cut_log()
            if traces is None or self._holds(traces):
                sqlite.execute("VACUUM")
                self._cut_log()

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

    def _check_kind(self) -> None:
        application, version = (
            self._sqlite.execute(f"PRAGMA {what}").fetchone()[0] for what in ("application_id", "user_version")
        )
        if application != APPLICATION or not version:
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
            self._sqlite.execute("PRAGMA journal_mode = WAL")

    def _cut_log(self) -> None:
        busy, *_ = self._sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unavailable(f"{self.path} is being read by another process, and its log cannot be cut off yet")

    def _holds(self, traces: Sequence[bytes]) -> bool:
        """Whether the file may hold any of them.

        SQLite reads the file: had this process opened it besides, closing it would drop SQLite's locks (POSIX), and
        the next process to leave the gallery would take the write-ahead log away from under this one.
        """
        if Rows(self._sqlite, str(self.path)).size() > LOOKED_THROUGH:
            return True
        content = self._sqlite.serialize()
        return any(trace in content for trace in traces)


def connected(path: Path, timeout: float) -> sqlite3.Connection:
    """To a file that is there; what was committed is flushed, and deleted cells are overwritten."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in ("synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _inode(path: Path) -> Inode | None:
    """None where there is no file, or none that may be looked at."""
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino
