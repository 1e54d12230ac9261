"""The tables of an audit's page. Rates in per cent with 95 % intervals; empty text where there is nothing to show."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from steadface.report.arm import Rate, rate_of
from steadface.report.audit_data import GOALS, Data, Named, block, clean_rate, norm_of, records, word
from steadface.report.history import number
from steadface.report.tables import Cell, head_cells, name_cell, rate_cell, table
from steadface.report.text import NONE, SPACE, count, decimal, interval, percent, power, radius

MARKS = {
    True: ("✓ holds", "word fixed good"),
    False: ("✗ fails", "word fixed bad"),
    None: (f"{NONE} not judged", "word fixed"),
}


def clean_table(audits: Sequence[Named]) -> str:
    """The operating point of each model and what it does with clean pairs."""
    titles = ("model", "threshold", "FMR aimed at", "FMR measured", "FNMR, %", "FMR, %", "genuine", "impostor")
    groups = [
        name_cell(""),
        Cell(text="calibration", columns=3, head=True, style="group"),
        Cell(text="clean pairs of this audit", columns=2, head=True, style="group"),
        Cell(text="mean cosine", columns=2, head=True, style="group"),
    ]
    body = [[_clean_row(audit)] for audit in audits]
    caption = "Operating point, and errors without an attack"
    return table(head=[groups, head_cells(*titles)], body=body, caption=caption, style="whole")


def _clean_row(audit: Named) -> list[Cell]:
    data = audit.data
    calibration, clean = block(data, "calibration"), block(data, "clean")
    measured = number(calibration, "measured_fmr")
    return [
        name_cell(audit.name),
        Cell(text=decimal(number(data, "threshold"))),
        Cell(text=power(number(data, "fmr"))),
        Cell(text=power(measured), below=_pairs(number(calibration, "impostor_pairs"))),
        *(rate_cell(clean_rate(data, goal)) for goal in GOALS),
        *(Cell(text=decimal(number(clean, key))) for key in ("genuine_mean", "impostor_mean")),
    ]


def _pairs(value: float) -> str:
    return f"of {count(value)} pairs" if math.isfinite(value) else ""


def worst_table(data: Data) -> str:
    """The worst case by goal and radius, and which attack broke the pairs first."""
    groups = []
    for goal in GOALS:
        entries = [entry for entry in records(data, "worst_case") if entry.get("goal") == goal]
        rows = []
        for index, entry in enumerate(entries):
            start = [name_cell(goal, rows=len(entries))] if not index else []
            rows.append([*start, *_worst_cells(data, entry)])
        groups += [rows] if rows else []
    head = [*head_cells("goal", "radius", "clean, %", "attacked, %", "saved as PNG, %", "pairs")]
    head.append(Cell(text="broken first by (pairs)", head=True, style="word"))
    caption = "Worst case: share of pairs that any of the attacks broke"
    return table(head=[head], body=groups, caption=caption, style="whole") if groups else ""


def _worst_cells(data: Data, entry: Data) -> list[Cell]:
    by = block(entry, "by")
    told = ", ".join(f"{name} {by[name]}" for name in by if by[name])
    return [
        Cell(text=_budget(data, entry)),
        rate_cell(clean_rate(data, word(entry, "goal"))),
        rate_cell(rate_of(entry, "error_rate", "ci")),
        Cell(text=percent(number(entry, "error_rate_8bit"))),
        Cell(text=count(number(entry, "pairs"))),
        Cell(text=told or NONE, style="word"),
    ]


def _budget(data: Data, entry: Data) -> str:
    norm = word(entry, "norm", norm_of(data))
    return f"{norm}{SPACE}{radius(number(entry, 'eps'), norm)}"


def checks_table(data: Data, *, caption: str = "Checks of the attacks") -> str:
    """The masking checks with a mark each."""
    rows = []
    for check in records(data, "checks"):
        passed = check.get("passed")
        text, style = MARKS[passed if isinstance(passed, bool) else None]
        finding = Cell(text=word(check, "finding", NONE), style="word")
        rows.append([name_cell(word(check, "name", "unnamed")), Cell(text=text, style=style), finding])
    head = [name_cell("what must hold"), *(Cell(text=t, head=True, style="word") for t in ("result", "finding"))]
    return table(head=[head], body=[rows], caption=caption, style="checks") if rows else ""


def attacks_table(data: Data) -> str:
    """Every attack alone, a group an attack."""
    groups: dict[str, list[Data]] = {}
    for entry in records(data, "attacks"):
        groups.setdefault(word(entry, "attack", "unnamed"), []).append(entry)
    body = []
    for name, entries in groups.items():
        counts = any(entry.get("part_of_worst_case") is not False for entry in entries)
        below = "" if counts else "for comparison only"
        first = name_cell(name, rows=len(entries), below=below)
        body.append([[*([first] if not i else []), *_attack_cells(data, e)] for i, e in enumerate(entries)])
    head = [name_cell("attack"), Cell(text="goal", head=True, style="word")]
    numbers = ("radius", "error, %", "95 % interval", "saved as PNG, %", "queries, median", "queries, most", "pairs")
    head += [Cell(text=title, head=True) for title in numbers]
    return table(head=[head], body=body, caption="Every attack alone") if body else ""


def _attack_cells(data: Data, entry: Data) -> list[Cell]:
    rate, queries = rate_of(entry, "error_rate", "ci"), block(entry, "queries")
    return [
        Cell(text=word(entry, "goal", NONE), style="word fixed"),
        Cell(text=_budget(data, entry)),
        Cell(text=percent(rate.rate)),
        Cell(text=interval(rate) or NONE),
        Cell(text=percent(number(entry, "error_rate_8bit"))),
        *(Cell(text=count(number(queries, key))) for key in ("median", "most")),
        Cell(text=count(number(entry, "pairs"))),
    ]


def thresholds_table(data: Data) -> str:
    """The worst case at the main threshold and at the others, thresholds as rows."""
    points = [data, *records(data, "other_thresholds")]
    if len(points) < 2:
        return ""
    points.sort(key=lambda point: -number(point, "fmr"))
    eps = sorted({number(entry, "eps") for point in points for entry in records(point, "worst_case")})
    eps = [0.0, *(e for e in eps if e > 0)]
    norm = norm_of(data)
    labels = [
        Cell(text=radius(e, norm) if e else "clean", head=True, style="number" if e else "number first") for e in eps
    ]
    top = [name_cell(""), Cell(text="", head=True)]
    titles = ("dodging: FNMR, %", "impersonation: FMR, %")
    top += [Cell(text=title, columns=len(eps), head=True, style="group") for title in titles]
    body = [[_threshold_row(point, eps, main=point is data)] for point in points]
    caption = f"At other thresholds: the worst case under {norm} attack"
    second = [name_cell("FMR"), Cell(text="threshold", head=True), *labels, *labels]
    return table(head=[top, second], body=body, caption=caption, style="dense whole")


def _threshold_row(point: Data, eps: Sequence[float], *, main: bool) -> list[Cell]:
    cells = []
    for goal in GOALS:
        rates: dict[float, Rate] = {0.0: clean_rate(point, goal)}
        for entry in records(point, "worst_case"):
            if entry.get("goal") == goal:
                rates[number(entry, "eps")] = rate_of(entry, "error_rate", "ci")
        cells += [rate_cell(rates.get(e, Rate(rate=math.nan)), first=not e) for e in eps]
    fmr = power(number(point, "fmr"))
    return [
        name_cell(fmr, below="main one" if main else ""),
        Cell(text=decimal(number(point, "threshold"))),
        *cells,
    ]


def patches_table(data: Data) -> str:
    """Errors by where a patch sits."""
    by_region: dict[str, dict[str, Data]] = {}
    for entry in records(data, "patches"):
        by_region.setdefault(word(entry, "patch"), {})[word(entry, "goal")] = entry
    rows = []
    for region, entries in by_region.items():
        some = next(iter(entries.values()))
        rates = [rate_of(entries.get(goal, {}), "error_rate", "ci") for goal in GOALS]
        rows.append([name_cell(region), Cell(text=percent(number(some, "area"))), *(rate_cell(rate) for rate in rates)])
    titles = ("patch", "part of the picture, %", "dodging: FNMR, %", "impersonation: FMR, %")
    return table(head=[head_cells(*titles)], body=[rows], caption="Worn patches") if rows else ""


def identification_tables(data: Data) -> str:
    """1:N search: whether a person is still found, and whether they are taken for the person whom they aimed at."""
    known = block(data, "identification")
    attacks = records(known, "attacks")
    clean = [(known_clean, "clean")] if (known_clean := block(known, "clean")) else []
    hidden = clean + [(e, _budget(data, e)) for e in attacks if e.get("goal") == "dodging"]
    aimed = [(e, _budget(data, e)) for e in attacks if e.get("goal") == "impersonation"]
    first = [[name_cell(t), *_search_cells(e, ("fnir", "rank1_miss"))] for e, t in hidden]
    second = [[name_cell(t), *_search_cells(e, ("targeted_fpir", "targeted_rank1"))] for e, t in aimed]
    parts = [
        table(
            head=[head_cells("radius", "not found at the threshold (FNIR), %", "not ranked first, %", "searches")],
            body=[first],
            caption="1:N, dodging: people in the gallery who are searched for",
            style="whole",
        )
        if first
        else "",
        table(
            head=[
                head_cells("radius", "found as the target at the threshold, %", "target ranked first, %", "searches")
            ],
            body=[second],
            caption="1:N, impersonation: people who are to be taken for a chosen one in the gallery",
            style="whole",
        )
        if second
        else "",
    ]
    return "\n".join(part for part in parts if part)


def _search_cells(entry: Data, keys: tuple[str, str]) -> list[Cell]:
    rates = [rate_of(entry, key, f"{key}_ci") for key in keys]
    if "rank1_miss" in keys and "rank1_miss" not in entry:
        hit = rate_of(entry, "rank1", "rank1_ci")
        rates[1] = Rate(rate=1 - hit.rate, low=1 - hit.high, high=1 - hit.low)
    return [*(rate_cell(rate) for rate in rates), Cell(text=count(number(entry, "probes")))]


def values_table(values: Mapping[str, Any], *, caption: str) -> str:
    """Names and values in words; what is null or nested is left out."""
    rows = []
    for key, value in values.items():
        text = _written(value)
        if text:
            rows.append([name_cell(str(key).replace("_", " ")), Cell(text=text, style="word")])
    return table(head=[], body=[rows], caption=caption) if rows else ""


def _written(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_written(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
