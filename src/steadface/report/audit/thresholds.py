"""Operating points: what each model does with clean pairs, and the worst case at the other thresholds."""

import math
from collections.abc import Sequence

from steadface.audit_record import GOALS, Audit, Goal, OtherThreshold
from steadface.report.arm import Rate
from steadface.report.audit.rates import Named, clean_rate, rate_of
from steadface.report.tables import Cell, head_cells, name_cell, rate_cell, table
from steadface.report.text import count, decimal, power, radius


def clean_table(audits: Sequence[Named]) -> str:
    """The operating point of each model and what it does with clean pairs."""
    titles = ("model", "threshold", "FMR aimed at", "FMR measured", "FNMR, %", "FMR, %", "genuine", "impostor")
    groups = [
        name_cell(""),
        Cell(text="calibration", columns=3, head=True, style="group"),
        Cell(text="clean pairs of this audit", columns=2, head=True, style="group"),
        Cell(text="mean cosine", columns=2, head=True, style="group"),
    ]
    body = [[_clean_row(audit.name, audit.data)] for audit in audits]
    caption = "Operating point, and errors without an attack"
    return table(head=[groups, head_cells(*titles)], body=body, caption=caption, style="whole")


def _clean_row(name: str, data: Audit) -> list[Cell]:
    return [
        name_cell(name),
        Cell(text=decimal(data.threshold)),
        Cell(text=power(data.fmr)),
        Cell(text=power(data.calibration.measured_fmr), below=f"of {count(data.calibration.impostor_pairs)} pairs"),
        *(rate_cell(clean_rate(data, goal)) for goal in GOALS),
        *(Cell(text=decimal(mean)) for mean in (data.clean.genuine_mean, data.clean.impostor_mean)),
    ]


def thresholds_table(data: Audit) -> str:
    """The worst case at the main threshold and at the others, thresholds as rows; empty where there are no others."""
    if not data.other_thresholds:
        return ""
    points: list[Audit | OtherThreshold] = sorted([data, *data.other_thresholds], key=lambda point: -point.fmr)
    eps = [0.0, *sorted({entry.eps for point in points for entry in point.worst_case})]
    norm = data.settings.norm
    labels = [
        Cell(text=radius(e, norm) if e else "clean", head=True, style="number" if e else "number first") for e in eps
    ]
    top = [name_cell(""), Cell(text="", head=True)]
    titles = ("dodging: FNMR, %", "impersonation: FMR, %")
    top += [Cell(text=title, columns=len(eps), head=True, style="group") for title in titles]
    body = [[_threshold_row(point, eps, main=point is data)] for point in points]
    second = [name_cell("FMR"), Cell(text="threshold", head=True), *labels, *labels]
    caption = f"At other thresholds: the worst case under {norm} attack"
    return table(head=[top, second], body=body, caption=caption, style="dense whole")


def _threshold_row(point: Audit | OtherThreshold, eps: Sequence[float], *, main: bool) -> list[Cell]:
    first = [name_cell(power(point.fmr), below="main one" if main else ""), Cell(text=decimal(point.threshold))]
    rates = [_rates(point, goal) for goal in GOALS]
    missing = Rate(rate=math.nan)
    return [*first, *(rate_cell(by_eps.get(e, missing), first=not e) for by_eps in rates for e in eps)]


def _rates(point: Audit | OtherThreshold, goal: Goal) -> dict[float, Rate]:
    attacked = {entry.eps: rate_of(entry) for entry in point.worst_case if entry.goal == goal}
    return {0.0: clean_rate(point, goal), **attacked}
