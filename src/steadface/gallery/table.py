"""Rows by key in a few growing arrays, without holes."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
Columns = Mapping[str, NDArray[np.generic]]
Scalar = TypeVar("Scalar", bound=np.generic)

FIRST = 1024
"""Rows there is room for at the start."""


class Table:
    """Columns of equal length, row i of each belonging to `keys[i]`.

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
        return sum(self[name].nbytes for name in self._columns) + self.keys.nbytes

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        """The rows of a column; a view, good until the table changes."""
        return self._columns[name][: self._rows]

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
        found = []
        for key in keys.tolist():
            if key not in places:
                places[key] = next(free)
            found.append(places[key])
        return np.array(found)

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
