"""Thresholds to deploy: which similarity stands for which FMR, from clean images of labelled people, with intervals.

FMR(t) is the share of impostor pairs, all cross pairs of different people, whose similarity is >= t; FNMR(t) the share
of genuine pairs below it. Pairs that share a person depend on each other, so the intervals come from resampling people,
not pairs (Bolle, Ratha and Pankanti 2004, "Error analysis of pattern recognition systems: the subsets bootstrap"):
person p is drawn w_p times, and a pair of p and q then counts w_p w_q times.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import ceil
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from steadface import arguments
from steadface.arguments import number
from steadface.errors import InvalidInput, too_few
from steadface.evaluation.calibration import count_impostors
from steadface.evaluation.intervals import central
from steadface.evaluation.verification import pairs_needed, supports, threshold_at
from steadface.records import STRICT, Cosine, CosineInterval, Interval, Rate, Share, parsed

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

GRID: tuple[float, ...] = tuple(float(f"{digit}e-{power}") for power in range(2, 9) for digit in (10, 5, 2))
"""FMRs that are measured where there are pairs for them: 1e-1, 5e-2, 2e-2, 1e-2, ..."""

MOST_IMAGES = 4096
"""All cross pairs of so many images are 8.4 million."""

MOST_PER_PERSON = 30
"""Someone with hundreds of images would otherwise be in most of the pairs."""

BLOCK = 64
"""Rows of the matrix of similarities that are looked at together."""

TAIL = 2.5
"""How much more of the impostors' tail than the largest FMR needs is kept, since resampling changes who is in it."""


ROUNDING = 1e-5
"""How far beyond 1 the product of two unit vectors may come out in float32."""

MOST_POINTS, MOST_COUNTED = 100, 2**24
"""Points, and images or people, that a contract can speak of: a calibration measures 21 points of 4,096 images."""


def checked_threshold(threshold: float) -> float:
    """A cosine to compare similarities with. Raises `SteadfaceError` unless it is a number from -1 to 1."""
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) <= 1 + ROUNDING:  # so that NaN is refused too
        raise InvalidInput(
            f"the threshold {threshold!r:.40} is not a similarity: these are cosines, from -1 to 1; give e.g. 0.35, or "
            "ask for a false match rate instead"
        )
    return value


class NotMeasured(InvalidInput):
    """A rate was asked for at which the model was not calibrated."""

    http_status = 422


