"""1:N search from embeddings alone: a gallery, where probes stand in it, and the threshold of an FPIR.

Words after ISO/IEC 19795-1 and NIST FRTE 1:N. A gallery holds one unit template of each enrolled person. A mated probe
shows somebody enrolled, a non-mated probe a stranger. A search returns the person most similar to the probe, the
candidate at rank 1, if that similarity >= threshold t; the closed set knows no strangers and no threshold.

    FPIR(t)           share of strangers' probes for which anybody is returned
    FNIR(t)           share of mated probes for which not the own person is returned (rank 1; else among the first R)
    rank-1 miss       FNIR(-inf)
    targeted FPIR(t)  share of strangers' adversarial probes for which the person they designate is returned
    targeted rank 1   the same at t = -inf

People who are equally similar are ranked against the recogniser, whichever of them that is: an embedding to which all
faces look alike identifies nobody. Searches run in blocks of probes, so that memory does not grow with their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from steadface.errors import InvalidInput, too_few
from steadface.evaluation.verification import RULE_OF_THREE, supports, threshold_at

Embeddings = NDArray[np.float32]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

BLOCK = 2**22
"""Similarities held at a time, 17 MB."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Unit `templates` (G, D) of `people` (G,), ascending and each there once."""

    templates: Embeddings
    people: Indices

    def places(self, people: Indices) -> Indices:
        """(n,) rows of the templates of `people` (n,), who must be enrolled."""
        places = np.searchsorted(self.people, people).clip(max=len(self.people) - 1)
        if not np.array_equal(self.people[places], people):
            raise ValueError("a probe designates somebody who is not enrolled")
        return places


def enrol(embeddings: Embeddings, people: Indices) -> Gallery:
    """The gallery of unit `embeddings` (n, D) of `people` (n,): of several images of one person, the normalised mean.

    Rows of NaN, unreadable images, are left out. Raises `SteadfaceError` where nobody remains.
    """
    readable = np.isfinite(embeddings[:, 0])
    if not readable.any():
        raise InvalidInput(f"none of the {len(embeddings)} images of the gallery can be read; look at the files")
    known, place = np.unique(people[readable], return_inverse=True)
    sums = np.zeros((len(known), embeddings.shape[1]), dtype=np.float32)
    np.add.at(sums, place.reshape(-1), embeddings[readable])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return Gallery(templates=sums / np.maximum(lengths, np.finfo(np.float32).tiny), people=known)


def highest_similarities(gallery: Gallery, probes: Embeddings) -> NDArray[np.float32]:
    """(n,) similarity of each of the unit `probes` (n, D) to the candidate at rank 1."""
    highest = np.empty(len(probes), dtype=np.float32)
    for part in _blocks(len(probes), len(gallery.people)):
        highest[part] = (probes[part] @ gallery.templates.T).max(1)
    return highest


def threshold_at_fpir(highest: NDArray[np.float32], fpir: float) -> float:
    """The smallest threshold whose share of strangers, of `highest` similarity (n,), at or above it is within `fpir`.

    Raises `SteadfaceError` unless 0 < fpir < 1 and the strangers are enough for it by the rule of three.
    """
    check_fpir(fpir)
    if not supports(len(highest), fpir):
        raise shortage(fpir, len(highest))
    return threshold_at(highest, fpir)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the person that each probe designates stands: their `similarity` (n,), and how many other people are more
    similar, `ahead` (n,), or exactly as similar, `level` (n,).
    """

    similarity: NDArray[np.float32]
    ahead: Indices
    level: Indices


def search(gallery: Gallery, probes: Embeddings, people: Indices) -> Standing:
    """Searches unit `probes` (n, D) that designate `people` (n,): their own person, or the one they impersonate.

    Raises ValueError for people who are not enrolled.
    """
    places, number = gallery.places(people), len(probes)
    similarity = np.empty(number, dtype=np.float32)
    ahead, level = np.empty(number, dtype=np.int64), np.empty(number, dtype=np.int64)
    for part in _blocks(number, len(gallery.people)):
        cosines = probes[part] @ gallery.templates.T
        own = np.take_along_axis(cosines, places[part, None], axis=1)
        similarity[part] = own[:, 0]
        ahead[part] = np.count_nonzero(cosines > own, axis=1)
        level[part] = np.count_nonzero(cosines == own, axis=1) - 1
    return Standing(similarity=similarity, ahead=ahead, level=level)


def missed(standing: Standing, threshold: float = -inf, *, rank: int | None = 1) -> Mask:
    """(n,) mated probes whose person is not among the first `rank` candidates (None: any number) at the threshold."""
    refused: Mask = standing.similarity < threshold
    return refused if rank is None else refused | (standing.ahead + standing.level >= rank)


def taken_for(standing: Standing, threshold: float = -inf) -> Mask:
    """(n,) probes for which the designated person is the candidate at rank 1, at or above the threshold."""
    taken: Mask = (standing.similarity >= threshold) & (standing.ahead == 0)
    return taken


def check_fpir(fpir: float) -> None:
    """Raises `SteadfaceError` unless 0 < fpir < 1."""
    if not 0 < fpir < 1:
        raise InvalidInput(f"FPIR {fpir} is not a rate between 0 and 1; ask for e.g. 1e-2")


def strangers_needed(fpir: float) -> int:
    """The fewest strangers that speak of that FPIR, by the rule of three."""
    return ceil(RULE_OF_THREE / fpir - 1e-9)


def shortage(fpir: float, strangers: int) -> InvalidInput:
    """That so few strangers do not support `fpir`, and what to do."""
    possible = f"ask for an FPIR of {RULE_OF_THREE / strangers:.2g} or more, or " if strangers > RULE_OF_THREE else ""
    return too_few(
        "strangers, people who are neither attacked nor enrolled",
        strangers,
        strangers_needed(fpir),
        why=f"1:N at FPIR {fpir:g}",
        remedy=f"{possible}bring more people",
    )


def _blocks(probes: int, gallery: int) -> Iterator[slice]:
    rows = max(1, BLOCK // gallery)
    return (slice(start, start + rows) for start in range(0, probes, rows))
