"""What a search finds, and what an index is given: checked, so that no index has to think of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.errors import SteadfaceError

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


def no_matches(probes: int, k: int) -> Matches:
    """What a search of nothing finds."""
    return Matches(
        keys=np.full((probes, k), -1, dtype=np.int64), similarities=np.full((probes, k), -np.inf, dtype=np.float32)
    )


def checked_dimension(dimension: int) -> int:
    """Raises SteadfaceError unless >= 1."""
    if dimension < 1:
        raise SteadfaceError(f"a dimension of {dimension} is none; give the number of a template's coordinates")
    return dimension


def checked_count(count: int, name: str) -> int:
    """Raises SteadfaceError unless >= 1."""
    if count < 1:
        raise SteadfaceError(f"{name} is {count}; ask for 1 or more")
    return count


def checked_keys(keys: ArrayLike) -> Keys:
    """`keys` as (n,) int64; raises `SteadfaceError` unless whole numbers >= 0."""
    array = np.asarray(keys)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SteadfaceError(f"keys are {array.dtype} of shape {array.shape}; give whole numbers of shape (n,)")
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise SteadfaceError(f"key {array.min()} or {array.max()} is outside 0..2^63 - 1; -1 stands for nobody")
    return array.astype(np.int64)


def checked_vectors(vectors: ArrayLike, dimension: int) -> Vectors:
    """`vectors` as contiguous (n, D) float32; raises `SteadfaceError` unless finite, of dimension D and of length 1."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise SteadfaceError(
            f"vectors of shape {array.shape} do not fit an index of dimension {dimension}; give (n, {dimension}), from "
            "the model that the gallery was made with"
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", array, array))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))  # not > UNIT: NaN is wrong too
    if len(wrong):
        raise SteadfaceError(
            f"vector {wrong[0]} has length {lengths[wrong[0]]:.4g}; give finite vectors divided by their length"
        )
    return array


def checked_entries(keys: ArrayLike, vectors: ArrayLike, dimension: int) -> tuple[Keys, Vectors]:
    """Both checked, and as many of one as of the other, no key twice."""
    keys, vectors = checked_keys(keys), checked_vectors(vectors, dimension)
    if len(keys) != len(vectors):
        raise SteadfaceError(f"{len(keys)} keys for {len(vectors)} vectors; give one key per vector")
    if len(np.unique(keys)) < len(keys):
        raise SteadfaceError("a key is given twice in one call; give each template its own")
    return keys, vectors
