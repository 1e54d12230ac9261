"""The top of an audit's page: in plain words what was tried, what an attacker reaches, what follows from it."""

import math
from collections.abc import Mapping

from steadface.audit_record import GOALS, Audit, Goal, WorstCase
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.checks import failed_checks
from steadface.report.audit.rates import Named, budget, clean_rate, rate_of, security
from steadface.report.audit.thresholds import clean_table
from steadface.report.html import escape
from steadface.report.tables import Cell, head_cells, name_cell, rate_cell, table
from steadface.report.text import NONE, count, decimal, listing, percent, radius, share

# From these shares of broken pairs on, at the smallest radius tried, a model counts as open to attack.
MANY, SOME = 0.5, 0.1
HOPELESS = 0.5

QUICK = "This was a quick run, made to try out that everything works: it supports no claim about the recogniser."


def summary(data: Audit) -> str:
    """The first section, which has no heading."""
    parts = [
        f'<p class="lead">{escape(opening(data))}</p>',
        html.box("Read with care", data.warnings),
        worst_table(data),
        clean_table([Named(name=data.model.name, data=data)]),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def opening(data: Audit) -> str:
    """The first paragraph, for a reader who knows nothing of the field."""
    return " ".join([_tried(data), _clean(data), *_attacked(data), meaning(data)])


def _tried(data: Audit) -> str:
    clean = data.clean
    odds = ""
    if data.fmr > 0:
        odds = f", the threshold at which it takes {odds_of(data.fmr)} pairs of different people for one"
    return (
        f"This audit tried to deceive the face recogniser “{data.model.name}” with {count(clean.genuine_pairs)} pairs "
        f"of pictures of one person and {count(clean.impostor_pairs)} pairs of different people. It accepts two "
        f"pictures as one person from a similarity of {decimal(data.threshold)}{odds}."
    )


def odds_of(rate: float) -> str:
    """A rare rate in (0, 1) as people say it: 0.01 is `1 in 100`."""
    inverse = 1 / rate
    if math.isclose(inverse, round(inverse), rel_tol=1e-3):
        return f"1 in {round(inverse):,}"
    return f"{share(rate, 1 if rate > 1e-3 else 3)} of"


def _clean(data: Audit) -> str:
    missed, accepted = (clean_rate(data, goal).rate for goal in GOALS)
    return (
        f"Left alone, it misses {counted(missed, 'pairs of one person')} and accepts "
        f"{counted(accepted, 'pairs of different people')}."
    )


def counted(rate: float, things: str) -> str:
    """`7 of 10 pairs (68.0 %)`, or `3 of 100 pairs` where that is the figure itself."""
    words = f"{of_ten(rate)} {things}".rstrip()
    exact = math.isclose(100 * rate, round(100 * rate), abs_tol=1e-6) and (" of 100" in words or rate in (0, 1))
    return words if exact else f"{words} ({share(rate)})"


def of_ten(rate: float) -> str:
    """A rate as people count: `none of the`, `1 of 100`, `7 of 10`, `all`; rounded, so the figure belongs beside it."""
    if rate <= 0:
        return "none of the"
    if rate >= 1:
        return "all"
    tenths = round(10 * rate)
    if 0 < tenths < 10 and abs(rate - tenths / 10) <= min(0.03, 0.15 * rate, 0.15 * (1 - rate)):
        return f"{tenths} of 10"
    hundredths = round(100 * rate)
    if hundredths == 0:
        return "fewer than 1 of 100"
    return f"{hundredths} of 100" if hundredths < 100 else "nearly all"


def _attacked(data: Audit) -> list[str]:
    """One sentence for the smallest radius and one for the largest."""
    curves = {goal: security(data, goal) for goal in GOALS}
    eps = sorted({e for curve in curves.values() for e in curve if e > 0})
    rates = [{goal: curve[e] for goal, curve in curves.items() if e in curve} for e in (eps[0], eps[-1])]
    return [_first(data, eps[0], rates[0])] + ([] if len(eps) == 1 else [_last(data, eps[-1], rates[1])])


def _first(data: Audit, eps: float, rates: Mapping[Goal, Rate]) -> str:
    facts = []
    if missed := rates.get("dodging"):
        after = ", who then is not recognised" if missed.rate > 0 else ""
        facts.append(f"refuse {counted(missed.rate, f'pairs of one person{after}')}")
    if accepted := rates.get("impersonation"):
        facts.append(f"accept {counted(accepted.rate, 'strangers as the person whom the attacker chose')}")
    return f"An attacker who {change(data, eps)} makes it {listing(facts)}."


def _last(data: Audit, eps: float, rates: Mapping[Goal, Rate]) -> str:
    missed, accepted = rates.get("dodging"), rates.get("impersonation")
    facts = [f"{counted(missed.rate, 'pairs')} refused"] if missed else []
    facts += [f"{counted(accepted.rate, 'strangers')} accepted"] if accepted else []
    norm = data.settings.norm
    if norm == "linf":
        return f"With up to {255 * eps:.3g} of 255, {share_of_range(255 * eps)}, that becomes {listing(facts)}."
    return f"At {norm} {radius(eps, norm)} that becomes {listing(facts)}."


def change(data: Audit, eps: float) -> str:
    """What a radius means for the picture: `changes no pixel by more than 2 of 255 grey levels, ...`."""
    norm, levels = data.settings.norm, 255 * eps
    if norm == "linf":
        return f"changes no pixel by more than {levels:.3g} of 255 grey levels, {share_of_range(levels)},"
    mean = levels / math.sqrt(3 * math.prod(data.model.image_size))
    return f"changes the pixels by {mean:.2g} of 255 grey levels in the root mean square (l2 {radius(eps, norm)})"


def share_of_range(levels: float) -> str:
    """So many of 255 grey levels as a part of what a pixel can be: `0.8 % of the way from black to white`."""
    return f"{share(levels / 255)} of the way from black to white"


def meaning(data: Audit) -> str:
    """What follows from the figures, and what speaks against them."""
    parts = [_resists(*_ends(data)), _hopeless(data), _doubted(data), QUICK if is_quick(data) else ""]
    return " ".join(part for part in parts if part)


def _ends(data: Audit) -> tuple[float, float]:
    """The worse goal's error at the smallest and at the largest radius of each."""
    curves = [[rate.rate for eps, rate in security(data, goal).items() if eps > 0] for goal in GOALS]
    return max(curve[0] for curve in curves), max(curve[-1] for curve in curves)


def _resists(first: float, last: float) -> str:
    if first >= MANY:
        return (
            "That means: it does not resist. Where people can hand in picture files of their own, its decisions must "
            "not be relied on without another safeguard."
        )
    if first >= SOME:
        return (
            "That means: it resists in part. An attacker with a few tries will get through; where people can hand in "
            "picture files of their own it needs another safeguard."
        )
    if last >= MANY:
        return (
            "That means: it withstands the smallest of these changes, but not the largest: whether that is enough "
            "depends on how closely somebody looks at the pictures that are handed in."
        )
    return "That means: it resisted most of what was tried, which is no proof that nothing better exists."


def _hopeless(data: Audit) -> str:
    if not any(clean_rate(data, goal).rate > HOPELESS for goal in GOALS):
        return ""
    return "As more than half of the pairs of one kind are decided wrongly without any attack, these rates say little."


def _doubted(data: Audit) -> str:
    failed = failed_checks(data)
    if not failed:
        return ""
    which = f"A check of the attacks themselves does not hold (“{failed[0]}”)"
    if len(failed) > 1:
        which = f"{len(failed)} checks of the attacks themselves do not hold"
    return f"{which}: the recogniser may resist less than the figures say."


def is_quick(data: Audit) -> bool:
    """Whether the preset supports no claim."""
    return data.settings.preset == "quick"


def worst_table(data: Audit) -> str:
    """The worst case by goal and radius, and which attack broke the pairs first."""
    groups = []
    for goal in GOALS:
        entries = [entry for entry in data.worst_case if entry.goal == goal]
        rows = [_worst_cells(data, entry) for entry in entries]
        rows[0].insert(0, name_cell(goal, rows=len(entries)))
        groups.append(rows)
    head = [*head_cells("goal", "radius", "clean, %", "attacked, %", "saved as PNG, %", "pairs")]
    head.append(Cell(text="broken first by (pairs)", head=True, style="word"))
    caption = "Worst case: share of pairs that any of the attacks broke"
    return table(head=[head], body=groups, caption=caption, style="whole")


def _worst_cells(data: Audit, entry: WorstCase) -> list[Cell]:
    told = ", ".join(f"{name} {pairs}" for name, pairs in entry.by.items() if pairs)
    return [
        Cell(text=budget(entry.norm, entry.eps)),
        rate_cell(clean_rate(data, entry.goal)),
        rate_cell(rate_of(entry)),
        Cell(text=percent(entry.error_rate_8bit)),
        Cell(text=count(entry.pairs)),
        Cell(text=told or NONE, style="word"),
    ]
