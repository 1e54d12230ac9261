"""Search among enrolled templates: what every index offers, and what it is given, checked once for all of them.

The similarity of a probe q and a template x, unit vectors both, is their cosine q . x. A search returns the k most
similar templates of each probe, most similar first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.errors import InvalidInput

Keys = NDArray[np.int64]
Vectors = NDArray[np.float32]

UNIT = 1e-3
"""How far from 1 the length of a vector may be: half precision on the way here costs about half of that."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The most similar templates of each probe: `keys` (B, k) int64, -1 where there are fewer than k, and their
    `similarities` (B, k) float32, descending, -inf there.
    """

    keys: Keys
    similarities: Vectors


class VectorIndex(Protocol):
    """Unit vectors of D numbers by key, a whole number >= 0, and the search among them.

    Safe for several threads: a search sees each `add` and `remove` whole or not at all, and all that returned before it
    began. Vectors and keys that do not fit raise `InvalidInput`, and nothing has changed then.
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


def no_matches(probes: int, k: int) -> Matches:
    """What a search of nothing finds."""
    return Matches(
        keys=np.full((probes, k), -1, dtype=np.int64), similarities=np.full((probes, k), -np.inf, dtype=np.float32)
    )


def checked_dimension(dimension: int) -> int:
    """Raises `InvalidInput` unless >= 1."""
    if dimension < 1:
        raise InvalidInput(f"the dimension is {dimension}; give the number of a template's coordinates")
    return dimension


def checked_count(count: int, name: str) -> int:
    """Raises `InvalidInput` unless >= 1."""
    if count < 1:
        raise InvalidInput(f"{name} is {count}; ask for 1 or more")
    return count


def checked_keys(keys: ArrayLike) -> Keys:
    """`keys` as (n,) int64; raises `InvalidInput` unless whole numbers >= 0."""
    array = np.asarray(keys)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidInput(f"keys are {array.dtype} of shape {array.shape}; give whole numbers of shape (n,)")
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise InvalidInput(f"key {array.min()} or {array.max()} is outside 0..2^63 - 1; -1 stands for nobody")
    return array.astype(np.int64)


def checked_vectors(vectors: ArrayLike, dimension: int) -> Vectors:
    """`vectors` as contiguous (n, D) float32; raises `InvalidInput` unless finite, of dimension D and of length 1."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise InvalidInput(
            f"vectors of shape {array.shape} do not fit an index of dimension {dimension}; give (n, {dimension}), from "
            "the model that the gallery was made with"
        )
    for place, length in odd_lengths(array):
        raise InvalidInput(f"vector {place} has length {length:.4g}; give finite vectors divided by their length")
    return array


def odd_lengths(vectors: Vectors) -> Iterator[tuple[int, float]]:
    """Of vectors (n, D) the places and lengths of those that are not of length 1."""
    with np.errstate(over="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    for place in np.flatnonzero(~(np.abs(lengths - 1) <= UNIT)).tolist():  # not > UNIT: NaN is wrong too
        yield place, float(lengths[place])


def checked_entries(keys: ArrayLike, vectors: ArrayLike, dimension: int) -> tuple[Keys, Vectors]:
    """Both checked, and as many of one as of the other, no key twice."""
    keys, vectors = checked_keys(keys), checked_vectors(vectors, dimension)
    if len(keys) != len(vectors):
        raise InvalidInput(f"{len(keys)} keys for {len(vectors)} vectors; give one key per vector")
    if len(np.unique(keys)) < len(keys):
        raise InvalidInput("a key is given twice in one call; give each template its own")
    return keys, vectors


class ReadersWriter:
    """Readers share it, a writer has it alone; while a writer waits no reader comes in, so that it is not starved.

    Not reentrant: who reads must neither write nor read again before leaving.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writing = False
        self._waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not (self._writing or self._waiting))
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not (self._writing or self._readers))
            finally:
                self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
