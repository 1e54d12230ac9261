"""Searching a gallery (1:N): whether people are still found, and whether they are taken for those they aimed at."""

import math

from steadface.audit_record import Audit, CleanSearch, DodgingSearch, IdentificationRates, TargetedSearch
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.rates import budget
from steadface.report.audit.summary import odds_of
from steadface.report.tables import Cell, head_cells, name_cell, rate_cell, table
from steadface.report.text import NONE, count


def identification(data: Audit) -> str:
    """The gallery in a sentence, and both tables; empty where there is no such part."""
    known = data.identification
    if known is None:
        return ""
    odds = odds_of(known.fpir) if known.fpir > 0 else NONE
    about = (
        f"A gallery of {count(known.gallery)} people, searched at the threshold at which {odds} searches of strangers "
        f"finds somebody (FPIR), set on {count(known.strangers)} strangers."
    )
    tables = [_hidden_table(known), _aimed_table(known)]
    return html.paragraphs([about]) + "\n".join(one for one in tables if one)


def _hidden_table(known: IdentificationRates) -> str:
    attacks = [entry for entry in known.attacks if isinstance(entry, DodgingSearch)]
    rows = [[name_cell("clean"), *_hidden(known.clean)]]
    rows += [[name_cell(budget(entry.norm, entry.eps)), *_hidden(entry)] for entry in attacks]
    titles = ("radius", "not found at the threshold (FNIR), %", "not ranked first, %", "searches")
    caption = "1:N, dodging: people in the gallery who are searched for"
    return table(head=[head_cells(*titles)], body=[rows], caption=caption, style="whole")


def _hidden(entry: CleanSearch | DodgingSearch) -> list[Cell]:
    missed = _rate(entry.fnir, entry.fnir_ci)
    if isinstance(entry, DodgingSearch):
        behind = _rate(entry.rank1_miss, entry.rank1_miss_ci)
    else:
        first = _rate(entry.rank1, entry.rank1_ci)
        behind = Rate(rate=1 - first.rate, low=1 - first.high, high=1 - first.low)
    return [rate_cell(missed), rate_cell(behind), Cell(text=count(entry.probes))]


def _aimed_table(known: IdentificationRates) -> str:
    attacks = [entry for entry in known.attacks if isinstance(entry, TargetedSearch)]
    rows = [[name_cell(budget(entry.norm, entry.eps)), *_aimed(entry)] for entry in attacks]
    titles = ("radius", "found as the target at the threshold, %", "target ranked first, %", "searches")
    caption = "1:N, impersonation: people who are to be taken for a chosen one in the gallery"
    return table(head=[head_cells(*titles)], body=[rows], caption=caption, style="whole") if rows else ""


def _aimed(entry: TargetedSearch) -> list[Cell]:
    rates = (_rate(entry.targeted_fpir, entry.targeted_fpir_ci), _rate(entry.targeted_rank1, entry.targeted_rank1_ci))
    return [*(rate_cell(rate) for rate in rates), Cell(text=count(entry.probes))]


def _rate(value: float | None, ends: tuple[float, float]) -> Rate:
    return Rate(rate=math.nan if value is None else value, low=ends[0], high=ends[1])
