"""The results of an audit: what the attacks did by goal, the rates that follow, and what a reader must know first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steadface.audit import figures
from steadface.audit.figures import Attacked
from steadface.audit.patches import patch_cost
from steadface.audit.plan import Thresholds
from steadface.audit.session import Session
from steadface.audit_record import (
    GOALS,
    Audit,
    Check,
    CleanRates,
    CorruptionRate,
    IdentificationRates,
    Model,
    OtherThreshold,
    PairOutcome,
    PatchRate,
    Settings,
    Surface,
    ThresholdSource,
    WorstCase,
)
from steadface.data.pairs import doubled_pictures
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.embedding import unanswered, without_answer
from steadface.evaluation.series import Goal, Outcome
from steadface.recognizers import TRIED


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the attacks did, by goal: all of them, and their worst case."""

    attacked: Mapping[Goal, Attacked]
    unions: Mapping[Goal, Outcome]


def record(
    session: Session,
    levels: Thresholds,
    found: Results,
    *,
    checks: Sequence[Check],
    identification: IdentificationRates | None,
    corruptions: Sequence[CorruptionRate],
    patches: Sequence[PatchRate],
    surfaces: Sequence[Surface],
    pairs: Sequence[PairOutcome],
    seconds: float,
) -> Audit:
    """The record of an audit, but for versions and command, which those who write it know."""
    request, attacked = session.request, found.attacked
    source = levels.main.to_json() | ({} if session.plan.others is None else {"pairs": "given"})
    measured = {goal: figures.distances(attacked[goal]) for goal in GOALS}
    distances = {goal: distance for goal, distance in measured.items() if distance is not None}
    clean = _clean(found, levels.main)
    return Audit(
        title=f"Audit of {request.model.name}",
        kind="audit",
        model=Model.model_validate(request.model.to_json(), strict=False),
        fmr=levels.main.fmr,
        threshold=levels.main.threshold,
        calibration=ThresholdSource.model_validate(source),
        clean=clean,
        worst_case=_worst(found, levels.main),
        attacks=tuple(entry for goal in GOALS for entry in figures.single_attacks(attacked[goal], levels.main)),
        other_thresholds=tuple(
            OtherThreshold(
                fmr=one.fmr, threshold=one.threshold, clean=_clean(found, one), worst_case=_worst(found, one)
            )
            for one in levels.others
        ),
        median_distance={request.norm: {goal: distance.median for goal, distance in distances.items()}},
        distances={request.norm: distances},
        checks=tuple(checks),
        identification=identification,
        corruptions=tuple(corruptions),
        patches=tuple(patches),
        surfaces=tuple(surfaces),
        pairs=tuple(pairs),
        seconds=seconds,
        warnings=tuple(warnings(session, checks, clean, len(pairs))),
        settings=Settings.model_validate(request.settings(), strict=False),
    )


def _worst(found: Results, calibration: Calibration) -> tuple[WorstCase, ...]:
    by_goal = (figures.worst_case(found.attacked[goal], found.unions[goal], calibration) for goal in GOALS)
    return tuple(entry for entries in by_goal for entry in entries)


def _clean(found: Results, calibration: Calibration) -> CleanRates:
    return figures.clean_rates(found.attacked["dodging"], found.attacked["impersonation"], calibration.threshold)


def warnings(session: Session, checks: Sequence[Check], clean: CleanRates, pairs: int) -> list[str]:
    """What a reader must know before believing the figures."""
    found = [f"{check.name}: does not hold ({check.finding})" for check in checks if check.passed is False]
    if session.request.preset.name == "quick":
        found.insert(0, "this is a quick audit: it shows that everything works and supports no claim")
    for rate, word in ((clean.fnmr, "genuine"), (clean.fmr, "impostor")):
        if rate > 0.5:
            found.append(
                f"{rate:.0%} of the {word} pairs are wrong before any attack at this threshold; the rates under "
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
    images = session.plan.images()
    found += without_answer("pairs", int(unanswered(session.embeddings[images]).sum()), len(images))
    return [*found, *(note for note in session.request.model.notes if TRIED not in note)]
