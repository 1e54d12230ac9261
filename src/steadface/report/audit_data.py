"""What the audit's pages read out of `audit.json`. Any key may be absent, any figure null: then NaN, or nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadface.report.arm import UNKNOWN, Goal, Rate, rate_of
from steadface.report.history import Floats, number

Data = Mapping[str, Any]
GOALS: tuple[Goal, Goal] = ("dodging", "impersonation")
WORST = "worst case"


@dataclass(frozen=True, kw_only=True)
class Named:
    """An audit under the name that its model has on the page."""

    name: str
    data: Data


@dataclass(frozen=True, kw_only=True)
class Distances:
    """The smallest distances that break the pairs of one goal.

    `found` (M,) rising, in the norm's own unit, 0 for pairs that are wrong already; `pairs` counts those that hold
    inside `radius`, the largest ball searched, too.
    """

    norm: str
    found: Floats
    pairs: int
    radius: float
    median: float
    low: float
    high: float


def block(data: Data, *keys: str) -> Data:
    """The mapping below `keys`, empty where there is none."""
    for key in keys:
        found = data.get(key)
        data = found if isinstance(found, Mapping) else {}
    return data


def records(data: Data, key: str) -> list[Data]:
    """The mappings in the list `key`, empty where there is none."""
    found = data.get(key)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list | tuple) else []


def texts(data: Data, key: str) -> list[str]:
    """The list `key` as texts."""
    found = data.get(key)
    return [str(entry) for entry in found if entry is not None] if isinstance(found, list | tuple) else []


def word(data: Data, key: str, otherwise: str = "") -> str:
    """The text `key`, `otherwise` where it is absent or null."""
    found = data.get(key)
    return otherwise if found is None else str(found)


def name_of(data: Data) -> str:
    """The model's name."""
    return word(block(data, "model"), "name", "the recogniser")


def norm_of(data: Data) -> str:
    """The norm that radii and distances are measured in."""
    entries = records(data, "worst_case") + records(data, "attacks")
    return word(block(data, "settings"), "norm", next((word(entry, "norm", "linf") for entry in entries), "linf"))


def clean_rate(data: Data, goal: str) -> Rate:
    """FNMR (dodging) or FMR (impersonation) of the attacked pairs before any attack."""
    clean, key = block(data, "clean"), "fnmr" if goal == "dodging" else "fmr"
    bounds = block(clean, "ci").get(key)
    return rate_of({"rate": clean.get(key), "ci": bounds}, "rate", "ci")


def security(data: Data, goal: str, attack: str = WORST) -> dict[float, Rate]:
    """eps -> error rate under `attack`, by rising eps, the clean rate at eps 0; empty where it was not run."""
    entries = records(data, "worst_case" if attack == WORST else "attacks")
    if attack != WORST:
        entries = [entry for entry in entries if word(entry, "attack") == attack]
    rates = {number(entry, "eps"): rate_of(entry, "error_rate", "ci") for entry in entries if entry.get("goal") == goal}
    rates = {eps: rate for eps, rate in sorted(rates.items()) if math.isfinite(eps + rate.rate)}
    clean = clean_rate(data, goal)
    return {0.0: clean, **rates} if rates and math.isfinite(clean.rate) else rates


def attack_names(data: Data) -> list[str]:
    """The attacks in the order in which they ran."""
    return list(dict.fromkeys(word(entry, "attack", "unnamed") for entry in records(data, "attacks")))


def radii(audits: Sequence[Named]) -> list[float]:
    """Every eps > 0 of a worst case or of an attack, rising."""
    entries = [e for audit in audits for key in ("worst_case", "attacks") for e in records(audit.data, key)]
    return sorted({eps for entry in entries if (eps := number(entry, "eps")) > 0 and math.isfinite(eps)})


def smallest(data: Data, goal: str) -> tuple[float, Rate]:
    """The smallest radius of the worst case, and the error there; NaN and unknown where there is none."""
    attacked = [(eps, rate) for eps, rate in security(data, goal).items() if eps > 0]
    return attacked[0] if attacked else (math.nan, UNKNOWN)


def distances(data: Data, goal: str) -> Distances | None:
    """None where no pair of the goal has a distance, or nothing looked for any."""
    norm = norm_of(data)
    summary = block(data, "distances", norm, goal)
    pairs = [pair for pair in records(data, "pairs") if pair.get("goal") == goal]
    found = np.sort(np.array([number(pair, "distance") for pair in pairs], dtype=np.float64))
    found = found[np.isfinite(found)]
    held = sum(pair.get("censored") is True for pair in pairs)
    if not len(found):
        return None
    median, ends = rate_of(summary, "median", "ci"), summary.get("ci")
    open_ended = isinstance(ends, list | tuple) and len(ends) == 2 and ends[1] is None
    return Distances(
        norm=norm,
        found=found,
        pairs=len(found) + held,
        radius=number(summary, "radius"),
        median=median.rate,
        low=median.low,
        high=math.inf if open_ended else median.high,
    )


def failed_checks(data: Data) -> list[str]:
    """The names of the masking checks that failed."""
    return [word(check, "name", "unnamed") for check in records(data, "checks") if check.get("passed") is False]
