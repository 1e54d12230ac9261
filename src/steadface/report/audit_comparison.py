"""The page of two audits on the same pairs, side by side: which recogniser resists better, and by what evidence."""

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from steadface.report import audit_captions, audit_comparison_words, audit_plots, audit_tables, audit_words, html
from steadface.report.arm import rate_of
from steadface.report.audit_comparison_words import audits_of, rates_of
from steadface.report.audit_data import GOALS, Data, Named, norm_of, records, security, texts, word
from steadface.report.audit_page import distance_figure, repeat, write_page
from steadface.report.history import number
from steadface.report.output import plain
from steadface.report.tables import Cell, name_cell, table
from steadface.report.text import DASH, NONE, count, decimal, percent, points, points_interval, radius

Pair = tuple[Named, Named]


def write_comparison(path_html: Path | str, path_json: Path | str, data: Mapping[str, Any]) -> None:
    """Write the page of a comparison and `data`, the contents of `comparison.json`; both files, or both as they were.

    Any key may be absent, any figure null. Raises SteadfaceError where a file cannot be written.
    """
    numbers = plain(data)
    write_page(path_html, path_json, render_comparison(numbers), numbers)


def render_comparison(data: Data) -> str:
    """The whole page as text."""
    audits = audits_of(data)
    sections = [
        _summary(data, audits),
        html.section("How errors grow with the attack", _curves(audits)),
        html.section("How far pairs are from breaking", distance_figure(audits)),
        html.section("Can the attacks be believed?", _believed(audits)),
        html.section("What standards say", html.paragraphs(audit_words.STANDARDS)),
        html.section("How to repeat it", repeat(data)),
    ]
    title = word(data, "title", f"{audits[0].name} and {audits[1].name} under attack")
    return html.document(title, "\n".join(section for section in sections if section))


def _summary(data: Data, audits: Pair) -> str:
    warnings = texts(data, "warnings") or [f"{a.name}: {text}" for a in audits for text in texts(a.data, "warnings")]
    parts = [
        f'<p class="lead">{escape(audit_comparison_words.opening(data, audits))}</p>',
        html.box("Read with care", warnings),
        tests_table(data, audits),
        distance_tests_table(data, audits),
        audit_tables.clean_table(audits),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def tests_table(data: Data, audits: Pair) -> str:
    """The paired tests of the error rates; empty where there are none."""
    body = []
    for goal in GOALS:
        tests = [test for test in records(data, "tests") if test.get("goal") == goal]
        rows = [[*([name_cell(goal, rows=len(tests))] if not i else []), *_test_cells(t)] for i, t in enumerate(tests)]
        body += [rows] if rows else []
    one, other = (audit.name for audit in audits)
    groups = [
        name_cell(""),
        Cell(text="", head=True),
        Cell(text="error, %", columns=2, head=True, style="group"),
        Cell(text="", columns=1, head=True),
        Cell(text="pairs broken in only", columns=2, head=True, style="group"),
        Cell(text="", columns=2, head=True),
    ]
    titles = ("radius", one, other, "difference, points", one, other, "pairs", "p (McNemar)")
    head = [groups, [name_cell("goal"), *(Cell(text=title, head=True, style="number wrap") for title in titles)]]
    limit = f"{audit_comparison_words.level(data):.2g}"
    caption = f"Paired tests of the worst case, second model less first; a test counts below p = {limit} (Bonferroni)"
    return table(head=head, body=body, caption=caption, style="whole") if body else ""


def _test_cells(test: Data) -> list[Cell]:
    norm = word(test, "norm", "linf")
    pair = rates_of(test)
    only = (number(test, "only_first"), number(test, "only_second"))
    change = rate_of(test, "difference", "ci")
    return [
        Cell(text=f"{norm} {radius(number(test, 'eps'), norm)}"),
        *(Cell(text=percent(rate)) for rate in pair),
        Cell(text=points(change.rate), below=points_interval(change)),
        *(Cell(text=count(n)) for n in only),
        Cell(text=count(number(test, "pairs"))),
        Cell(text=_p(test)),
    ]


def distance_tests_table(data: Data, audits: Pair) -> str:
    """Median smallest distances of both, and the paired test; empty where there are none."""
    rows = []
    for test in records(data, "distance_tests"):
        norm = word(test, "norm", "linf")
        far = [f"{decimal(255 * m, 2)}/255" if norm == "linf" else decimal(m, 2) for m in rates_of(test, "medians")]
        far = [text if not text.startswith(DASH) else "not reached" for text in far]
        ratio, pairs = decimal(number(test, "ratio"), 2), count(number(test, "pairs"))
        cells = [Cell(text=text) for text in (norm, *far, ratio, pairs, _p(test))]
        rows.append([name_cell(word(test, "goal", NONE)), *cells])
    titles = ("norm", audits[0].name, audits[1].name, "ratio", "pairs", "p (sign test)")
    head = [name_cell("goal"), *(Cell(text=title, head=True, style="number wrap") for title in titles)]
    caption = "Median of the smallest change that breaks a pair"
    return table(head=[head], body=[rows], caption=caption, style="whole") if rows else ""


def _p(test: Data) -> str:
    p = number(test, "p")
    return NONE if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _curves(audits: Pair) -> str:
    norm = norm_of(audits[0].data)
    told = [audit_captions.curve_alt(a.name, {goal: security(a.data, goal) for goal in GOALS}, norm) for a in audits]
    return html.figure(
        audit_plots.security_figure(audits),
        f"Worst case over the attacks, by the largest change allowed ({norm}); each model at its own frozen "
        "threshold. Bands: 95 % intervals. They ignore that the pairs are the same: the paired tests above tell more.",
        " ".join(told),
    )


def _believed(audits: Pair) -> str:
    tables = [audit_tables.checks_table(a.data, caption=f"Checks of the attacks on “{a.name}”") for a in audits]
    return "\n".join(checks for checks in tables if checks)
