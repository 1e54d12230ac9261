"""What the draws of a certification say: radii and bounds of every pair, shares of all, and some pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steadface.audit_record import GOALS, CleanIntervals, CleanRates, Model, ThresholdSource
from steadface.certificate_record import (
    Certificate,
    CertificateSettings,
    CertifiedShare,
    PairCertificate,
    SandwichFound,
)
from steadface.certification import sandwich, smoothing
from steadface.certification.request import TEMPLATE_DRAWS
from steadface.certification.sandwich import Sandwich
from steadface.certification.side import Side
from steadface.certification.verifier import levels_of
from steadface.certification.work import Work
from steadface.data.pairs import doubled_pictures
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import Goal
from steadface.recognizers import TRIED

POINTS = 101
"""Of the curve."""
SHOWN = 3
"""Pairs of each goal on the page."""

Sides = Mapping[Goal, Side]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A pair as pictures (H, W, 3) in [0, 1]: what is enrolled, what is certified, and that under noise."""

    goal: Goal
    enrolled: NDArray[np.float64]
    probe: NDArray[np.float64]
    noisy: NDArray[np.float64]
    cosine: float
    radius: float


def record(
    work: Work,
    calibration: Calibration,
    sides: Sides,
    found: Sandwich | None,
    *,
    statements: int,
    seconds: float,
    notes: list[str],
) -> Certificate:
    """The record, but for versions and command."""
    request, alpha = work.request, next(iter(sides.values())).alpha
    furthest = smoothing.furthest_radius(request.draws, sigma=request.sigma, alpha=alpha)
    return Certificate(
        title=f"Certificate of {request.model.name}",
        kind="certificate",
        model=Model.model_validate(request.model.to_json(), strict=False),
        threshold=calibration.threshold,
        calibration=ThresholdSource.model_validate(calibration.to_json()),
        smoothed=_smoothed(sides),
        statements=statements,
        alpha=alpha,
        furthest=furthest,
        certified=_certified(sides, (0.0, *request.radii)),
        curve=_certified(sides, np.linspace(0, furthest, POINTS).tolist()),
        sandwich=None if found is None else _sandwich(found, sides),
        pairs=tuple(pair for goal in GOALS for pair in _pairs(work, sides[goal], goal, found)),
        seconds=seconds,
        pairs_per_minute=work.pace.pairs_per_minute(request.draws + TEMPLATE_DRAWS),
        warnings=tuple(_warnings(work, sides, notes)),
        settings=CertificateSettings.model_validate(request.settings(), strict=False),
    )


def _certified(sides: Sides, radii: Sequence[float]) -> tuple[CertifiedShare, ...]:
    return tuple(_certified_within(sides[goal], goal, radius) for radius in radii for goal in GOALS)


def _certified_within(side: Side, goal: Goal, radius: float) -> CertifiedShare:
    held = int(np.count_nonzero(side.radii > radius))
    return CertifiedShare(
        goal=goal, radius=radius, share=held / len(side), ci=clopper_pearson(held, len(side)), pairs=len(side)
    )


def _smoothed(sides: Sides) -> CleanRates:
    """Errors of the smoothed verifier where nobody attacks it."""
    genuine, impostor = sides["dodging"], sides["impersonation"]
    refused, accepted = (int(np.count_nonzero(side.aim.broken(side.smoothed))) for side in (genuine, impostor))
    return CleanRates(
        fnmr=refused / len(genuine),
        fmr=accepted / len(impostor),
        ci=CleanIntervals(fnmr=clopper_pearson(refused, len(genuine)), fmr=clopper_pearson(accepted, len(impostor))),
        genuine_pairs=len(genuine),
        impostor_pairs=len(impostor),
        genuine_mean=float(genuine.smoothed.mean()),
        impostor_mean=float(impostor.smoothed.mean()),
    )


def _sandwich(found: Sandwich, sides: Sides) -> SandwichFound:
    distances = np.concatenate([found.distances[goal] for goal in GOALS])
    radii = np.concatenate([sides[goal].radii[found.rows[goal]] for goal in GOALS])
    reached = np.isfinite(distances)
    return SandwichFound(
        pairs=len(distances),
        broken=int(np.count_nonzero(reached)),
        checks=found.checks,
        draws=sandwich.CONFIRM_DRAWS,
        steps=sandwich.START_STEPS + sandwich.FOLLOW_STEPS,
        radius=sandwich.RADIUS,
        closest=float((distances[reached] / radii[reached]).min()) if reached.any() else None,
    )


def _pairs(work: Work, side: Side, goal: Goal, found: Sandwich | None) -> Iterator[PairCertificate]:
    pairs, distances = work.request.pairs, {}
    if found is not None:
        distances = dict(zip(found.rows[goal].tolist(), found.distances[goal].tolist(), strict=True))
    bounds = {f"{radius:g}": side.bounds(radius) for radius in work.request.radii}
    for row, pair in enumerate(side.chosen.tolist()):
        certified, distance = float(side.radii[row]), distances.get(row, np.inf)
        yield PairCertificate(
            goal=goal,
            first=pairs.faces.name(int(pairs.first[pair])),
            second=pairs.faces.name(int(pairs.second[pair])),
            cosine=float(side.smoothed[row]),
            right=int(side.right[row]),
            radius=certified if certified > 0 else None,
            bounds={radius: float(bound[row]) for radius, bound in bounds.items()},
            attacked=row in distances,
            distance=distance if np.isfinite(distance) else None,
        )


def _warnings(work: Work, sides: Sides, notes: list[str]) -> list[str]:
    """What a reader must know before believing the figures."""
    request, split, found = work.request, work.split, list(notes)
    for goal, word in (("dodging", "genuine"), ("impersonation", "impostor")):
        side = sides[goal]  # type: ignore[index]
        wrong = float(np.mean(side.aim.broken(side.smoothed)))
        if wrong > 0.5:
            found.append(
                f"{wrong:.0%} of the {word} pairs are decided wrongly under noise of sigma {request.sigma:g} before "
                "any attack: give a smaller --sigma, or harden the recogniser against noise"
            )
    lost = len(split.genuine) + len(split.impostor) - sum(map(len, sides.values()))
    if lost:
        found.append(f"{lost} of the drawn pairs have an image that cannot be read and were left out")
    found += doubled_pictures("pairs", request.pairs)
    return [*found, *(note for note in request.model.notes if TRIED not in note)]


def examples(work: Work, sides: Sides) -> list[Example]:
    """The first pairs of each goal as pictures."""
    pairs, verifier = work.request.pairs, work.verifier
    found = []
    for goal, side in sides.items():
        shown = side.chosen[:SHOWN]
        (probes, _), (enrolled, _) = work.read(pairs.first[shown]), work.read(pairs.second[shown])
        for row, levels in enumerate(levels_of(probes)):
            noisy = verifier.noisy(levels, 1, work.noise(f"shown {goal} {row}"))[0]
            found.append(
                Example(
                    goal=goal,
                    enrolled=enrolled[row] / 255,
                    probe=probes[row] / 255,
                    noisy=noisy.permute(1, 2, 0).double().numpy(),
                    cosine=float(side.smoothed[row]),
                    radius=float(side.radii[row]),
                )
            )
    return found
