"""Approximate search on a navigable graph (HNSW), by usearch.

Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs, IEEE TPAMI 2020. A search walks from template to similar template and looks at some thousands of them instead
of all: faster on large galleries, at the price of a recall below 1, which depends on how the templates lie. Clusters
of one person's faces are kind to it; random directions, of which none is much nearer to a probe than any other, are
the worst case. Measure it on your own templates before you rely on it (`benchmarks/search_speed.py` shows how).
"""

import numpy as np
from numpy.typing import ArrayLike

from steadface.gallery.index import (
    Keys,
    Matches,
    ReadersWriter,
    checked_count,
    checked_dimension,
    checked_entries,
    checked_keys,
    checked_vectors,
    no_matches,
)


class ApproximateIndex:
    """A `VectorIndex` that may miss. The paper's M, efConstruction and ef are `connectivity`, `expansion_add` and
    `expansion_search`: more is better, slower and, the first, larger.

    An `add` takes time in proportion to its vectors and the logarithm of what is there, far more than a `FlatIndex`
    needs. What is removed is not found again, but stays in memory until another template takes its place.
    """

    def __init__(
        self,
        dimension: int,
        *,
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion_search: int = 128,
        threads: int | None = None,
    ) -> None:
        from usearch.index import Index, MetricKind

        self.dimension = checked_dimension(dimension)
        self._threads = 0 if threads is None else checked_count(threads, "threads")  # 0: usearch takes all processors
        self._lock = ReadersWriter()
        self._index = Index(
            ndim=dimension,
            metric=MetricKind.IP,
            dtype="f32",
            connectivity=checked_count(connectivity, "connectivity"),
            expansion_add=checked_count(expansion_add, "expansion_add"),
            expansion_search=checked_count(expansion_search, "expansion_search"),
        )

    def __len__(self) -> int:
        return len(self._index)

    def add(self, keys: ArrayLike, vectors: ArrayLike) -> None:
        keys, vectors = checked_entries(keys, vectors, self.dimension)
        with self._lock.writing():
            self._drop(keys)
            if len(keys):
                self._index.add(keys.astype(np.uint64), vectors, threads=self._threads)

    def remove(self, keys: ArrayLike) -> None:
        keys = checked_keys(keys)
        with self._lock.writing():
            self._drop(keys)

    def search(self, vectors: ArrayLike, k: int) -> Matches:
        probes, k = checked_vectors(vectors, self.dimension), checked_count(k, "k")
        with self._lock.reading():
            if not len(probes) or not len(self._index):
                return no_matches(len(probes), k)
            hits = self._index.search(probes, k, threads=self._threads)
        matches = no_matches(len(probes), k)
        # Of one probe usearch gives what it has, of several k places each, and how many of them are filled.
        filled = np.arange(k) < (np.array([[len(hits)]]) if len(probes) == 1 else hits.counts[:, None])
        chosen = slice(None) if len(probes) == 1 else filled
        matches.keys[filled] = hits.keys[chosen]
        matches.similarities[filled] = np.float32(1) - hits.distances[chosen]  # from 1 - q . x
        return matches

    def _drop(self, keys: Keys) -> None:
        if not len(keys) or not len(self._index):
            return
        unsigned = np.unique(keys).astype(np.uint64)
        there = unsigned[self._index.contains(unsigned)]
        if len(there):
            self._index.remove(there)
