"""An index, and the names that look alike, kept in step with the truth, no matter who changes it: this process, another
thread, or another process.

Before a search the storage is asked for the last entry of its log. If that is new, the numbers of templates, which only
grow, tell what was added, and the log tells what was removed: work in proportion to the changes. People whose consent
has expired leave the index on the first search after it.
"""

from collections.abc import Iterator
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from steadface.gallery.index import VectorIndex, Vectors
from steadface.gallery.person import Person, skeletons
from steadface.gallery.sealing import log
from steadface.gallery.sealing.transaction import Reader
from steadface.gallery.sealing.vault import stamp

REMOVING = ("remove", "expire", "re-embed")
"""Events that name templates which are gone."""
NAMING = ("enroll", "rename")
"""Events after which somebody may have another name."""

Ranked = list[tuple[int, float, int]]
"""Of one probe: number of the person, similarity, number of the template; most similar first."""


class Follower:
    """`index` as of the last `catch_up`; threads that want to catch up wait for each other, and any may search."""

    def __init__(self, index: VectorIndex) -> None:
        self.index = index
        self._owners: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)  # of template numbers; 0: not in the index
        self._lock = Lock()  # a storage may be read by several threads at once
        self._sequence: int | None = None
        self._template = 0
        self._next_expiry: str | None = None

    def catch_up(self, reader: Reader) -> None:
        """Brings the index to the state that is read, less who has expired by then."""
        sequence = _last_sequence(reader)
        with self._lock:
            if sequence != self._sequence:
                self._drop(self._removed(reader))
                self._add(reader)
                self._drop_expired(reader)
                self._sequence = sequence  # last, so that whatever fails above is done again by the next search
            elif self._next_expiry is not None and self._next_expiry <= stamp(reader.now):
                self._drop_expired(reader)

    def search(self, probes: Vectors, k: int) -> list[Ranked]:
        """For each of the unit `probes` (B, D) the `k` most similar people, each with the best of their templates."""
        best: list[Ranked] = [[] for _ in probes]
        short, fetched = np.arange(len(probes)), k
        while len(short):
            matches = self.index.search(probes[short], fetched)
            for probe, keys, similarities in zip(short, matches.keys, matches.similarities, strict=True):
                best[probe] = self._distinct(keys, similarities)[:k]
            if fetched >= len(self.index):
                break
            # Where several of the templates belong to one person, more are asked for, until there are none.
            short = np.array([probe for probe in short if len(best[probe]) < k], dtype=np.int64)
            fetched = min(2 * fetched, len(self.index))
        return best

    def _distinct(self, keys: NDArray[np.int64], similarities: Vectors) -> Ranked:
        best: dict[int, tuple[int, float, int]] = {}
        known = (keys >= 0) & (keys < len(self._owners))  # a server's index may hold what is no longer here, or not yet
        keys, similarities = keys[known], similarities[known]
        owners = self._owners[keys]
        for key, owner, similarity in zip(keys.tolist(), owners.tolist(), similarities.tolist(), strict=True):
            if owner:
                best.setdefault(owner, (owner, similarity, key))
        return list(best.values())

    def _removed(self, reader: Reader) -> NDArray[np.int64]:
        """Numbers of the templates that the log says were removed since, of those that came before."""
        if not self._template:
            return np.empty(0, dtype=np.int64)
        entries = reader.rows.entries(after=self._sequence or 0, events=REMOVING)
        numbers = np.array([number for entry in entries for number in log.named(entry, "removed")], dtype=np.int64)
        return numbers[numbers <= self._template]

    def _add(self, reader: Reader) -> None:
        for block in reader.templates(after=self._template):
            last = int(block.numbers[-1])
            while last >= len(self._owners):
                self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
            self._owners[block.numbers] = block.owners  # first: a search may find them at once
            self.index.add(block.numbers, block.vectors)
            self._template = last

    def _drop_expired(self, reader: Reader) -> None:
        now = stamp(reader.now)
        if expired := [row.number for row in reader.rows.people(expired_by=now)]:
            self._drop(np.flatnonzero(np.isin(self._owners, expired)))
        self._next_expiry = reader.rows.next_expiry(now)

    def _drop(self, numbers: NDArray[np.int64]) -> None:
        there = numbers[self._owners[numbers] != 0]
        if len(there):
            self.index.remove(there)
            self._owners[there] = 0


class Names:
    """Who is enrolled by what their names look like: only names that are new are opened."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ids: dict[str, set[str]] = {}
        self._sequence: int | None = None

    def like(self, name: str, reader: Reader) -> list[str]:
        """The names of the people who are enrolled under another one that looks like `name`, in the state read."""
        own = skeletons(name)
        with self._lock:
            self._catch_up(reader)
            ids = {identity for skeleton in own for identity in self._ids.get(skeleton, ())}
        # Who went or changed their name since is still among them.
        return [one.name for one in reader.people(ids=ids) if one.name != name and own & skeletons(one.name)]

    def _catch_up(self, reader: Reader) -> None:
        sequence = _last_sequence(reader)
        if sequence == self._sequence:
            return
        for person in self._new(reader):
            for skeleton in skeletons(person.name):
                self._ids.setdefault(skeleton, set()).add(person.id)
        self._sequence = sequence

    def _new(self, reader: Reader) -> Iterator[Person]:
        if self._sequence is None:
            return reader.people()
        entries = reader.rows.entries(after=self._sequence, events=NAMING)
        return reader.people(ids={entry.person for entry in entries if entry.person is not None})


def _last_sequence(reader: Reader) -> int:
    last = reader.rows.last_entry()
    return 0 if last is None else last.sequence
