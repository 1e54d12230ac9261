"""An index kept in step with the truth, whoever changes it: this process, another thread, or another process.

Before a search SQLite is asked whether anybody wrote since (`PRAGMA data_version`, which costs microseconds). If so,
the numbers of templates, which only grow, tell what was added, and the log tells what was removed: work in proportion
to the changes. People whose consent has expired leave the index on the first search after it.
"""

import json
import sqlite3
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from steadface.gallery import journal, records
from steadface.gallery.index import VectorIndex
from steadface.gallery.people import Vectors
from steadface.gallery.vault import Vault, stamp

EXPIRED = "SELECT number FROM people WHERE expires <= ?"
NEXT_EXPIRY = "SELECT min(expires) FROM people WHERE expires > ?"

Found = list[tuple[int, float, int]]
"""Of one probe: number of the person, similarity, number of the template; most similar first."""


class Follower:
    """`index` as of the last `catch_up`. One thread at a time may catch up; any may search meanwhile."""

    def __init__(self, index: VectorIndex) -> None:
        self.index = index
        self._owners: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)  # of template numbers; 0: not in the index
        self._version: int | None = None
        self._sequence = 0
        self._template = 0
        self._next_expiry: str | None = None

    def catch_up(self, connection: sqlite3.Connection, vault: Vault, now: datetime) -> None:
        """Brings the index to the state that the connection's transaction sees, less who has expired by `now`."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            sequence = journal.last_sequence(connection)
            self._drop(self._removed(connection))
            self._add(connection, vault)
            self._drop_expired(connection, now)
            # Last, so that whatever fails above is done again by the next search.
            self._sequence, self._version = sequence, version
        elif self._next_expiry is not None and self._next_expiry <= stamp(now):
            self._drop_expired(connection, now)

    def search(self, probes: Vectors, k: int) -> list[Found]:
        """For each of the unit `probes` (B, D) the `k` most similar people, each with the best of their templates."""
        found: list[Found] = [[] for _ in probes]
        short, fetched = np.arange(len(probes)), k
        while len(short):
            matches = self.index.search(probes[short], fetched)
            for probe, keys, similarities in zip(short, matches.keys, matches.similarities, strict=True):
                found[probe] = self._distinct(keys, similarities)[:k]
            if fetched >= len(self.index):
                break
            # Where several of the templates belong to one person, more are asked for, until there are none.
            short = np.array([probe for probe in short if len(found[probe]) < k], dtype=np.int64)
            fetched = min(2 * fetched, len(self.index))
        return found

    def _distinct(self, keys: NDArray[np.int64], similarities: Vectors) -> Found:
        best: dict[int, tuple[int, float, int]] = {}
        known = (keys >= 0) & (keys < len(self._owners))  # a server's index may hold what is no longer here, or not yet
        keys, similarities = keys[known], similarities[known]
        owners = self._owners[keys]
        for key, owner, similarity in zip(keys.tolist(), owners.tolist(), similarities.tolist(), strict=True):
            if owner:
                best.setdefault(owner, (owner, similarity, key))
        return list(best.values())

    def _removed(self, connection: sqlite3.Connection) -> NDArray[np.int64]:
        """Numbers of the templates that the log says were removed since, of those that came before."""
        if not self._template:
            return np.empty(0, dtype=np.int64)
        rows = connection.execute(
            "SELECT details FROM journal WHERE sequence > ? AND event IN ('remove', 'expire', 're-embed')",
            (self._sequence,),
        )
        gone = [n for (details,) in rows for n in journal.numbers(json.loads(details).get("removed", []))]
        numbers = np.array(gone, dtype=np.int64)
        return numbers[numbers <= self._template]

    def _add(self, connection: sqlite3.Connection, vault: Vault) -> None:
        for block in records.templates_after(connection, vault, self._template):
            last = int(block.numbers[-1])
            while last >= len(self._owners):
                self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
            self._owners[block.numbers] = block.owners  # first: a search may find them at once
            self.index.add(block.numbers, block.vectors)
            self._template = last

    def _drop_expired(self, connection: sqlite3.Connection, now: datetime) -> None:
        expired = [number for (number,) in connection.execute(EXPIRED, (stamp(now),))]
        if expired:
            self._drop(np.flatnonzero(np.isin(self._owners, expired)))
        (self._next_expiry,) = connection.execute(NEXT_EXPIRY, (stamp(now),)).fetchone()

    def _drop(self, numbers: NDArray[np.int64]) -> None:
        there = numbers[self._owners[numbers] != 0]
        if len(there):
            self.index.remove(there)
            self._owners[there] = 0
