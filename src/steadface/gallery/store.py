"""The file of a gallery: SQLite, of which one connection reads and another writes.

Write-ahead log with full synchronisation: what was committed survives a crash of process or machine, and readers see
the state before a transaction or after it. Deleted cells are overwritten (secure_delete) and the write-ahead log is cut
off after a deletion. SQLite may leave copies of cells in the gaps of pages that it rebalanced, so `scrub` looks for the
deleted rows in the file, and rewrites it (VACUUM) where one is found. That a scrub is owed is noted in the transaction
that deletes, and made good by the next writer should this one die before it.
"""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from steadface.errors import SteadfaceError
from steadface.gallery import journal
from steadface.gallery.faults import RESTORE, explained
from steadface.gallery.identity import ModelIdentity
from steadface.gallery.keys import NONCE, Unsealable
from steadface.gallery.place import Place

APPLICATION = 0x53464741
"""Marks the file as a gallery of ours ("SFGA")."""
VERSION = 1
PAGE = 8192
"""Bytes; a sealed template of 512 numbers fills a quarter."""
TIMEOUT = 10.0
"""Seconds to wait for another process that writes."""
LOOKED_FOR = 8
"""Deleted rows that are looked for in the file; for more it is rewritten at once, which takes no longer."""
LOOKED_THROUGH = 2**28
"""Bytes of a file that is looked through, in memory; a larger one is rewritten at once, which takes three times as
long."""

SCHEMA = """
CREATE TABLE gallery (
    id TEXT NOT NULL,
    created TEXT NOT NULL,
    model TEXT NOT NULL,
    key TEXT NOT NULL,
    secret BLOB NOT NULL,
    owed INTEGER NOT NULL
) STRICT;
CREATE TABLE people (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tag BLOB NOT NULL UNIQUE,
    created TEXT NOT NULL,
    expires TEXT,
    sealed BLOB NOT NULL
) STRICT;
CREATE TABLE templates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people (number),
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX templates_of_person ON templates (person);
CREATE INDEX people_expiring ON people (expires) WHERE expires IS NOT NULL;
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a gallery says of itself: random `id`, `model`, the `key`'s id, the sealed `secret`."""

    id: str
    created: str
    model: ModelIdentity
    key: str
    secret: bytes
    owed: bool


