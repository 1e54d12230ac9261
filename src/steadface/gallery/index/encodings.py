"""What an index keeps of a template, and what a search reads of it.

Reading is what a search of one probe costs, so `Exact` reads a quarter: 8-bit codes. With x ~ a c, where c are whole
numbers in -127..127 and a = max|x_i| / 127, and likewise q ~ b d,

    q . x  =  a b (d . c)  +  (q - b d) . x  +  b d . (x - a c)

and by Cauchy and Schwarz the estimate a b (d . c) is wrong by at most |q - b d| |x| + |b d| |x - a c|. |x - a c| is
computed when a template is added and kept with it, |q - b d| for each probe; the product of the codes is exact, in
integers. Rows whose estimate does not settle the matter are looked at in full (`steadface.gallery.index.top_k`).

Codes that fit the processor's cache are read two to four times as fast in the order in which it multiplies them.
Packing them so costs as much as some fifty searches, so an index does it when it has not changed for a while.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from steadface.gallery.index import Keys
from steadface.gallery.index import Vectors as Floats
from steadface.gallery.index.top_k import Reading

if TYPE_CHECKING:
    from numkong import PackedMatrix

Codes = NDArray[np.int8]
Columns = Mapping[str, NDArray[np.generic]]
"""Of n rows each."""

LEVELS = 127
"""Codes reach from -127 to 127; -128 is left out for symmetry."""

ROUNDING = 4e-6
"""More than float32 arithmetic can add to the error of an estimate, which is about 1: some units of 6e-8."""

LONGEST = 1 + 1e-3
"""Of a vector that counts as one of length 1."""

IN_CACHE = 2**17
"""Numbers quantised at a time, which takes a tenth of the time of all at once."""

PAIRWISE_FROM = 256
"""Dimension from which one probe is faster row by row, which follows memory in order, than as a product of matrices."""

PACKED = 2**24
"""Bytes of codes up to which packed ones stay in the cache; beyond it memory is faster in its own order."""

CLOSELY = 2**20
"""Numbers looked at closely at a time, 4 MB."""


class Encoding(Protocol):
    """How templates (n, D) are kept in a table, and read."""

    def columns(self, dimension: int) -> Columns:
        """Columns of no rows."""
        ...

    def encode(self, vectors: Floats) -> Columns:
        """Rows for unit vectors (n, D)."""
        ...

    def packed(self, columns: Columns) -> "PackedMatrix | None":
        """What a search of one probe reads faster than the table, until that changes; None where nothing is."""
        ...

    def read(self, columns: Columns, probes: Floats, packed: "PackedMatrix | None" = None) -> Reading:
        """For a search of unit probes (B, D)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """Vectors (n, D) as `codes` (n, D) times `scales` (n,), which leaves `residuals` (n,), Euclidean lengths."""

    codes: Codes
    scales: Floats
    residuals: Floats