@dataclass(frozen=True, kw_only=True)
class DeployedPoint:
    """The threshold of an FMR and what it does to genuine pairs of single images, each with a 95 % interval.

    Raises `SteadfaceError` unless the threshold is a cosine and the FMR a rate.
    """

    __pydantic_config__ = STRICT

    fmr: Rate
    threshold: Cosine
    threshold_ci: CosineInterval
    fnmr: Share
    fnmr_ci: Interval

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)
        arguments.rate("FMR", self.fmr)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """`points` by falling FMR, and the people that they come from; what a model is deployed with.

    Raises `SteadfaceError` for thresholds that no model can have, see `least_threshold`.
    """

    __pydantic_config__ = STRICT

    points: Annotated[tuple[DeployedPoint, ...], Field(max_length=MOST_POINTS)]
    people: Annotated[int, Field(ge=2, le=MOST_COUNTED)]
    images: Annotated[int, Field(ge=3, le=MOST_COUNTED)]
    genuine_pairs: Annotated[int, Field(ge=1, le=MOST_COUNTED**2)]
    impostor_pairs: Annotated[int, Field(ge=1, le=MOST_COUNTED**2)]
    seed: Annotated[int, Field(ge=0, le=2**64)]

    def __post_init__(self) -> None:
        if not self.points:
            raise InvalidInput("the thresholds have no points")
        if any(
            after.fmr >= before.fmr or after.threshold < before.threshold for before, after in pairwise(self.points)
        ):
            raise InvalidInput("the thresholds are out of order: a lower FMR has a higher one")
        if self.people > self.images or self.genuine_pairs + self.impostor_pairs > self.images * (self.images - 1) // 2:
            raise InvalidInput(
                f"{self.images} images of {self.people} people do not make {self.genuine_pairs} genuine and "
                f"{self.impostor_pairs} impostor pairs"
            )
        for point in self.points:
            least = least_threshold(point.fmr, self.images, self.genuine_pairs, self.impostor_pairs)
            if point.threshold < least:
                raise InvalidInput(
                    f"the threshold {point.threshold:g} of FMR {point.fmr:g} is lower than any model's can be "
                    f"({least:.3f}), and would accept strangers"
                )

    @property
    def lowest_fmr(self) -> float:
        return self.points[-1].fmr

    def at(self, fmr: float) -> float:
        """The threshold of `fmr`, linear in log FMR between the measured points.

        Raises `SteadfaceError` for an FMR outside of what was measured, and says why it has no row.
        """
        rates = np.array([point.fmr for point in self.points])
        if not self.lowest_fmr * (1 - 1e-9) <= number("FMR", fmr) <= rates[0] * (1 + 1e-9):
            raise NotMeasured(
                f"FMR {fmr:g} lies outside of what this model is calibrated for, {self.lowest_fmr:g} to {rates[0]:g} "
                f"({self.people} people, {self.impostor_pairs} impostor pairs){self._why_no_row(fmr)}; ask for one of "
                f"{', '.join(f'{one:g}' for one in rates)}, or one between them"
            )
        heights = [point.threshold for point in self.points]
        return float(np.interp(-np.log(fmr), -np.log(rates), heights))

    def interval_at(self, fmr: float) -> tuple[float, float]:
        """The 95 % interval of the threshold `at` an FMR, its ends interpolated as that is. Raises as it does."""
        self.at(fmr)
        rates = -np.log([point.fmr for point in self.points])
        low, high = (
            np.interp(-np.log(fmr), rates, [point.threshold_ci[end] for point in self.points]) for end in (0, 1)
        )
        return float(low), float(high)

    def _why_no_row(self, fmr: float) -> str:
        if not 0 < fmr < self.lowest_fmr:
            return ""
        needed = pairs_needed(fmr)
        images = ceil(self.images * (needed / max(1, self.impostor_pairs)) ** 0.5)  # pairs grow with their square
        enough = (
            "more than any calibration takes" if images > MOST_IMAGES else f"about {images:,} images of more people"
        )
        return f", and {fmr:g} takes {needed:,} impostor pairs, {enough}"

    def rests_on_few_people(self, fmr: float) -> bool:
        """Whether there are too few pairs of people, of which each has many pairs of images, for that FMR."""
        return not supports(self.people * (self.people - 1) // 2, fmr)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Thresholds":
        """Raises `SteadfaceError`, which names the place, for what `to_json` did not make."""
        return parsed(cls, data)


def least_threshold(fmr: float, images: int, genuine: int, impostors: int) -> float:
    """The lowest that the threshold of `fmr` can be over all pairs of so many images, whatever the model.

    The sum of n unit vectors has a length, so the cosines of their pairs sum to -n/2 at least, of which G genuine ones
    take G at most; of the I impostors a share `fmr` lies at or above the threshold t, and no cosine is above 1:

        -(n/2 + G) <= I (fmr + (1 - fmr) t)
    """
    return -(fmr + (images / 2 + genuine) / impostors) / (1 - fmr) - ROUNDING * 100


@dataclass(frozen=True, kw_only=True)
class CrossPairs:
    """All pairs of images: `genuine` similarities with their person, `impostor` ones with the two images, in the order
    (0, 1), (0, 2), ..., (1, 2), ... of the readable images, of which `rows` says where they were.
    """

    genuine: NDArray[np.float32]
    genuine_owner: Indices
    impostor: NDArray[np.float32]
    first: NDArray[np.unsignedinteger[Any]]
    second: NDArray[np.unsignedinteger[Any]]
    rows: Indices
    owner: Indices
    """0, 1, ... of each image; `names` are the people's numbers."""
    names: Indices

    @classmethod
    def of(cls, embeddings: NDArray[np.float32], people: Indices) -> "CrossPairs":
        """Of unit `embeddings` (n, D) of `people` (n,); rows of NaN, unreadable images, are left out.

        4 bytes for each of n x n while it is made, 4 to 8 a pair afterwards: see `images_to_measure`.
        """
        rows = np.flatnonzero(np.isfinite(embeddings).all(1))
        names, owner = np.unique(people[rows], return_inverse=True)
        owner = owner.reshape(-1)
        small = np.min_scalar_type(len(rows))
        impostors = count_impostors(owner)
        impostor, (first, second) = np.empty(impostors, np.float32), np.empty((2, impostors), small)
        genuine, genuine_owner, filled = [np.empty(0, np.float32)], [np.empty(0, np.int64)], 0
        similarity = embeddings[rows] @ embeddings[rows].T
        for start in range(0, len(rows), BLOCK):
            part = similarity[start : start + BLOCK, start:]
            later = np.triu(np.ones(part.shape, dtype=bool), 1)
            same = owner[start : start + BLOCK, None] == owner[None, start:]
            one, _ = np.nonzero(later & same)
            genuine.append(part[later & same])
            genuine_owner.append(owner[start + one])
            one, other = np.nonzero(later & ~same)
            here = slice(filled, filled + len(one))
            impostor[here], first[here], second[here] = part[one, other], start + one, start + other
            filled += len(one)
        return cls(
            genuine=np.concatenate(genuine),
            genuine_owner=np.concatenate(genuine_owner),
            impostor=impostor,
            first=first,
            second=second,
            rows=rows,
            owner=owner,
            names=names,
        )

    def highest(self, count: int) -> Indices:
        """Which `count` impostor pairs are the most similar ones, these first; more where several are equal."""
        count = min(count, len(self.impostor))
        if not count:
            return np.empty(0, dtype=np.int64)
        place = len(self.impostor) - count
        tail = np.flatnonzero(self.impostor >= np.partition(self.impostor, place)[place])
        return tail[np.argsort(-self.impostor[tail], kind="stable")]

    def resampled_thresholds(self, weights: Indices, rates: Floats) -> Floats:
        """(R, F): where people count `weights` (R, C) times, the threshold of each of `rates` (F,)."""
        tail = self.highest(int(TAIL * rates[0] * len(self.impostor)) + 1)
        similarity = self.impostor[tail]
        one, other = self.owner[self.first[tail]], self.owner[self.second[tail]]
        each = np.bincount(self.owner)
        found = np.empty((len(weights), len(rates)))
        for row, weight in enumerate(weights):
            accepted = np.cumsum(weight[one] * weight[other])
            images = weight * each
            total = (images.sum() ** 2 - (images**2).sum()) / 2
            last = np.searchsorted(accepted, rates * total, side="right").clip(max=len(tail) - 1)
            found[row] = similarity[last]
        return found

    def refused(self, heights: Floats, weights: Indices) -> tuple[Floats, list[tuple[float, float]]]:
        """FNMR at each of `heights` (F,), and its interval."""
        people = weights.shape[1]
        below = [np.bincount(self.genuine_owner, self.genuine < height, people) for height in heights]
        missed, trials = np.stack(below, axis=1), np.bincount(self.genuine_owner, minlength=people)
        with np.errstate(invalid="ignore"):  # a resample may hold nobody who has two images
            resampled = (weights @ missed) / (weights @ trials)[:, None]
        return missed.sum(0) / trials.sum(), central(resampled)


def measure_thresholds(pairs: CrossPairs, *, seed: int = 0, resamples: int = 200) -> Thresholds:
    """Thresholds from all pairs of images of known people; `seed` resamples.

    Raises `SteadfaceError` where nobody has two images, or the impostor pairs are too few for any FMR.
    """
    rng = np.random.default_rng(seed)
    people, available = len(pairs.names), len(pairs.impostor)
    rates = np.array([fmr for fmr in GRID if supports(available, fmr)])
    if not len(rates):
        raise too_few(
            "impostor pairs",
            available,
            pairs_needed(GRID[0]),
            why=f"a threshold at FMR {GRID[0]:g}",
            there=f"{len(pairs.rows)} images of {people} people make",
            remedy="bring more people",
        )
    if not pairs.genuine.size:
        raise InvalidInput("nobody has two readable images, so nothing says how often people are refused")
    heights = np.array([threshold_at(pairs.impostor, fmr) for fmr in rates])
    weights = rng.multinomial(people, np.full(people, 1 / people), size=resamples)
    threshold_ci = central(pairs.resampled_thresholds(weights, rates))
    fnmr, fnmr_ci = pairs.refused(heights, weights)
    points = [
        DeployedPoint(
            fmr=float(rates[place]),
            threshold=float(heights[place]),
            threshold_ci=threshold_ci[place],
            fnmr=float(fnmr[place]),
            fnmr_ci=fnmr_ci[place],
        )
        for place in range(len(rates))
    ]
    return Thresholds(
        points=tuple(points),
        people=people,
        images=len(pairs.rows),
        genuine_pairs=int(pairs.genuine.size),
        impostor_pairs=available,
        seed=seed,
    )


def images_to_measure(people: Indices, *, seed: int = 0) -> Indices:
    """Which images of `people` (n,) to embed, ascending: drawn by `seed`, at most `MOST_PER_PERSON` of each person and
    `MOST_IMAGES` in all.
    """
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(len(people))
    order = mixed[np.argsort(people[mixed], kind="stable")]
    turn = np.arange(len(order)) - np.searchsorted(people[order], people[order])  # 0, 1, ... within a person
    kept = np.sort(order[turn < MOST_PER_PERSON])
    return kept if len(kept) <= MOST_IMAGES else np.sort(rng.choice(kept, MOST_IMAGES, replace=False))


def most_alike_strangers(pairs: CrossPairs, *, count: int = 10) -> list[tuple[int, int, float]]:
    """The most similar two images of each of the `count` most similar pairs of people: rows of both, and the cosine.

    Worth a look: one person under two names raises every threshold.
    """
    found: dict[tuple[int, int], tuple[int, int, float]] = {}
    for place in pairs.highest(count * MOST_PER_PERSON**2).tolist():
        one, other = int(pairs.first[place]), int(pairs.second[place])
        who = sorted((int(pairs.owner[one]), int(pairs.owner[other])))
        rows = int(pairs.rows[one]), int(pairs.rows[other])
        found.setdefault((who[0], who[1]), (*rows, float(pairs.impostor[place])))
        if len(found) == count:
            break
    return list(found.values())