def create_file(path: Path, header: Header, log_key: bytes, now: datetime) -> None:
    """An empty gallery that only its owner can read. Raises `SteadfaceError` where there is a file already."""
    if path.exists():
        raise SteadfaceError(f"there is a file at {path} already; name another, or remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise SteadfaceError(f"cannot make a gallery at {path}: {error.strerror}; name another folder") from None
    try:
        with explained(path), closing(_connect(path, TIMEOUT)) as connection:
            for pragma in (f"page_size = {PAGE}", "journal_mode = WAL", f"application_id = {APPLICATION}"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN IMMEDIATE")
            for statement in (SCHEMA + journal.SCHEMA).split(";"):
                connection.execute(statement)
            write_header(connection, header)
            journal.append(connection, log_key, "create", now=now, details=asdict(header.model))
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
    except BaseException:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise


class Store:
    """One connection to the gallery at `path`, for one thread at a time: transactions wait for `lock`.

    Every use raises `SteadfaceError` where the files are no longer those of `place`, by default what is there now, and
    once this was closed.
    """

    def __init__(self, path: Path, *, timeout: float = TIMEOUT, place: Place | None = None) -> None:
        if not path.is_file():
            raise SteadfaceError(f"no gallery at {path}; check the path, or make one with `steadface gallery create`")
        self.path, self.place = path, place or Place(path)
        self.lock = threading.RLock()
        self._closed = False
        with explained(path):
            self._connection = _connect(path, timeout)
            try:
                self._check_kind()
                self.place.check()
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, in a transaction that sees one state of the gallery throughout."""
        with self._transaction("DEFERRED") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection, in a transaction that is on the disk once this returns, or has no effect."""
        with self._transaction("IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self.lock, explained(self.path):
            self.check_open()
            self._connection.execute(f"BEGIN {kind}")
            try:
                self._connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # now files are open
                self.place.check()
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # some faults have rolled it back already
                    self._connection.execute("ROLLBACK")
                raise
            self.place.check()  # it may have happened meanwhile: then nothing is acknowledged

    def scrub(self, sealed: Sequence[bytes] | None = None) -> None:
        """Leaves no trace of the `sealed` rows (None: of any) that were deleted, in the file or its log.

        What was deleted stays so where this fails (a warning says why); it is then still owed.
        """
        try:
            with self.lock, explained(self.path):
                self.check_open()
                self.place.check()
                self._cut_log()
                if sealed is None or len(sealed) > LOOKED_FOR or self._holds(sealed):
                    self._connection.execute("VACUUM")
                    self._cut_log()
            with self.writing() as connection:
                connection.execute("UPDATE gallery SET owed = 0")
        except (SteadfaceError, OSError) as error:
            log.warning("deleted, but traces may remain in the file until the next change: %s", error)

    def backup(self, target: Path) -> None:
        """Copies the gallery while it is in use, through SQLite's online backup, whole or not at all.

        Raises `SteadfaceError` where there is a file already, or the copy cannot be written.
        """
        self.check_open()
        self.place.check()
        if target.exists():
            raise SteadfaceError(f"there is a file at {target} already; name another")
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with self.lock, explained(self.path), closing(sqlite3.connect(partial)) as copy:
                self._connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # a single file, to be carried anywhere
                check_pages(copy, self.path)
                self.place.check()
            partial.replace(target)
        except OSError as error:
            raise SteadfaceError(f"cannot write {target}: {error.strerror}; name another folder") from None
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Does nothing where it is closed already."""
        with self.lock:
            self._closed = True
            self._connection.close()

    def check_open(self) -> None:
        """Raises `SteadfaceError` once this was closed."""
        if self._closed:
            raise SteadfaceError(f"the gallery {self.path} was closed; open it again with Gallery.open")

    def _check_kind(self) -> None:
        application = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION or not version:
            raise SteadfaceError(
                f"{self.path} is no gallery of Steadface (a database of another kind, or one whose making was "
                "interrupted); check the path"
            )
        if version > VERSION:
            raise SteadfaceError(
                f"the gallery {self.path} was made by a newer Steadface (layout {version}, and this one knows "
                f"{VERSION}); upgrade Steadface"
            )
        # A backup comes as a single file; from here on it is a gallery like any other.
        with suppress(sqlite3.OperationalError):  # where it can only be read, or another process does the same
            self._connection.execute("PRAGMA journal_mode = WAL")

    def _cut_log(self) -> None:
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise SteadfaceError(f"{self.path} is being read by another process, and its log cannot be cut off yet")

    def _holds(self, sealed: Sequence[bytes]) -> bool:
        """Whether the file may hold the nonce of any; without its nonce nothing of a row can be opened, by anybody.

        SQLite reads the file: had this process opened it besides, closing it would drop SQLite's locks (POSIX), and
        the next process to leave the gallery would take the write-ahead log away from under this one.
        """
        pages, page = (self._connection.execute(f"PRAGMA page_{what}").fetchone()[0] for what in ("count", "size"))
        if pages * page > LOOKED_THROUGH:
            return True
        content = self._connection.serialize()
        return any(row[:NONCE] in content for row in sealed)


def read_header(connection: sqlite3.Connection) -> Header:
    """Raises `Unsealable` where there is none."""
    row = connection.execute("SELECT * FROM gallery").fetchone()
    if row is None:
        raise Unsealable("its header")
    identity, created, model, key, secret, owed = row
    return Header(
        id=identity,
        created=created,
        model=ModelIdentity(**json.loads(model)),
        key=key,
        secret=secret,
        owed=bool(owed),
    )


def write_header(connection: sqlite3.Connection, header: Header) -> None:
    connection.execute("DELETE FROM gallery")
    connection.execute(
        "INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?)",
        (header.id, header.created, json.dumps(asdict(header.model)), header.key, header.secret, header.owed),
    )


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `SteadfaceError` for a database with damaged pages; reads all of it."""
    with explained(path):
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        raise SteadfaceError(f"the gallery {path} is damaged ({said.splitlines()[-1]}): {RESTORE}")


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
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
