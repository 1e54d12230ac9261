"""One connection to the server of a gallery: transactions, and what it means when the server does not answer.

Readers see one state throughout (`REPEATABLE READ`) and wait for nobody. Writers take their turn at a lock on the
table `gallery`, taken before anything is looked at, so that the log is one chain whoever writes, and what a writer has
seen is what there is. Whoever changes rows by other means at that moment makes a transaction fail instead of mixing
with it, and whoever falls silent loses the turn.

A connection that was lost is made anew by the next transaction. Where it is lost within one, nothing of that was
written. Where no answer comes to the `COMMIT`, the log tells: its entries are chained by keyed hashes, so that the last
one of the transaction is there if and only if the transaction is. That is asked in a transaction which waits for the
lost one to end and writes itself, so that standbys that are waited for have both.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from steadface.errors import SteadfaceError, Unavailable
from steadface.gallery.storage import Entry
from steadface.gallery.storage.postgres.address import Address
from steadface.gallery.storage.postgres.layout import check_layout, check_server
from steadface.gallery.storage.postgres.refusals import AGAIN, explained
from steadface.gallery.storage.postgres.rows import STATE, Rows


@dataclass(frozen=True)
class Kind:
    """Of a transaction: whether it writes, whether it takes the writers' lock, and whether it trusts the tables only
    after a look at them, once for each connection.
    """

    writes: bool = False
    locks: bool = False
    looks: bool = False


READING, WRITING = Kind(looks=True), Kind(writes=True, locks=True, looks=True)
LOOKING, MAKING = Kind(), Kind(writes=True)
"""Where there may be no tables yet."""
MIGRATING = Kind(writes=True, locks=True)
"""Where there may be those of an earlier layout."""
WAIT = 0.2
"""Seconds between attempts to reach a server."""
SILENCE = 60.0
"""Seconds that a writer may say nothing until the server gives the turn to the next: one that stands still, or can no
longer be reached, would keep everybody else from writing. Who changes very much has to compute for a while in between.
"""


class Connection:
    """For one thread at a time: transactions wait for `lock`. `timeout` is how long, in seconds, a writer waits for
    others, and how long a lost server is looked for where that matters.
    """

    def __init__(self, address: Address, *, timeout: float) -> None:
        self.address, self._timeout = address, timeout
        self.lock = threading.RLock()
        self._kept: psycopg.Connection[Any] | None = None
        self._looked_at: psycopg.Connection[Any] | None = None
        self._warned, self._closed = False, False

    @contextmanager
    def transaction(self, kind: Kind) -> Iterator[Rows]:
        """One state throughout; what is written is on the server's disk once this returns."""
        with self.lock, explained(self.address.name):
            if self._closed:
                raise Unavailable(f"the gallery {self.address.name} was closed; open it again with Gallery.open")
            rows = self._begun(kind)
            try:
                if kind.looks:
                    self._look_at(rows.connection)
                yield rows
                rows.flush()
            except BaseException:
                self._give_up(rows.connection)
                raise
            if not self._end(rows.connection, tell=rows.appended is not None) and kind.writes:
                self._find_out(rows.appended)

    @contextmanager
    def outside_transactions(self) -> Iterator["psycopg.Connection[Any]"]:
        """PostgreSQL's connection, for what needs none."""
        with self.lock, explained(self.address.name):
            with self.transaction(READING):
                pass
            yield self._connected()

    def close(self) -> None:
        with self.lock:
            self._closed = True
            if self._kept is not None:
                self._kept.close()

    def _begun(self, kind: Kind) -> Rows:
        kept = self._kept is not None
        connection = self._connected()
        try:
            return self._begin(connection, kind)
        except psycopg.Error:
            if not kept or not connection.closed:
                raise
        return self._begin(self._connected(), kind)  # the server may have been restarted since it was last asked

    def _begin(self, connection: "psycopg.Connection[Any]", kind: Kind) -> Rows:
        """One message, so that a turn at the writers' lock costs no more than one, with what every use asks first."""
        rows = Rows(connection, self.address.name)
        known = kind.looks and self._looked_at is connection
        try:
            answers = connection.execute("; ".join([*self._beginning(kind), *([STATE] if known else [])]))
            while answers.nextset():
                pass
            if known:
                rows.know(answers.fetchall())
        except BaseException:
            self._give_up(connection)
            raise
        return rows

    def _beginning(self, kind: Kind) -> list[str]:
        off = "current_setting('synchronous_commit') = 'off'"
        return [
            f"BEGIN ISOLATION LEVEL REPEATABLE READ{'' if kind.writes else ', READ ONLY'}",
            f"SET LOCAL search_path = {self.address.quoted_schema}, pg_temp",  # behind pg_catalog, always the first
            "SET LOCAL row_security = off",  # where rows would be left out that is an error
            f"SET LOCAL lock_timeout = {max(1, round(1000 * self._timeout))}",
            *(self._turn() if kind.locks else []),
            *([f"SELECT set_config('synchronous_commit', 'on', true) WHERE {off}"] if kind.writes else []),
        ]

    @staticmethod
    def _turn() -> list[str]:
        return [
            f"SET LOCAL idle_in_transaction_session_timeout = {round(1000 * SILENCE)}",
            "LOCK TABLE gallery IN EXCLUSIVE MODE",
        ]

    def _connected(self) -> "psycopg.Connection[Any]":
        if self._kept is not None and not self._kept.closed:
            return self._kept
        made = self.address.connected()
        try:
            check_server(made, self.address.name)
            # A client that is gone is noticed there, too: it may hold the writers' lock.
            made.execute("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3")
        except BaseException:
            made.close()
            raise
        made.add_notice_handler(self._notice)
        self._kept = made
        return made

    def _look_at(self, connection: "psycopg.Connection[Any]") -> None:
        if self._looked_at is not connection:
            check_layout(connection, self.address.schema, self.address.name)
            self._looked_at = connection

    def _notice(self, said: errors.Diagnostic) -> None:
        self._warned = self._warned or said.severity_nonlocalized == "WARNING"

    def _give_up(self, connection: "psycopg.Connection[Any]") -> None:
        """Nothing of the transaction is kept, nor the connection where it is not known what goes on there."""
        if not connection.closed and connection.info.transaction_status != TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()

    def _end(self, connection: "psycopg.Connection[Any]", *, tell: bool = False) -> bool:
        """Whether it is known that the transaction was committed, of which to `tell` those who listen."""
        self._warned = False
        try:
            answers = connection.execute(f"NOTIFY {self.address.channel}; COMMIT" if tell else "COMMIT")
            while answers.nextset():
                pass
            answer = answers.statusmessage
        except BaseException as error:
            lost = connection.closed
            connection.close()
            if lost and isinstance(error, psycopg.Error):
                return False
            raise
        if answer == "ROLLBACK":  # its answer where a statement had failed
            raise Unavailable(f"the gallery {self.address.name} refused a part of the change; {AGAIN}")
        return not self._warned  # as it does where it stopped waiting for a standby

    def _find_out(self, last: Entry | None) -> None:
        """Raises `Unavailable` where the transaction whose last entry of the log this is was not committed, or where
        that remains unknown.
        """
        unknown = Unavailable(
            f"the gallery {self.address.name} was cut off while a change was committed, and whether it was made is not "
            f"known; look whether its log has entry {'of that moment' if last is None else last.sequence} "
            "(`steadface gallery info`) before you ask for it again"
        )
        if last is None:
            raise unknown
        try:
            written = self._is_written(last)
        except (psycopg.Error, SteadfaceError) as error:
            raise unknown from error
        if not written:
            raise Unavailable(f"the gallery {self.address.name} was cut off while a change was committed; {AGAIN}")

    def _is_written(self, last: Entry) -> bool:
        try:
            connection = self._reached().connection
        except errors.UndefinedTable:  # a gallery was to be made
            return False
        try:
            (there,) = connection.execute(
                "SELECT count(*) FROM journal WHERE sequence = %s AND hash = %s", (last.sequence, last.hash)
            ).fetchall()
            connection.execute("UPDATE gallery SET owed = owed")
        except BaseException:
            self._give_up(connection)
            raise
        if not self._end(connection):
            raise Unavailable(f"the gallery {self.address.name} was cut off once more")
        return bool(there[0])

    def _reached(self) -> Rows:
        """At the writers' lock, behind the transaction that was lost; tried until the time is up."""
        until = time.monotonic() + self._timeout
        while True:
            try:
                return self._begun(WRITING)
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(WAIT)
