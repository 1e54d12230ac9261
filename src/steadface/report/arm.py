"""One arm of a report: a training run and its evaluation, and the figures that are read out of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from steadface.report.history import Floats, History, number

Goal = Literal["dodging", "impersonation"]


class AttackExample(Protocol):
    """One attacked pair. Images (H, W, 3) RGB in [0, 1]; cosines are those of the attacked embedding.

    `reference` is what the source is compared with: for dodging another image of the same person, for
    impersonation an image of the target person.
    """

    @property
    def source(self) -> NDArray[Any]: ...
    @property
    def reference(self) -> NDArray[Any]: ...
    @property
    def adversarial(self) -> NDArray[Any]: ...
    @property
    def cosine_before(self) -> float: ...
    @property
    def cosine_after(self) -> float: ...
    @property
    def goal(self) -> str: ...
    @property
    def eps(self) -> float: ...
    @property
    def norm(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training run with its evaluation, under the name it has in the report.

    `evaluation` is what `steadface evaluate --json` writes; with `roc` ({"fmr": [...], "tar": [...]}) and `det`
    ({"fmr": [...], "fnmr": [...]}) in it the curves are drawn. Any key may be absent, any figure None or NaN.
    `duty_cycle` is the share of steps with an open gate, 0..1; `skipped` steps had a loss or gradient that was not
    finite. `candidates` is what the run chose its model from, as its `candidates.json` has it. None: not known, or
    nothing was trained.
    """

    name: str
    recipe: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    history: History | None = None
    seconds: float | None = None
    steps: int | None = None
    duty_cycle: float | None = None
    skipped: int = 0
    candidates: Mapping[str, Any] | None = None
    examples: Sequence[AttackExample] = ()

    def figure(self, key: str) -> float:
        """A single figure of the evaluation, NaN where there is none."""
        return number(self.evaluation, key)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """An error rate in 0..1 and its confidence interval; NaN where not known."""

    rate: float
    low: float = math.nan
    high: float = math.nan

    def overlaps(self, other: "Rate") -> bool:
        """Whether the two intervals share a value; True, the cautious answer, where either is not known."""
        return not (self.high < other.low or other.high < self.low)


@dataclass(frozen=True, order=True, kw_only=True)
class Setting:
    """What attacked error rates must share to stand in one panel."""

    norm: str
    fmr: float


UNKNOWN = Rate(rate=math.nan)


def rate_of(record: Mapping[str, Any], key: str, ci_key: str) -> Rate:
    """`record[key]` with the interval `record[ci_key]` = (low, high)."""
    ci = record.get(ci_key)
    pair = ci if isinstance(ci, Sequence | np.ndarray) and len(ci) == 2 else (math.nan, math.nan)
    bounds = {"low": pair[0], "high": pair[1]}
    return Rate(rate=number(record, key), low=number(bounds, "low"), high=number(bounds, "high"))


def entries(arm: Arm, key: str) -> list[Mapping[str, Any]]:
    """The list of records under `key` of the evaluation, empty where there is none."""
    found = arm.evaluation.get(key)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, Sequence) else []


def clean_fnmr(arm: Arm, fmr: float) -> Rate:
    """FNMR = 1 - TAR on clean pairs at the operating point `fmr`."""
    for point in entries(arm, "operating_points"):
        if math.isclose(number(point, "fmr"), fmr, rel_tol=1e-6):
            tar = rate_of(point, "tar", "tar_ci")
            return Rate(rate=1 - tar.rate, low=1 - tar.high, high=1 - tar.low)
    return UNKNOWN


def settings(arms: Iterable[Arm]) -> list[Setting]:
    """Every (norm, FMR) under which any arm was attacked, linf before l2, by falling FMR."""
    found = {
        Setting(norm=str(attack.get("norm")), fmr=number(attack, "fmr"))
        for arm in arms
        for attack in entries(arm, "attacks")
        if math.isfinite(number(attack, "fmr"))
    }
    return sorted(found, key=lambda setting: (setting.norm != "linf", setting.norm, -setting.fmr))


def attacked(arm: Arm, setting: Setting, goal: Goal) -> dict[float, Rate]:
    """eps -> error rate, by rising eps: the worst over the attacks tried; the clean rate at eps 0.

    The clean rate is that of the attacked pairs (`clean_error_rate`); where it is not given, FNMR at the setting's
    operating point for dodging, and the nominal FMR for impersonation.
    """
    rates: dict[float, Rate] = {}
    for attack in entries(arm, "attacks"):
        same = attack.get("norm") == setting.norm and number(attack, "fmr") == setting.fmr
        eps, rate = number(attack, "eps"), rate_of(attack, "error_rate", "ci")
        if not same or attack.get("goal") != goal or not math.isfinite(eps + rate.rate):
            continue
        if eps not in rates or rate.rate > rates[eps].rate:
            rates[eps] = rate
        clean = rate_of(attack, "clean_error_rate", "clean_ci")
        if math.isfinite(clean.rate):
            rates[0.0] = clean
    if rates and 0.0 not in rates:
        clean = clean_fnmr(arm, setting.fmr) if goal == "dodging" else Rate(rate=setting.fmr)
        rates |= {0.0: clean} if math.isfinite(clean.rate) else {}
    return dict(sorted(rates.items()))


def radii(arms: Iterable[Arm], setting: Setting) -> list[float]:
    """Every eps > 0 at which any arm was attacked under the setting, rising."""
    goals: tuple[Goal, Goal] = ("dodging", "impersonation")
    return sorted({eps for arm in arms for goal in goals for eps in attacked(arm, setting, goal) if eps > 0})


def supported_fmr(arm: Arm) -> float:
    """The lowest FMR that the number of impostor pairs supports; NaN where nothing tells.

    The evaluation's own `lowest_fmr`, else its lowest operating point, else the lowest FMR above 0 of its curves.
    """
    stated = arm.figure("lowest_fmr")
    if stated > 0:
        return stated
    points = [number(point, "fmr") for point in entries(arm, "operating_points")]
    points = [fmr for fmr in points if fmr > 0]
    points = points or [fmr for fmr in curve(arm, "det", "fnmr")[0].tolist() if fmr > 0]
    return min(points, default=math.nan)


def curve(arm: Arm, name: str, ordinate: str) -> tuple[Floats, Floats]:
    """The best `ordinate` of the curve `name` at every FMR, by rising FMR: two (P,), empty where there is none."""
    points = arm.evaluation.get(name)
    if not isinstance(points, Mapping) or "fmr" not in points or ordinate not in points:
        return np.empty(0), np.empty(0)
    x, y = (np.asarray(points[key], dtype=np.float64).ravel() for key in ("fmr", ordinate))
    if len(x) != len(y):
        return np.empty(0), np.empty(0)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    order = np.lexsort((y if ordinate == "tar" else -y, x))
    x, y = x[order], y[order]
    best = np.append(x[1:] != x[:-1], True)[: len(x)]  # thresholds that leave the FMR alone and lose TAR are no use
    return x[best], y[best]
