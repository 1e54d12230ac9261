"""The results of an audit: what the attacks did by goal, the rates that follow, and what a reader must know first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steadface.audit import figures
from steadface.audit.checks import Check
from steadface.audit.figures import Attacked
from steadface.audit.patches import patch_cost
from steadface.audit.plan import Thresholds
from steadface.audit.session import GOALS, Session
from steadface.data.pairs import doubled_pictures
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.series import Goal, Outcome
from steadface.recognizers import TRIED


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the attacks did, by goal: all of them, and their worst case."""

    attacked: Mapping[Goal, Attacked]
    unions: Mapping[Goal, Outcome]


def rates(session: Session, levels: Thresholds, results: Results) -> dict[str, Any]:
    """Thresholds, error rates and distances."""
    request, attacked = session.request, results.attacked

    def worst(calibration: Calibration) -> list[dict[str, Any]]:
        return [
            entry for goal in GOALS for entry in figures.worst_case(attacked[goal], results.unions[goal], calibration)
        ]

    def clean(calibration: Calibration) -> dict[str, Any]:
        return figures.clean_rates(attacked["dodging"], attacked["impersonation"], calibration.threshold)

    found = {goal: figures.distances(attacked[goal]) for goal in GOALS}
    distances = {goal: distance for goal, distance in found.items() if distance is not None}
    return {
        "kind": "audit",
        "model": request.model.to_json(),
        "fmr": levels.main.fmr,
        "threshold": levels.main.threshold,
        "calibration": levels.main.to_json() | ({} if session.plan.others is None else {"pairs": "given"}),
        "clean": clean(levels.main),
        "worst_case": worst(levels.main),
        "attacks": [entry for goal in GOALS for entry in figures.single_attacks(attacked[goal], levels.main)],
        "other_thresholds": [
            {"fmr": other.fmr, "threshold": other.threshold, "clean": clean(other), "worst_case": worst(other)}
            for other in levels.others
        ],
        "median_distance": {request.norm: {goal: distance["median"] for goal, distance in distances.items()}},
        "distances": {request.norm: distances},
    }


def warnings(session: Session, checks: Sequence[Check], clean: Mapping[str, Any], pairs: int) -> list[str]:
    """What a reader must know before believing the figures."""
    found = [f"{check.name}: does not hold ({check.finding})" for check in checks if check.passed is False]
    if session.request.preset.name == "quick":
        found.insert(0, "this is a quick audit: it shows that everything works and supports no claim")
    for key, word in (("fnmr", "genuine"), ("fmr", "impostor")):
        if clean[key] > 0.5:
            found.append(
                f"{clean[key]:.0%} of the {word} pairs are wrong before any attack at this threshold; the rates under "
                "attack say little"
            )
    if not session.networks.surrogates:
        found.append("no surrogate was given (--surrogate), so no transfer attack was run")
    lost = len(session.plan.split.genuine) + len(session.plan.split.impostor) - pairs
    if lost:
        found.append(f"{lost} of the drawn pairs have an image that cannot be read and were left out")
    if session.request.detail and not patch_cost(session):
        found.append("no patches were tried: they need gradients, and faces of 112 x 112 or their 112 x 96 crop")
    if session.plan.remark:
        found.append(f"no 1:N part: {session.plan.remark}")
    found += doubled_pictures("pairs", session.plan.pairs)
    return [*found, *(note for note in session.request.model.notes if TRIED not in note)]
