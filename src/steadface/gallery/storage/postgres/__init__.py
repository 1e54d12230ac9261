"""A gallery in a schema of a PostgreSQL database, which any number of machines may use.

What was committed is on the server's disk, and on those of the standbys that it waits for, whatever befalls the machine
that asked. One connection reads and another writes, each made when it is first needed and again when it was lost.

PostgreSQL does not overwrite what is deleted: it stays in its page until the table is vacuumed and the space is used
again, and longer in the write-ahead log, in standbys and in backups. `scrub` vacuums where the role may, and `remains`
says the rest. All of that is sealed: what makes it unreadable is another key, and the end of the old one.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from steadface.errors import Conflict, SteadfaceError, Unavailable, Unsupported
from steadface.gallery.storage import TIMEOUT, Contents, check_unused, contents_of
from steadface.gallery.storage.sqlite import SQLiteStorage

try:
    from psycopg import errors
except ImportError:
    raise Unsupported("a gallery in PostgreSQL needs psycopg: pip install 'steadface[postgres]'") from None

from steadface.gallery.storage.postgres.address import parsed
from steadface.gallery.storage.postgres.connection import (
    LOOKING,
    MAKING,
    MIGRATING,
    READING,
    WRITING,
    Connection,
    Kind,
)
from steadface.gallery.storage.postgres.layout import (
    TABLES,
    VERSION,
    bring_forward,
    check_free,
    layout_there,
    make_tables,
    schema_there,
    tables_there,
)
from steadface.gallery.storage.postgres.listening import Listener
from steadface.gallery.storage.postgres.roles import grant, grants
from steadface.gallery.storage.postgres.rows import Rows

__all__ = ["VERSION", "PostgresStorage", "grants"]

CLEARED = ("people", "templates", "gallery")
"""Tables of which rows are deleted or replaced."""

log = logging.getLogger(__name__)


class PostgresStorage:
    """A `Storage` at the address `url`; `timeout` is how long, in seconds, to wait for others who write. Where what is
    read has to be the `newest`, no standby is asked.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT, newest: bool = False) -> None:
        self.address, self._timeout = parsed(url, timeout=timeout, newest=newest), timeout
        self._listener = Listener(self.address)
        self._connections: tuple[Connection, Connection] | None = None
        self._closed, self._made_schema = False, False

    @property
    def name(self) -> str:
        return self.address.name

    @property
    def remains(self) -> str:
        return (
            "PostgreSQL does not overwrite what was deleted: sealed copies stay in pages of its tables until these are "
            "vacuumed and written anew, in its write-ahead log and archive, on standbys and in backups; rotate the key "
            "and destroy the old one where nobody must ever read them"
        )

    def exists(self) -> bool:
        with self._outside(LOOKING) as rows:
            return bool(tables_there(rows.connection, self.address.schema))

    def check_free(self) -> None:
        with self._outside(LOOKING) as rows:
            check_free(rows.connection, self.address.schema, self.name)

    def create(self, contents: Contents) -> None:
        """In one transaction, with the schema where there is none."""
        with self._outside(MAKING) as rows:
            check_free(rows.connection, self.address.schema, self.name)
            try:
                if not schema_there(rows.connection, self.address.schema):
                    self._execute(rows, f"CREATE SCHEMA {self.address.quoted_schema}")
                    self._made_schema = True
                make_tables(rows.connection)
            except (errors.UniqueViolation, errors.DuplicateSchema, errors.DuplicateTable):
                raise Conflict(f"somebody else makes a gallery at {self.name} at this moment: open that") from None
            rows.fill(contents)

    def destroy(self, head: str) -> None:
        with self._outside(WRITING) as rows:
            check_unused(rows, head, self.name)
            self._execute(rows, f"DROP TABLE {', '.join(TABLES)}")
            if self._made_schema:
                self._execute(rows, f"DROP SCHEMA {self.address.quoted_schema}")

    def open(self) -> None:
        """Raises also as `check_layout` does."""
        if self._connections is not None:
            raise Conflict(
                f"the gallery {self.name} is open already; make another PostgresStorage to open it once more"
            )
        connections = self._connected(), self._connected()
        try:
            with connections[0].transaction(READING) as rows:
                _warn_of_loss(rows, self.name)
        except BaseException:
            connections[0].close()
            raise
        self._connections, self._closed = connections, False

    def check_open(self) -> None:
        self._opened()

    def reading(self) -> AbstractContextManager[Rows]:
        return self._opened()[0].transaction(READING)

    def writing(self) -> AbstractContextManager[Rows]:
        return self._opened()[1].transaction(WRITING)

    def wait(self, seconds: float) -> None:
        """Hears of what anybody commits, through whatever connection."""
        self._opened()
        self._listener.wait(seconds)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        reader, writer = self._opened()
        with reader.lock, writer.lock:
            yield

    def scrub(self, traces: Sequence[bytes] | None = None) -> None:  # noqa: ARG002 - nobody can look for them there
        """Where the role may not vacuum, PostgreSQL does it by itself: within a minute, unless that is turned off."""
        try:
            self._vacuum()
            with self.writing() as rows:
                self._execute(rows, "UPDATE gallery SET owed = false")
        except SteadfaceError as error:
            log.warning("deleted, but not yet cleared from the tables, which the next change will do: %s", error)

    def backup(self, target: Path) -> None:
        with self.reading() as rows:
            SQLiteStorage(target).create(contents_of(rows))

    def grant(self, role: str, *, read_only: bool = False) -> None:
        """Lets a role of the server use the gallery, but for the log, to which it may only add. Raises as `roles.grant`
        does.
        """
        with self._outside(WRITING) as rows:
            grant(rows, self.address.schema, role, read_only=read_only)

    def migrate(self) -> int:
        """Brings the tables of an earlier layout forward, all at once or not at all, by one at a time; the layout that
        they had. Raises as `layout.bring_forward` does.
        """
        with self._outside(LOOKING) as rows:
            layout_there(rows.connection, self.address.schema, self.name)
        with self._outside(MIGRATING) as rows:
            return bring_forward(rows.connection, self.address.schema, self.name)

    def close(self) -> None:
        for connection in (*(self._connections or ()), self._listener):
            connection.close()
        self._closed, self._connections = self._closed or self._connections is not None, None

    def _opened(self) -> tuple[Connection, Connection]:
        if self._connections is None:
            how = "closed; open it again" if self._closed else "not opened; open it"
            raise Unavailable(f"the gallery {self.name} was {how} with Gallery.open")
        return self._connections

    def _connected(self) -> Connection:
        return Connection(self.address, timeout=self._timeout)

    @contextmanager
    def _outside(self, kind: Kind) -> Iterator[Rows]:
        """A transaction on a connection of its own, whether this is open or not."""
        with closing(self._connected()) as connection, connection.transaction(kind) as rows:
            yield rows

    def _vacuum(self) -> None:
        with self._opened()[1].outside_transactions() as connection:
            connection.execute(f"SET lock_timeout = {max(1, round(1000 * self._timeout))}")
            for table in CLEARED:
                connection.execute(f"VACUUM {self.address.quoted_schema}.{table}")
            connection.execute("RESET lock_timeout")

    @staticmethod
    def _execute(rows: Rows, statement: str) -> None:
        rows.connection.execute(statement)


def _warn_of_loss(rows: Rows, name: str) -> None:
    (fsync,) = rows.connection.execute("SELECT current_setting('fsync')").fetchone() or ("",)
    if fsync == "off":
        log.warning(
            "the server of %s does not wait for its disk (fsync = off): what is acknowledged may be lost, and more "
            "damaged, if its machine fails",
            name,
        )
