"""Search that looks at every template, so that nothing is missed.

What it reads of a template is the encoding's affair (`steadface.gallery.index.encodings`), and with the default the
answer is exact.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.gallery.index import (
    Keys,
    Matches,
    ReadersWriter,
    Vectors,
    checked_count,
    checked_dimension,
    checked_entries,
    checked_keys,
    checked_vectors,
    no_matches,
)
from steadface.gallery.index.encodings import Columns, Encoding, Exact
from steadface.gallery.index.top_k import Best, scan
from steadface.machine import usable_cores

if TYPE_CHECKING:
    from numkong import PackedMatrix

Scalar = TypeVar("Scalar", bound=np.generic)

FIRST = 1024
"""Rows there is room for at the start."""

PROBES = 64
"""Probes that one pass over the templates serves; more only take more memory."""

WORTH_A_THREAD = 2**22
"""Bytes of codes below which waking a thread costs more than it saves."""


UNCHANGED = 50
"""Searches of one probe that packing the codes costs as much as, and that it is put off for."""


class FlatIndex:
    """All templates in memory, all of them read by every search; a `VectorIndex`.

    With the encoding `Exact` the matches are those of dot products in double precision, rounded to float32, and of
    equally similar templates the lower key comes first. `Int8` and `Half` keep less of each template, and their
    similarities are those of what is left. Searches run side by side, on up to `threads` threads each (None: one per
    processor). An `add` or `remove` waits for those that run, and takes time in proportion to its own vectors; the
    first `remove` reads all keys besides.
    """

    def __init__(self, dimension: int, *, encoding: Encoding | None = None, threads: int | None = None) -> None:
        self.dimension = checked_dimension(dimension)
        self._encoding = encoding or Exact()
        self._threads = checked_count(threads or usable_cores(), "threads")
        self._table = Table(self._encoding.columns(dimension))
        self._lock = ReadersWriter()
        self._packed: PackedMatrix | None = None
        self._searched = 0  # since the last change; a count lost between threads does no harm
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="search")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes held for the templates that are there, without room to grow."""
        return self._table.nbytes

    def add(self, keys: ArrayLike, vectors: ArrayLike) -> None:
        keys, vectors = checked_entries(keys, vectors, self.dimension)
        rows = self._encoding.encode(vectors)
        with self._lock.writing():
            self._table.put(keys, rows)
            self._packed, self._searched = None, 0

    def remove(self, keys: ArrayLike) -> None:
        keys = checked_keys(keys)
        with self._lock.writing():
            self._table.drop(keys)
            self._packed, self._searched = None, 0

    def search(self, vectors: ArrayLike, k: int) -> Matches:
        probes, k = checked_vectors(vectors, self.dimension), checked_count(k, "k")
        with self._lock.reading():
            parts = [self._best(probes[start : start + PROBES], k) for start in range(0, len(probes), PROBES)]
        if not parts:
            return no_matches(0, k)
        return Matches(
            keys=np.concatenate([part.keys for part in parts]),
            similarities=np.concatenate([part.similarities for part in parts]),
        )

    def _best(self, probes: Vectors, k: int) -> Best:
        """Over equal shares of the rows, the first of them in the thread that asks."""
        packed = self._settled() if len(probes) == 1 else None
        reading = self._encoding.read(self._table.columns, probes, packed)
        rows, keys = len(self._table), self._table.keys
        shares = self._threads if packed is None and rows * self.dimension >= WORTH_A_THREAD else 1
        bounds = [rows * share // shares for share in range(shares + 1)]
        others = [
            self._pool.submit(scan, reading, keys, range(start, stop), len(probes), k)
            for start, stop in pairwise(bounds[1:])
        ]
        best = scan(reading, keys, range(bounds[0], bounds[1]), len(probes), k)
        for other in others:
            best = best.joined(other.result())
        return best

    def _settled(self) -> "PackedMatrix | None":
        """The codes packed, when many searches have gone by without a change."""
        self._searched += 1
        if self._packed is None and self._searched > UNCHANGED:
            self._packed, self._searched = self._encoding.packed(self._table.columns), 0
        return self._packed


class Table:
    """Rows by key in a few growing arrays, without holes: row i of each column belongs to `keys[i]`.

    Room doubles when it runs out, and the last row moves into the place of one that goes, so that both cost time in
    proportion to the rows given. What goes is overwritten. `columns`, of no rows, say what a row looks like.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = {name: np.zeros((FIRST, *column.shape[1:]), column.dtype) for name, column in columns.items()}
        self._keys = np.zeros(FIRST, dtype=np.int64)
        self._rows = 0
        self._highest = -1
        # Key -> row. Keys that only ever grow need none, and for a million it takes as much memory as their codes.
        self._places: dict[int, int] | None = None

    def __len__(self) -> int:
        return self._rows

    @property
    def keys(self) -> Keys:
        return self._keys[: self._rows]

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values()) + self.keys.nbytes

    @property
    def columns(self) -> Columns:
        """The rows of each column; views, good until the table changes."""
        return {name: column[: self._rows] for name, column in self._columns.items()}

    def put(self, keys: Keys, rows: Columns) -> None:
        """Writes `rows` under distinct `keys` (n,), over those that are there already."""
        if not len(keys):
            return
        end = self._rows + len(keys)
        self._grow(end)  # before anything else, in case that memory runs out
        places: Keys | slice = slice(self._rows, end)
        if self._places is not None or keys.min() <= self._highest:
            places = self._assigned(keys)
            end = max(self._rows, int(places.max()) + 1)
        self._keys[places] = keys
        for name, column in self._columns.items():
            column[places] = rows[name]
        self._rows = end
        self._highest = max(self._highest, int(keys.max()))

    def drop(self, keys: Keys) -> None:
        """Takes out those of `keys` that are there."""
        if not len(keys):
            return
        places = self._by_key()
        for key in keys.tolist():
            place = places.pop(key, None)
            if place is not None:
                self._move_last_to(place, places)

    def _move_last_to(self, place: int, places: dict[int, int]) -> None:
        last = self._rows - 1
        if place != last:
            places[int(self._keys[last])] = place
        for column in (*self._columns.values(), self._keys):
            column[place] = column[last]
            column[last] = 0
        self._rows = last

    def _assigned(self, keys: Keys) -> Keys:
        """The rows (n,) that keys have, or get at the end."""
        places = self._by_key()
        free = iter(range(self._rows, self._rows + len(keys)))
        rows = []
        for key in keys.tolist():
            if key not in places:
                places[key] = next(free)
            rows.append(places[key])
        return np.array(rows)

    def _by_key(self) -> dict[int, int]:
        if self._places is None:
            self._places = dict(zip(self.keys.tolist(), range(self._rows), strict=True))
        return self._places

    def _grow(self, rows: int) -> None:
        if rows <= len(self._keys):
            return
        room = max(rows, 2 * len(self._keys))
        for name, column in self._columns.items():  # one by one, so that only one of them is there twice
            self._columns[name] = _longer(column, room)
        self._keys = _longer(self._keys, room)


def _longer(column: NDArray[Scalar], rows: int) -> NDArray[Scalar]:
    grown = np.zeros((rows, *column.shape[1:]), dtype=column.dtype)  # pages that nobody touches take no memory
    grown[: len(column)] = column
    return grown
