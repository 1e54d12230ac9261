"""An index, and the names that look alike, kept in step with the truth, no matter who changes it: this process, another
thread, or another process.

Before a search the storage is asked for the last entry of its log. If that is new, the numbers of templates, which only
grow, tell what was added, and the log tells what was removed: work in proportion to the changes. People whose consent
has expired leave the index on the first search after it.
"""

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import Shard
from steadface.gallery.index import VectorIndex, Vectors
from steadface.gallery.person import Person, skeletons
from steadface.gallery.sealing import log
from steadface.gallery.sealing.transaction import Reader
from steadface.gallery.sealing.vault import stamp

REMOVING = ("remove", "expire", "re-embed")
"""Events that name templates which are gone."""
NAMING = ("enroll", "rename")
"""Events after which somebody may have another name."""

FIRST = 1024
"""Templates there is room for at the start."""

Ranked = list[tuple[int, float, int]]
"""Of one probe: number of the person, similarity, number of the template; most similar first."""


class Searcher(Protocol):
    """What finds templates in a gallery. Any number of threads may use it."""

    def catch_up(self, reader: Reader) -> None:
        """From now on a search sees what is in the state that is read."""
        ...

    def search(self, probes: Vectors, k: int) -> list[Ranked]:
        """For each of the unit `probes` (B, D) the `k` most similar people, each with the best of their templates."""
        ...

    def close(self) -> None: ...


class Follower:
    """A `Searcher` in memory: `index`, with all templates or those of a `shard`, as of the last `catch_up`; threads
    that want to catch up wait for each other, and any may search.
    """

    def __init__(self, index: VectorIndex, shard: Shard | None = None) -> None:
        self.index, self._shard = index, shard
        self._owners = Owners()
        self._lock = Lock()  # a storage may be read by several threads at once
        self._sequence: int | None = None
        self._counted = False  # all that there were at first
        self._template = 0
        self._next_expiry: str | None = None

    def catch_up(self, reader: Reader) -> None:
        """Brings the index to the state that is read, less who has expired by then."""
        sequence = reader.last_sequence()
        with self._lock:
            if sequence != self._sequence:
                self._drop(self._removed(reader))
                self._add(reader)
                if not self._counted:
                    own = self._owners.count()
                    reader.check_count("templates", own if self._shard is None else reader.rows.count_templates())
                    self._counted = True
                self._drop_expired(reader)
                self._sequence = sequence  # last, so that whatever fails above is done again by the next search
            elif self._next_expiry is not None and self._next_expiry <= stamp(reader.now):
                self._drop_expired(reader)

    def search(self, probes: Vectors, k: int) -> list[Ranked]:
        """For each of the unit `probes` (B, D) the `k` most similar people, each with the best of their templates."""
        best: list[Ranked] = [[] for _ in probes]
        short, fetched = np.arange(len(probes)), min(k, max(1, len(self.index)))
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

    def close(self) -> None:
        """There is nothing to be closed."""

    def _distinct(self, keys: NDArray[np.int64], similarities: Vectors) -> Ranked:
        best: dict[int, tuple[int, float, int]] = {}
        owners = self._owners.of(keys)  # a server's index may hold what is no longer here, or not yet
        for key, owner, similarity in zip(keys.tolist(), owners.tolist(), similarities.tolist(), strict=True):
            if owner:
                best.setdefault(owner, (owner, similarity, key))
        return list(best.values())

    def _removed(self, reader: Reader) -> NDArray[np.int64]:
        """Numbers of the templates that the log says were removed since, of those that came before."""
        if not self._template:
            return np.empty(0, dtype=np.int64)
        entries = reader.entries(after=self._sequence or 0, events=REMOVING)
        numbers = np.array([number for entry in entries for number in log.named(entry, "removed")], dtype=np.int64)
        return numbers[numbers <= self._template]

    def _add(self, reader: Reader) -> None:
        for block in reader.templates(after=self._template, shard=self._shard):
            self._owners.add(block.numbers, block.owners)  # first: a search may find them at once
            self.index.add(block.numbers, block.vectors)
            self._template = int(block.numbers[-1])

    def _drop_expired(self, reader: Reader) -> None:
        now = stamp(reader.now)
        expired = self._owners.owning(row.number for row in reader.rows.people(expired_by=now))
        for person in reader.people(numbers=expired):  # as it was sealed: nobody is left out for an edited day
            self._drop(self._owners.templates_of(person.number))
        self._next_expiry = reader.rows.next_expiry(now)

    def _drop(self, numbers: NDArray[np.int64]) -> None:
        there = numbers[self._owners.of(numbers) != 0]
        if len(there):
            self.index.remove(there)
            self._owners.drop(there)


class Owners:
    """Whose each template in an index is, by the number of both; room is for as many as there are, whatever their
    numbers. One thread at a time changes it, and any may ask.
    """

    def __init__(self) -> None:
        empty = np.zeros(FIRST, dtype=np.int64)
        self._kept = empty, empty.copy(), 0
        """Numbers of templates, ascending, and of their owners (0: not in the index), as far as the third says."""

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The owner of each (n,), 0 where it has none."""
        templates, owners, count = self._kept
        if not count:
            return np.zeros(len(numbers), dtype=np.int64)
        places = np.minimum(np.searchsorted(templates[:count], numbers), count - 1)
        return np.where(templates[places] == numbers, owners[places], 0)

    def count(self) -> int:
        """How many templates have an owner."""
        _, owners, count = self._kept
        return int(np.count_nonzero(owners[:count]))

    def owning(self, people: Iterable[int]) -> list[int]:
        """Those of the people who own any."""
        _, owners, count = self._kept
        asked = np.fromiter(people, dtype=np.int64)
        return asked[np.isin(asked, owners[:count])].tolist() if len(asked) else []

    def templates_of(self, person: int) -> NDArray[np.int64]:
        templates, owners, count = self._kept
        own: NDArray[np.int64] = templates[:count][owners[:count] == person]
        return own

    def add(self, numbers: NDArray[np.int64], people: NDArray[np.int64]) -> None:
        """Ascending numbers; those that are there already get the owner anew, the others are above all of them."""
        templates, owners, count = self._kept
        known = int(np.searchsorted(numbers, templates[count - 1], side="right")) if count else 0
        owners[np.searchsorted(templates[:count], numbers[:known])] = people[:known]
        end = count + len(numbers) - known
        while end > len(templates):
            templates, owners = (np.concatenate([kept, np.zeros_like(kept)]) for kept in (templates, owners))
        templates[count:end], owners[count:end] = numbers[known:], people[known:]
        self._kept = templates, owners, end

    def drop(self, numbers: NDArray[np.int64]) -> None:
        """Of numbers that are there."""
        templates, owners, count = self._kept
        owners[np.searchsorted(templates[:count], numbers)] = 0


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
        sequence = reader.last_sequence()
        if sequence == self._sequence:
            return
        for person in self._new(reader):
            for skeleton in skeletons(person.name):
                self._ids.setdefault(skeleton, set()).add(person.id)
        self._sequence = sequence

    def _new(self, reader: Reader) -> Iterator[Person]:
        if self._sequence is None:
            return reader.people()
        entries = reader.entries(after=self._sequence, events=NAMING)
        return reader.people(ids={entry.person for entry in entries if entry.person is not None})
