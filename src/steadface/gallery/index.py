"""Search among enrolled templates: what every index offers, and the index that reads all of them.

The similarity of a probe q and a template x, unit vectors both, is their cosine q . x. A search returns the k most
similar templates of each probe, most similar first. `FlatIndex` looks at every template, so nothing is missed; what it
reads of a template is the encoding's affair (`steadface.gallery.encodings`), and with the default the answer is exact.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol

import numpy as np
from numkong import PackedMatrix
from numpy.typing import ArrayLike

from steadface.gallery.checks import (
    Matches,
    Vectors,
    checked_count,
    checked_dimension,
    checked_entries,
    checked_keys,
    checked_vectors,
    no_matches,
)
from steadface.gallery.encodings import Encoding, Exact
from steadface.gallery.locking import ReadersWriter
from steadface.gallery.scanning import Best, scan
from steadface.gallery.table import Table
from steadface.machine import usable_cores

__all__ = ["FlatIndex", "Matches", "VectorIndex"]

PROBES = 64
"""Probes that one pass over the templates serves; more only take more memory."""

WORTH_A_THREAD = 2**22
"""Bytes of codes below which waking a thread costs more than it saves."""


UNCHANGED = 50
"""Searches of one probe that packing the codes costs as much as, and that it is put off for."""


class VectorIndex(Protocol):
    """Unit vectors of D numbers by key, a whole number >= 0, and the search among them.

    Safe for several threads: a search sees each `add` and `remove` whole or not at all, and all that returned before it
    began. Vectors and keys that do not fit raise `SteadfaceError`, and nothing has changed then.
    """

    @property
    def dimension(self) -> int:
        """D."""
        ...

    def add(self, keys: ArrayLike, vectors: ArrayLike) -> None:
        """Puts unit `vectors` (n, D) under distinct `keys` (n,); a key that is there already gets the new vector."""
        ...

    def remove(self, keys: ArrayLike) -> None:
        """Takes out `keys` (n,); those that are not there are passed over."""
        ...

    def search(self, vectors: ArrayLike, k: int) -> Matches:
        """The k templates most similar to each of the unit `vectors` (B, D)."""
        ...

    def __len__(self) -> int: ...


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
        reading = self._encoding.read(self._table, probes, packed)
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

    def _settled(self) -> PackedMatrix | None:
        """The codes packed, when many searches have gone by without a change."""
        self._searched += 1
        if self._packed is None and self._searched > UNCHANGED:
            self._packed, self._searched = self._encoding.packed(self._table), 0
        return self._packed
