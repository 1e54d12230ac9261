"""An engine of the tests' own, in memory, that may fail, lag and lose what it was given."""

from copy import copy

import numpy as np

from steadface.errors import Unavailable
from steadface.gallery.index.exact import FlatIndex


class MemoryEngine(FlatIndex):
    """An `Engine`, for what several processes share; `failing` counts down to a write that fails half done."""

    name, most = "memory", 64

    def __init__(self, dimension):
        super().__init__(dimension, threads=1)
        self.kept, self.vectors, self.failing, self.writes = None, {}, None, []
        self.behind = 0

    def arrange(self):
        """There is nothing to be arranged."""

    def pending(self):
        return self.behind

    def close(self):
        """It stays."""

    def mark(self):
        return self.kept

    def put_mark(self, mark):
        self._count("mark")
        self.kept = mark

    def add(self, keys, vectors):
        half = len(keys) // 2
        self._put(keys[:half], vectors[:half])
        self._count("add")
        self._put(keys[half:], vectors[half:])

    def remove(self, keys):
        self._count("remove")
        super().remove(keys)
        self.vectors = {key: vector for key, vector in self.vectors.items() if key not in set(map(int, keys))}

    def within(self, first, last):
        keys = sorted(key for key in self.vectors if first <= key <= last)
        return np.array(keys, np.int64), self._stacked([self.vectors[key] for key in keys])

    def outside(self, last, most):
        return np.array([key for key in self.vectors if not 1 <= key <= last][:most], np.int64)

    def copy(self):
        """As it is now, to be put back."""
        return self.kept, copy(self.vectors)

    def put_back(self, earlier):
        self.kept = None
        super().remove(list(self.vectors))
        self.vectors = {}
        self._put(list(earlier[1]), self._stacked(list(earlier[1].values())))
        self.kept = earlier[0]

    def _stacked(self, vectors):
        return np.array(vectors, np.float32).reshape(-1, self.dimension)

    def _put(self, keys, vectors):
        super().add(keys, vectors)
        self.vectors |= dict(zip(map(int, keys), vectors, strict=True))

    def _count(self, what):
        self.writes.append(what)
        if self.failing is not None:
            self.failing -= 1
            if self.failing < 0:
                raise Unavailable("the engine in memory is gone")
