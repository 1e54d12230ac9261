"""The figures of an audit, as they stand in its record, made from outcomes and thresholds.

A pair is wrong at a radius where an attack found an error at that radius or a smaller one; one that is wrong before any
attack is wrong at every radius. The worst case is the union over the attacks that take part in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steadface.attacks import Ball
from steadface.audit.execution import Found
from steadface.audit_record import (
    AttackedRate,
    CleanIntervals,
    CleanRates,
    MedianDistance,
    PairOutcome,
    Queries,
    SingleAttack,
    WorstCase,
)
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.intervals import clopper_pearson, median_interval
from steadface.evaluation.series import Aim, Outcome

BEFORE = "no attack"
"""What broke a pair that is wrong before any attack."""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """All attacks on the n pairs of one goal: `clean` cosines (n,), what each attack found, and which of them count."""

    aim: Aim
    balls: tuple[Ball, ...]
    clean: NDArray[np.float32]
    found: Mapping[str, Found]
    worst: tuple[str, ...]
    radius: float  # the largest ball searched for distances

    @property
    def pairs(self) -> int:
        return len(self.clean)


def union(attacked: Attacked) -> Outcome:
    """The furthest of the attacks in the worst case at each radius."""
    outcomes = [attacked.found[name].outcome for name in attacked.worst]
    best = outcomes[0]
    for other in outcomes[1:]:
        further = np.fmax if attacked.aim.sign > 0 else np.fmin
        swap = attacked.aim.sign * other.cosine_8bit > attacked.aim.sign * best.cosine_8bit
        best = Outcome(
            cosine=further(best.cosine, other.cosine),
            cosine_8bit=further(best.cosine_8bit, other.cosine_8bit),
            own=further(best.own, other.own),
            images=np.where(swap[:, :, None, None, None], other.images, best.images),
        )
    return best


def first_broken(attacked: Attacked, outcome: Outcome) -> NDArray[np.int64]:
    """(n,) number of the smallest radius at which each pair is wrong; the number of radii where it holds at all."""
    broken = attacked.aim.broken(outcome.cosine)
    return np.where(broken.any(0), broken.argmax(0), len(broken))


def broken_by(attacked: Attacked, at: NDArray[np.int64]) -> list[str | None]:
    """For each pair the first attack, in the order in which they ran, that broke it at the radius number `at` (n,)."""
    names: list[str | None] = []
    for pair, number in enumerate(at.tolist()):
        if attacked.aim.broken(attacked.clean[pair]):
            names.append(BEFORE)
        elif number >= len(attacked.balls):
            names.append(None)
        else:
            cosines = ((name, attacked.found[name].outcome.cosine[number, pair]) for name in attacked.worst)
            names.append(next(name for name, cosine in cosines if attacked.aim.broken(cosine)))
    return names


def rates(name: str, attacked: Attacked, outcome: Outcome, calibration: Calibration) -> list[AttackedRate]:
    """One entry a radius at the threshold of `calibration`."""
    entries = []
    for number, ball in enumerate(attacked.balls):
        broken = attacked.aim.broken(outcome.cosine[number], calibration.threshold)
        saved = attacked.aim.broken(outcome.cosine_8bit[number], calibration.threshold)
        entries.append(
            AttackedRate(
                attack=name,
                norm=ball.norm,
                eps=float(ball.radius),
                goal=attacked.aim.goal,
                fmr=calibration.fmr,
                threshold=calibration.threshold,
                error_rate=float(broken.mean()),
                ci=clopper_pearson(int(broken.sum()), len(broken)),
                pairs=len(broken),
                error_rate_8bit=float(saved.mean()),
                cosine=float(outcome.cosine[number].mean(dtype=np.float64)),
            )
        )
    return entries


def worst_case(attacked: Attacked, outcome: Outcome, calibration: Calibration) -> list[WorstCase]:
    """The union at each radius, and at the main threshold which attack broke how many pairs first."""
    entries = rates("worst case", attacked, outcome, calibration)
    if calibration.threshold != attacked.aim.threshold:
        return [WorstCase(**dict(entry)) for entry in entries]
    at = first_broken(attacked, outcome)
    names = broken_by(attacked, at)
    told = []
    for number, entry in enumerate(entries):
        upto = [name for name, first in zip(names, at.tolist(), strict=True) if name is not None and first <= number]
        told.append(WorstCase(**dict(entry), by={name: upto.count(name) for name in dict.fromkeys(upto)}))
    return told


def single_attacks(attacked: Attacked, calibration: Calibration) -> list[SingleAttack]:
    """Every attack alone, at every radius."""
    entries = []
    for name, found in attacked.found.items():
        queries = found.queries
        used = None if queries is None else Queries(median=float(np.median(queries)), most=int(queries.max()))
        entries += [
            SingleAttack(**dict(entry), queries=used, part_of_worst_case=name in attacked.worst)
            for entry in rates(name, attacked, found.outcome, calibration)
        ]
    return entries


def clean_rates(dodged: Attacked, impersonated: Attacked, threshold: float) -> CleanRates:
    """FNMR and FMR on the attacked pairs before any attack."""
    missed = dodged.aim.broken(dodged.clean, threshold)
    accepted = impersonated.aim.broken(impersonated.clean, threshold)
    return CleanRates(
        fnmr=float(missed.mean()),
        fmr=float(accepted.mean()),
        ci=CleanIntervals(
            fnmr=clopper_pearson(int(missed.sum()), len(missed)),
            fmr=clopper_pearson(int(accepted.sum()), len(accepted)),
        ),
        genuine_pairs=len(missed),
        impostor_pairs=len(accepted),
        genuine_mean=float(dodged.clean.mean(dtype=np.float64)),
        impostor_mean=float(impersonated.clean.mean(dtype=np.float64)),
    )


def nearest(attacked: Attacked) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """(n,) the smallest distance that any attack found, and where none was found (censored at the radius searched).

    What an attack inside a fixed ball broke was no further than its radius, which can be nearer than what the
    minimum-norm search found. None where nothing looked for distances.
    """
    sought = [found for found in attacked.found.values() if found.distance is not None]
    if not sought:
        return None
    distance = np.full(attacked.pairs, attacked.radius)
    censored = np.ones(attacked.pairs, dtype=bool)
    for found in sought:
        assert found.distance is not None
        assert found.censored is not None
        nearer = ~found.censored & ((found.distance < distance) | censored)
        distance = np.where(nearer, found.distance, distance)
        censored &= found.censored
    at = np.min([first_broken(attacked, attacked.found[name].outcome) for name in attacked.worst], axis=0)
    inside = np.array([*(ball.radius for ball in attacked.balls), np.inf])[at]
    nearer = inside < distance
    return np.where(nearer, inside, distance), censored & ~np.isfinite(inside)


def distances(attacked: Attacked) -> MedianDistance | None:
    """The median of the smallest distances with its interval; censored pairs count as further than any other."""
    found = nearest(attacked)
    if found is None:
        return None
    distance, censored = found
    low, high = median_interval(np.where(censored, np.inf, distance))
    median = float(np.median(np.where(censored, np.inf, distance)))
    return MedianDistance(
        median=_finite(median),
        ci=(_finite(low), _finite(high)),
        pairs=attacked.pairs,
        censored=int(censored.sum()),
        radius=attacked.radius,
        already_wrong=int(attacked.aim.broken(attacked.clean).sum()),
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def pair_outcomes(
    attacked: Attacked, outcome: Outcome, names: Sequence[tuple[str, str]], saved: Mapping[int, tuple[str, bool]]
) -> list[PairOutcome]:
    """Every pair: what happened to it. `names` (n) are the two images', `saved` the file of a pair and its survival."""
    at = first_broken(attacked, outcome)
    by = broken_by(attacked, at)
    found = nearest(attacked)
    entries = []
    for pair, (first, second) in enumerate(names):
        held = at[pair] >= len(attacked.balls)
        png, survives = saved.get(pair, (None, None))
        entries.append(
            PairOutcome(
                goal=attacked.aim.goal,
                first=first,
                second=second,
                cosine=float(attacked.clean[pair]),
                attacked={
                    f"{ball.radius:.6g}": float(outcome.cosine[number, pair])
                    for number, ball in enumerate(attacked.balls)
                },
                broken_at=None if held else (0.0 if _wrong(attacked, pair) else attacked.balls[at[pair]].radius),
                broken_by=by[pair],
                distance=None if found is None or found[1][pair] else float(found[0][pair]),
                censored=None if found is None else bool(found[1][pair]),
                png=png,
                survives_png=survives,
            )
        )
    return entries


def _wrong(attacked: Attacked, pair: int) -> bool:
    return bool(attacked.aim.broken(attacked.clean[pair]))
