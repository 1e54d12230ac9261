"""What several sections of an audit's page read out of its record: error rates by goal and radius, and their names."""

from dataclasses import dataclass
from typing import assert_never

from steadface.audit_record import AttackedRate, Audit, CorruptionRate, Goal, OtherThreshold, PatchRate, WorstCase
from steadface.report.arm import Rate
from steadface.report.text import SPACE, radius

WORST = "worst case"
ERRORS = {"dodging": "refused pairs of one person, FNMR (%)", "impersonation": "accepted strangers, FMR (%)"}


@dataclass(frozen=True, kw_only=True)
class Named:
    """An audit under the name that its model has on the page."""

    name: str
    data: Audit


def rate_of(entry: AttackedRate | CorruptionRate | PatchRate) -> Rate:
    """The error rate of an entry with its interval."""
    return Rate(rate=entry.error_rate, low=entry.ci[0], high=entry.ci[1])


def clean_rate(data: Audit | OtherThreshold, goal: Goal) -> Rate:
    """FNMR (dodging) or FMR (impersonation) of the attacked pairs before any attack."""
    clean = data.clean
    match goal:
        case "dodging":
            return Rate(rate=clean.fnmr, low=clean.ci.fnmr[0], high=clean.ci.fnmr[1])
        case "impersonation":
            return Rate(rate=clean.fmr, low=clean.ci.fmr[0], high=clean.ci.fmr[1])
        case _:
            assert_never(goal)


def security(data: Audit, goal: Goal, attack: str = WORST) -> dict[float, Rate]:
    """eps -> error rate under `attack`, by rising eps, the clean rate at eps 0; empty where it was not run."""
    entries: list[AttackedRate] = (
        [*data.worst_case] if attack == WORST else [e for e in data.attacks if e.attack == attack]
    )
    rates = {entry.eps: rate_of(entry) for entry in sorted(entries, key=lambda e: e.eps) if entry.goal == goal}
    return {0.0: clean_rate(data, goal), **rates} if rates else {}


def smallest(data: Audit, goal: Goal) -> WorstCase:
    """The worst case at the smallest radius."""
    return min((entry for entry in data.worst_case if entry.goal == goal), key=lambda entry: entry.eps)


def budget(norm: str, eps: float) -> str:
    """`linf 4/255`."""
    return f"{norm}{SPACE}{radius(eps, norm)}"
