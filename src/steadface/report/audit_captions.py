"""What stands below the audit's figures, and what is said in place of them to readers who do not see them."""

import math
from collections.abc import Mapping, Sequence

from steadface.report.arm import Rate
from steadface.report.audit_data import GOALS, Data, Named, distances, norm_of, records, smallest, word
from steadface.report.history import number
from steadface.report.text import SPACE, decimal, listing, power, radius, share


def half_broken(data: Data) -> str:
    """The median smallest distances in words; empty where none were sought."""
    told = []
    for goal in GOALS:
        found = distances(data, goal)
        if found is None:
            continue
        if math.isfinite(found.median):
            told.append(f"half of the pairs fall to {goal} within {distance(found.median, found.norm)}")
        else:
            within = f" within {distance(found.radius, found.norm)}" if math.isfinite(found.radius) else ""
            told.append(f"more than half of the pairs hold against {goal}{within}, so that its median is not known")
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def distance(value: float, norm: str) -> str:
    """A distance in the unit of the figures: grey levels for linf."""
    return f"{decimal(255 * value, 2)}{SPACE}of 255 grey levels" if norm == "linf" else f"{norm} {decimal(value, 2)}"


def curve_alt(name: str, curves: Mapping[str, Mapping[float, Rate]], norm: str) -> str:
    """Error curves by goal as a sentence, for readers who do not see the figure."""
    told = []
    for goal, curve in curves.items():
        points = [f"{share(rate.rate)} at {radius(eps, norm) if eps else 'no attack'}" for eps, rate in curve.items()]
        told += [f"{goal} {listing(points)}"] if points else []
    return f"{name}: {'; '.join(told) or 'not attacked'}."


def distance_alt(audits: Sequence[Named]) -> str:
    """The distributions' medians as sentences."""
    return " ".join(f"{audit.name}: {half_broken(audit.data) or 'no distances.'}" for audit in audits)


def corruption_note(data: Data) -> str:
    """The worst ordinary disturbance beside the attack; empty where there is none to compare."""
    entries = [e for e in records(data, "corruptions") if math.isfinite(number(e, "error_rate"))]
    told = []
    for goal in GOALS:
        mine = [entry for entry in entries if entry.get("goal") == goal]
        eps, attacked = smallest(data, goal)
        if not mine or not math.isfinite(eps):
            continue
        worst = max(mine, key=lambda entry: number(entry, "error_rate"))
        told.append(
            f"{goal} at {norm_of(data)} {radius(eps, norm_of(data))} causes {share(attacked.rate)} errors, the worst "
            f"disturbance ({word(worst, 'corruption')}, severity {word(worst, 'severity')}) "
            f"{share(number(worst, 'error_rate'))}"
        )
    return f"In figures: {'; '.join(told)}." if told else ""


def operating_point(data: Data) -> str:
    """`threshold 0.230, FMR 10⁻²`."""
    threshold, fmr = number(data, "threshold"), number(data, "fmr")
    told = [f"threshold {decimal(threshold)}"] if math.isfinite(threshold) else []
    return ", ".join([*told, *([f"FMR {power(fmr)}"] if fmr > 0 else [])])
