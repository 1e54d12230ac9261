"""Patches that somebody could wear: errors by where one sits."""

import math

from steadface.audit_record import GOALS, Audit, Goal, PatchRate
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.rates import rate_of
from steadface.report.tables import Cell, head_cells, name_cell, rate_cell, table
from steadface.report.text import percent

WHAT = (
    "A patch may take any colours within its outline, so it has no radius and no part in the worst case. Each was made "
    "for one pair, and so that it also deceives a little off its place and in other light."
)


def patches(data: Audit) -> str:
    """What a patch is, and the table; empty where none was tried."""
    by_region: dict[str, dict[Goal, PatchRate]] = {}
    for entry in data.patches:
        by_region.setdefault(entry.patch, {})[entry.goal] = entry
    if not by_region:
        return ""
    rows = []
    for region, entries in by_region.items():
        rates = [rate_of(entries[goal]) if goal in entries else Rate(rate=math.nan) for goal in GOALS]
        area = next(iter(entries.values())).area
        rows.append([name_cell(region), Cell(text=percent(area)), *(rate_cell(rate) for rate in rates)])
    titles = ("patch", "part of the picture, %", "dodging: FNMR, %", "impersonation: FMR, %")
    return html.paragraphs([WHAT]) + table(head=[head_cells(*titles)], body=[rows], caption="Worn patches")