def quantise(vectors: Floats) -> Quantised:
    """Each row by its own largest coordinate, to the nearest code."""
    largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
    scales = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(LEVELS)
    codes, residuals = np.empty(vectors.shape, dtype=np.int8), np.empty(len(vectors), dtype=np.float32)
    step = max(1, IN_CACHE // vectors.shape[1])
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        whole = np.rint(vectors[part] / scales[part, None])
        codes[part] = whole
        left = vectors[part] - whole * scales[part, None]
        residuals[part] = np.sqrt(np.einsum("nd,nd->n", left, left))
    return Quantised(codes=codes, scales=scales, residuals=residuals)


@dataclass(frozen=True)
class Int8:
    """A quarter of the memory: codes alone, and estimates for similarities."""

    def columns(self, dimension: int) -> Columns:
        return {"codes": np.zeros((0, dimension), np.int8), "scales": np.zeros(0, np.float32)}

    def encode(self, vectors: Floats) -> Columns:
        quantised = quantise(vectors)
        return {"codes": quantised.codes, "scales": quantised.scales}

    def packed(self, columns: Columns) -> "PackedMatrix | None":
        return packed_codes(columns)

    def read(self, columns: Columns, probes: Floats, packed: "PackedMatrix | None" = None) -> Reading:
        return _Estimated(
            codes=cast(Codes, columns["codes"]),
            scales=cast(Floats, columns["scales"]),
            probes=quantise(probes),
            packed=packed,
        )


@dataclass(frozen=True)
class Half:
    """Half of the memory: IEEE half precision, and similarities of that."""

    def columns(self, dimension: int) -> Columns:
        return {"halves": np.zeros((0, dimension), np.float16)}

    def encode(self, vectors: Floats) -> Columns:
        return {"halves": vectors.astype(np.float16)}

    def packed(self, columns: Columns) -> "PackedMatrix | None":  # noqa: ARG002
        return None

    def read(self, columns: Columns, probes: Floats, packed: "PackedMatrix | None" = None) -> Reading:  # noqa: ARG002
        return _Halves(halves=cast("NDArray[np.float16]", columns["halves"]), probes=probes.astype(np.float16))


@dataclass(frozen=True)
class Exact:
    """All of a template, and its codes beside it."""

    def columns(self, dimension: int) -> Columns:
        return {
            "vectors": np.zeros((0, dimension), np.float32),
            "codes": np.zeros((0, dimension), np.int8),
            "scales": np.zeros(0, np.float32),
            "residuals": np.zeros(0, np.float32),
        }

    def encode(self, vectors: Floats) -> Columns:
        quantised = quantise(vectors)
        return {
            "vectors": vectors,
            "codes": quantised.codes,
            "scales": quantised.scales,
            "residuals": quantised.residuals,
        }

    def packed(self, columns: Columns) -> "PackedMatrix | None":
        return packed_codes(columns)

    def read(self, columns: Columns, probes: Floats, packed: "PackedMatrix | None" = None) -> Reading:
        return _Bounded(
            codes=cast(Codes, columns["codes"]),
            scales=cast(Floats, columns["scales"]),
            probes=quantise(probes),
            packed=packed,
            residuals=cast(Floats, columns["residuals"]),
            vectors=cast(Floats, columns["vectors"]),
            full=probes,
        )


@dataclass(frozen=True, kw_only=True)
class _Estimated:
    """Estimates are taken for similarities."""

    codes: Codes
    scales: Floats
    probes: Quantised
    packed: "PackedMatrix | None"

    def estimates(self, block: slice) -> tuple[Floats, Floats]:
        if self.packed is not None and block == slice(0, len(self.codes)):
            import numkong

            products = np.asarray(numkong.dots_packed(self.probes.codes, self.packed)).reshape(-1, 1)
        else:
            products = products_of_codes(self.codes[block], self.probes.codes)
        estimates = np.multiply(products, self.scales[block, None], dtype=np.float32, casting="unsafe")
        estimates *= self.probes.scales
        return estimates, np.zeros(len(self.probes.scales), dtype=np.float32)

    def similarities(self, rows: Keys, probes: Keys, estimates: Floats) -> Floats:  # noqa: ARG002
        return estimates


@dataclass(frozen=True, kw_only=True)
class _Bounded(_Estimated):
    """Estimates with their bound; similarities in double precision."""

    residuals: Floats
    vectors: Floats
    full: Floats

    def estimates(self, block: slice) -> tuple[Floats, Floats]:
        estimates, _ = super().estimates(block)
        left = self.probes.residuals
        wrong = left * LONGEST + (LONGEST + left) * self.residuals[block].max() + ROUNDING
        return estimates, wrong.astype(np.float32)

    def similarities(self, rows: Keys, probes: Keys, estimates: Floats) -> Floats:
        import numkong

        similarities = np.empty_like(estimates)
        step = max(1, CLOSELY // self.full.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            # Pair by pair, so that equal templates come out equal wherever they stand; numkong sums float32 in double.
            similarities[part] = numkong.dot(self.vectors.take(rows[part], 0), self.full.take(probes[part], 0))
        return similarities


@dataclass(frozen=True, kw_only=True)
class _Halves:
    halves: NDArray[np.float16]
    probes: NDArray[np.float16]

    def estimates(self, block: slice) -> tuple[Floats, Floats]:
        import numkong

        halves = self.halves[block]
        estimates = np.empty((len(halves), len(self.probes)), dtype=np.float32)
        numkong.cdist(halves, self.probes, "dot", out=estimates)
        return estimates, np.zeros(len(self.probes), dtype=np.float32)

    def similarities(self, rows: Keys, probes: Keys, estimates: Floats) -> Floats:  # noqa: ARG002
        return estimates


def packed_codes(columns: Columns) -> "PackedMatrix | None":
    import numkong

    codes = cast(Codes, columns["codes"])
    return numkong.dots_pack(codes) if 0 < codes.nbytes <= PACKED else None


def products_of_codes(codes: Codes, probes: Codes) -> NDArray[np.number[Any]]:
    """(n, B) dot products of `codes` (n, D) and `probes` (B, D).

    float32 asks numkong for the dot product of each pair, int32 for a product of matrices; up to D = 1040 both are
    exact, beyond it the former is rounded once.
    """
    import numkong

    pairwise = len(probes) == 1 and probes.shape[1] >= PAIRWISE_FROM
    products: NDArray[np.number[Any]] = np.empty((len(codes), len(probes)), dtype=np.float32 if pairwise else np.int32)
    numkong.cdist(codes, probes, "dot", out=products)
    return products
