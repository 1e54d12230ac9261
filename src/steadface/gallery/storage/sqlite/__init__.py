"""A gallery in one file, SQLite, of which one connection reads and another writes: nothing else knows of it.

Write-ahead log with full synchronisation: what was committed survives a crash of process or machine, and readers see
the state before a transaction or after it. Deleted cells are overwritten (secure_delete) and the write-ahead log is cut
off after a deletion. SQLite may leave copies of cells in the gaps of pages that it rebalanced, so `scrub` looks for the
deleted rows in the file, and rewrites it (VACUUM) where one is found. That a scrub is owed is noted in the transaction
that deletes, and made good by the next writer should this one die before it.
"""

import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable
from steadface.files import NO_ROOM, new_partial, put_in_place
from steadface.gallery.storage import TIMEOUT, Contents, check_unused
from steadface.gallery.storage.sqlite.connection import (
    APPLICATION,
    READING,
    WRITING,
    Connection,
    connected,
    explained,
    primary_code,
    printable,
)
from steadface.gallery.storage.sqlite.files import COMPANIONS, JOURNAL, OpenedFiles
from steadface.gallery.storage.sqlite.rows import SCHEMA, VERSION, Rows
from steadface.gallery.storage.sqlite.schema import check_schema

PAGE = 8192
"""Bytes; a sealed template of 512 numbers fills a quarter."""
LOOKED_FOR = 8
"""Deleted rows that are looked for in the file; for more it is rewritten at once, which takes no longer."""

OF_THE_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
"""What may go wrong with a file that is written."""

log = logging.getLogger(__name__)


class SQLiteStorage:
    """A `Storage` in the file at `path`; `timeout` is how long, in seconds, to wait for another process that writes.

    Raises `Unavailable` and `Conflict` where the files are no longer those that were opened.
    """

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self.path, self._timeout = path, timeout
        self._connections: tuple[Connection, Connection] | None = None
        self._written = threading.Event()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def remains(self) -> str:
        return ""

    def exists(self) -> bool:
        return self.path.exists()

    def check_free(self) -> None:
        """Nor may there be what SQLite would take for a part of it: that may be linked to another file, or hold the
        last changes of a gallery that was moved away.
        """
        for path in _all_of(self.path):
            if os.path.lexists(path):
                raise Conflict(f"there is a file at {path} already; name another, or move it away first")

    def create(self, contents: Contents) -> None:
        """A file that only its owner can read. Raises `InvalidInput` where none can be written."""
        self.check_free()
        try:
            with (
                _whole(self.path) as partial,
                explained(self.path),
                closing(connected(partial, self._timeout)) as connection,
            ):
                _fill(connection, self.name, contents)
        except OSError as error:
            raise InvalidInput(f"cannot make a gallery at {self.path}: {error.strerror}; name another folder") from None

    def destroy(self, head: str) -> None:
        self.open()
        with closing(self), self.writing() as rows:
            check_unused(rows, head, self.name)
        _remove_files(self.path)

    def open(self, files: OpenedFiles | None = None) -> None:
        """Raises as `Connection` does; `files` are those that are meant, by default what is there now."""
        if self._connections is not None and not self._reader.closed:
            raise Conflict(f"the gallery {self.path} is open already; make another SQLiteStorage to open it once more")
        reader = Connection(self.path, timeout=self._timeout, files=files)
        try:
            self._connections = reader, Connection(self.path, timeout=self._timeout, files=reader.files)
        except BaseException:
            reader.close()
            raise

    @property
    def _reader(self) -> Connection:
        return self._opened()[0]

    @property
    def _writer(self) -> Connection:
        return self._opened()[1]

    def _opened(self) -> tuple[Connection, Connection]:
        if self._connections is None:
            raise Unavailable(f"the gallery {self.path} was not opened; open it with Gallery.open")
        return self._connections

    def check_open(self) -> None:
        self._reader.check_open()

    def reading(self) -> AbstractContextManager[Rows]:
        return self._reader.transaction(READING)

    @contextmanager
    def writing(self) -> Iterator[Rows]:
        with self._writer.transaction(WRITING) as rows:
            yield rows
        self._written.set()

    def wait(self, seconds: float) -> None:
        """Hears of what this process writes."""
        self._written.wait(seconds)
        self._written.clear()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._reader.lock, self._writer.lock:
            yield

    def scrub(self, traces: Sequence[bytes] | None = None) -> None:
        try:
            self._writer.rewrite(traces or (), anyway=traces is None or len(traces) > LOOKED_FOR)
            with self.writing() as rows:
                rows.connection.execute("UPDATE gallery SET owed = 0")
        except (SteadfaceError, OSError) as error:
            log.warning("deleted, but traces may remain in the file until the next change: %s", error)

    def backup(self, target: Path) -> None:
        """Through SQLite's online backup, whole or not at all. Raises `InvalidInput` where it cannot be written, and
        `Unavailable` where there is no room for it.
        """
        with self.reading() as rows:
            size = rows.size()
        SQLiteStorage(target).check_free()
        if target.resolve() in _all_of(self.path.resolve()):
            raise Conflict(f"{target} is the name of a part of the gallery {self.path}; name another file")
        try:
            with _whole(target) as partial:
                _check_room(target, size)
                with self._reader.outside_transactions() as connection:
                    _copy(connection, partial, target, self.name)
                    self._reader.files.check()
        except OSError as error:
            kind = Unavailable if error.errno in NO_ROOM else InvalidInput
            raise kind(f"cannot write {target}: {error.strerror}; name another folder") from None

    def close(self) -> None:
        for connection in self._connections or ():
            connection.close()


def _fill(connection: sqlite3.Connection, name: str, contents: Contents) -> None:
    """The layout, and what the gallery holds; the write-ahead log only then, so that it is written once."""
    for pragma in (f"page_size = {PAGE}", f"application_id = {APPLICATION}"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    Rows(connection, name).fill(contents)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")


def _check_room(target: Path, size: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise Unavailable(
            f"cannot write {target}: the copy takes {size / 2**20:.0f} MiB, and on its disk {free / 2**20:.0f} are "
            "free; name a folder on another disk, or free some space"
        )


def _copy(connection: sqlite3.Connection, partial: Path, target: Path, name: str) -> None:
    """A copy that was looked through. What befalls it is told of `target`, not of the gallery of that `name`."""
    try:
        with closing(sqlite3.connect(partial)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # a single file, to be carried anywhere
            check_schema(copy, name)
            Rows(copy, name).check()
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in OF_THE_DISK:
            raise
        raise Unavailable(
            f"cannot write {target}: its disk is full, or cannot be written ({printable(str(error))}); free some space "
            "there or name a folder on another disk (the gallery is as it was)"
        ) from error


def _all_of(path: Path) -> list[Path]:
    """The file, and what SQLite may keep beside it."""
    return [Path(f"{path}{suffix}") for suffix in ("", *COMPANIONS, JOURNAL)]


def _remove_files(path: Path) -> None:
    """A gallery that nobody has open, or what is left of one."""
    for file in _all_of(path):
        file.unlink(missing_ok=True)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, for its owner alone, which takes that name once it is whole; nothing where it does
    not come to that. Raises `Conflict` where there is one by then, and OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_partial(path.parent, f".{path.name}.") as (file, partial):
        file.close()
        try:
            yield partial
            try:
                put_in_place(partial, path)
            except FileExistsError:
                raise Conflict(f"there is a file at {path} by now; name another, or move it away first") from None
        finally:
            _remove_files(partial)
