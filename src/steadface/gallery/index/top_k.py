"""The k best of every probe from estimates that are known to be right within a bound.

Let e be the estimate of a similarity s, and |s - e| <= d. Then the k-th best similarity is at least (k-th best e) - d,
and no row with e < (k-th best e) - 2 d can be among the k best. So a search reads cheap estimates of all rows, and
looks closely at the few rows that are left: the result is that of looking closely at all of them. Rows are read in
blocks; what earlier blocks have found raises the floor for later ones.

The k-th best estimate is itself bounded from below, without sorting: rows are dealt into groups, and the k-th best of
the groups' maxima is reached by at least k rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from steadface.gallery.index import Keys, no_matches
from steadface.gallery.index import Vectors as Floats

BLOCK = 2**19
"""Estimates held at a time, 2 MB: what is read again must still be in the cache."""

FEW = 64
"""Rows that are looked at closely sooner than it is found out which of them need it."""

GROUPS = 32
"""Groups per match asked for: so many that the best k rarely share one."""


class Reading(Protocol):
    """What one search, of B probes, reads of the rows."""

    def estimates(self, block: slice) -> tuple[Floats, Floats]:
        """Estimated similarities (n, B) of the rows of a block, and by how much (B,) they are wrong at most."""
        ...

    def similarities(self, rows: Keys, probes: Keys, estimates: Floats) -> Floats:
        """Those of `rows` (m,) with `probes` (m,), places both, whose estimates (m,) are known."""
        ...


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best found so far: `keys` (B, k), -1 where there are fewer, and `similarities` (B, k), descending, -inf
    there. Of equally similar rows the lower key comes first.
    """

    keys: Keys
    similarities: Floats

    @property
    def worst(self) -> Floats:
        """(B,) similarities that a row must reach to be among the best."""
        return self.similarities[:, -1]

    def merged(self, probes: Keys, keys: Keys, similarities: Floats) -> "Best":
        """With further finds (m,), each for one of the probes."""
        count, k = self.keys.shape
        owners = np.concatenate([np.repeat(np.arange(count), k), probes])
        keys = np.concatenate([self.keys.reshape(-1), keys])
        similarities = np.concatenate([self.similarities.reshape(-1), similarities])
        order = np.lexsort((keys, -similarities, owners))
        first = np.searchsorted(owners[order], np.arange(count))
        kept = order[first[:, None] + np.arange(k)]  # each probe owns k or more
        return Best(keys=keys[kept], similarities=similarities[kept])

    def joined(self, other: "Best") -> "Best":
        """The best of two scans of different rows for the same probes."""
        count, k = other.keys.shape
        return self.merged(np.repeat(np.arange(count), k), other.keys.reshape(-1), other.similarities.reshape(-1))


def scan(reading: Reading, keys: Keys, rows: range, probes: int, k: int) -> Best:
    """The k best of `rows` for each of the probes, B of them; `keys` are those of all rows."""
    nothing = no_matches(probes, k)
    best = Best(keys=nothing.keys, similarities=nothing.similarities)
    for block in _blocks(rows, max(1, BLOCK // probes)):
        best = _with_block(best, reading, keys, block)
    return best


def _with_block(best: Best, reading: Reading, keys: Keys, block: slice) -> Best:
    """First a close look at the rows with the best estimates, since they raise the floor for all others."""
    estimates, wrong = reading.estimates(block)
    probes, k = best.keys.shape
    likely = kth_largest(estimates, k)
    hits = np.flatnonzero(estimates >= np.maximum(best.worst, likely - wrong) - wrong)
    places, owners = np.divmod(hits, probes)
    places += block.start
    estimates = estimates.reshape(-1)[hits]
    first = estimates >= likely[owners] if len(hits) > FEW else np.ones(len(hits), dtype=np.bool_)
    best = _with_rows(best, reading, keys, places[first], owners[first], estimates[first])
    if first.all():
        return best
    rest = ~first & (estimates >= (best.worst - wrong)[owners])
    return _with_rows(best, reading, keys, places[rest], owners[rest], estimates[rest])


def _with_rows(best: Best, reading: Reading, keys: Keys, rows: Keys, probes: Keys, estimates: Floats) -> Best:
    if not len(rows):
        return best
    return best.merged(probes, keys[rows], reading.similarities(rows, probes, estimates))


def kth_largest(values: Floats, k: int) -> Floats:
    """(B,) numbers that at least k of the `values` (n, B) of each column reach, close to the k-th largest; -inf where
    n < k.
    """
    rows, columns = values.shape
    if rows < k:
        return np.full(columns, -np.inf, dtype=np.float32)
    groups = GROUPS * k
    if rows >= 2 * groups:
        each = rows // groups
        values = values[: each * groups].reshape(each, groups, columns).max(axis=0)
    place = len(values) - k
    largest: Floats = np.partition(values, place, axis=0)[place]
    return largest


def _blocks(rows: range, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))
