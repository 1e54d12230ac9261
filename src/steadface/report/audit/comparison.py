"""The page of two audits on the same pairs: which recogniser resists better, if tests tell them apart."""

import math
from pathlib import Path

from steadface.audit_record import GOALS, Comparison, DistanceTest, RateTest
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.checks import checks_table, failed_checks
from steadface.report.audit.curves import alternative, security_figure
from steadface.report.audit.distances import several_audits
from steadface.report.audit.page import STANDARDS, repeat, write_page
from steadface.report.audit.rates import Named
from steadface.report.audit.summary import QUICK, is_quick, of_ten
from steadface.report.audit.thresholds import clean_table
from steadface.report.html import escape
from steadface.report.tables import Cell, name_cell, table
from steadface.report.text import SPACE, count, decimal, listing, percent, points, points_interval, radius, share

LEVEL = 0.05

Pair = tuple[Named, Named]


def write_comparison(path_html: Path | str, path_json: Path | str, data: Comparison) -> None:
    """Write the page of a comparison and its record, `comparison.json`; both files, or both as they were.

    Raises SteadfaceError where a file cannot be written.
    """
    write_page(path_html, path_json, render_comparison(data), data)


def render_comparison(data: Comparison) -> str:
    """The whole page as text."""
    audits = audits_of(data)
    norm = data.audits[0].settings.norm
    curves = html.figure(
        security_figure(audits),
        f"Worst case over the attacks, by the largest change allowed ({norm}); each model at its own frozen "
        "threshold. Bands: 95 % intervals. They ignore that the pairs are the same: the paired tests above tell more.",
        " ".join(alternative(audit.name, audit.data) for audit in audits),
    )
    believed = [checks_table(a.data, caption=f"Checks of the attacks on “{a.name}”") for a in audits]
    sections = [
        _summary(data, audits),
        html.section("How errors grow with the attack", curves),
        html.section("How far pairs are from breaking", several_audits(audits)),
        html.section("Can the attacks be believed?", "\n".join(judged for judged in believed if judged)),
        html.section("What standards say", html.paragraphs(STANDARDS)),
        html.section("How to repeat it", repeat(data)),
    ]
    title = data.title or f"{audits[0].name} and {audits[1].name} under attack"
    return html.document(title, "\n".join(section for section in sections if section))


def audits_of(data: Comparison) -> Pair:
    """Both audits under their names, or under A and B where these do not tell them apart."""
    first, second = data.names if data.names[0] != data.names[1] and all(data.names) else ("A", "B")
    return Named(name=first, data=data.audits[0]), Named(name=second, data=data.audits[1])


def _summary(data: Comparison, audits: Pair) -> str:
    parts = [
        f'<p class="lead">{escape(opening(data, audits))}</p>',
        html.box("Read with care", data.warnings),
        _tests_table(data, audits),
        _distance_tests_table(data, audits),
        clean_table(audits),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def opening(data: Comparison, audits: Pair) -> str:
    """The first paragraph: the verdict first, the figures behind it, and what stands against it."""
    parts = [verdict(data, audits), _same(data, audits), _rates(data, audits), _distances(data, audits)]
    parts += [_doubt(audit) for audit in audits if failed_checks(audit.data)]
    parts += [QUICK] if any(is_quick(audit) for audit in data.audits) else []
    return " ".join(part for part in parts if part)


def level(data: Comparison) -> float:
    """The p-value below which a test counts: 5 % shared among all tests of the page (Bonferroni)."""
    return LEVEL / max(1, len(data.tests) + len(data.distance_tests))


def winners(data: Comparison) -> list[int | None]:
    """For each test the number of the model that resists better in it, None where it does not tell them apart."""
    limit = level(data)
    tests: list[RateTest | DistanceTest] = [*data.tests, *data.distance_tests]
    return [_better(test) if test.p < limit else None for test in tests]


def _better(test: RateTest | DistanceTest) -> int | None:
    if isinstance(test, RateTest):
        return None if test.difference == 0 else int(test.difference < 0)
    first, second = (math.inf if median is None else median for median in test.medians)
    return None if first == second else int(second > first)


def verdict(data: Comparison, audits: Pair) -> str:
    """Which one resists better, in one sentence."""
    names = [f"“{audit.name}”" for audit in audits]
    found = winners(data)
    told = {winner for winner in found if winner is not None}
    if not found:
        return f"{names[0]} and {names[1]} were not tested against each other."
    if not told:
        return (
            f"These pairs do not tell {names[0]} and {names[1]} apart: no paired test finds a difference that chance "
            "could not explain."
        )
    if len(told) == 2:
        return f"Neither is better throughout: {names[0]} resists better in some tests, {names[1]} in others."
    winner = told.pop()
    certain = found.count(winner)
    how = "every paired test tells" if certain == len(found) else f"{certain} of {len(found)} paired tests tell"
    return f"{names[winner]} resists attack better than {names[1 - winner]}: {how} them apart."


def _same(data: Comparison, audits: Pair) -> str:
    tests = {test.goal: count(test.pairs) for test in data.tests}
    kinds = {"dodging": "pairs of one person", "impersonation": "pairs of different people"}
    pairs = listing([f"{tests[goal]} {kinds[goal]}" for goal in GOALS if goal in tests])
    own = " and ".join(decimal(audit.data.threshold) for audit in audits)
    return (
        f"Both were attacked in the same way on the same {pairs}, each at its own threshold ({own})." if pairs else ""
    )


def _rates(data: Comparison, audits: Pair) -> str:
    """The error rates of both at the smallest radius."""
    if not data.tests:
        return ""
    eps, norm, told = min(test.eps for test in data.tests), data.tests[0].norm, []
    for test in data.tests:
        if test.eps == eps:
            first, second = (f"{of_ten(rate)} pairs of “{a.name}”" for rate, a in zip(test.rates, audits, strict=True))
            figures = f"{percent(test.rates[0])} against {share(test.rates[1])}, {_probability(test.p)}"
            told.append(f"{test.goal} breaks {first} and {second} ({figures})")
    return f"At {norm} {radius(eps, norm)}, the smallest change tried, {'; '.join(told)}."


def _distances(data: Comparison, audits: Pair) -> str:
    told = []
    for test in data.distance_tests:
        if test.medians.count(None) == 1:
            held = test.medians.index(None)
            told.append(
                f"{test.goal} finds a change for “{audits[1 - held].name}”, and none within reach for "
                f"“{audits[held].name}”"
            )
        elif test.ratio:
            far, near = (1, 0) if test.ratio >= 1 else (0, 1)
            times = decimal(max(test.ratio, 1 / test.ratio), 1)
            models = f"for “{audits[far].name}” as for “{audits[near].name}”"
            told.append(f"{test.goal} takes a change {times} times as large {models} ({_probability(test.p)})")
    return f"To break half of the pairs, {'; '.join(told)}." if told else ""


def _doubt(audit: Named) -> str:
    failed = listing([f"“{name}”" for name in failed_checks(audit.data)])
    return f"The attacks on “{audit.name}” cannot be fully believed ({failed} fails): it may resist less than it seems."


def _probability(p: float) -> str:
    """`p = 0.013`, `p < 0.001`; how likely so large a difference is by chance."""
    return f"p{SPACE}<{SPACE}0.001" if p < 0.001 else f"p{SPACE}={SPACE}{p:.2g}"


def _tests_table(data: Comparison, audits: Pair) -> str:
    """The paired tests of the error rates; empty where there are none."""
    body = []
    for goal in GOALS:
        rows = [_test_cells(test) for test in data.tests if test.goal == goal]
        if rows:
            rows[0].insert(0, name_cell(goal, rows=len(rows)))
            body.append(rows)
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
    caption = (
        "Paired tests of the worst case, second model less first; a test counts below "
        f"p = {level(data):.2g} (Bonferroni)"
    )
    return table(head=[groups, _heads("goal", titles)], body=body, caption=caption, style="whole") if body else ""


def _heads(first: str, titles: tuple[str, ...]) -> list[Cell]:
    return [name_cell(first), *(Cell(text=title, head=True, style="number wrap") for title in titles)]


def _test_cells(test: RateTest) -> list[Cell]:
    change = Rate(rate=test.difference, low=test.ci[0], high=test.ci[1])
    return [
        Cell(text=f"{test.norm} {radius(test.eps, test.norm)}"),
        *(Cell(text=percent(rate)) for rate in test.rates),
        Cell(text=points(change.rate), below=points_interval(change)),
        *(Cell(text=count(n)) for n in (test.only_first, test.only_second, test.pairs)),
        Cell(text=_p(test.p)),
    ]


def _distance_tests_table(data: Comparison, audits: Pair) -> str:
    """Median smallest distances of both, and the paired test; empty where there are none."""
    rows = []
    for test in data.distance_tests:
        far = ["not reached" if m is None else _median(m, test.norm) for m in test.medians]
        cells = (test.norm, *far, decimal(test.ratio, 2), count(test.pairs), _p(test.p))
        rows.append([name_cell(test.goal), *(Cell(text=text) for text in cells)])
    head = _heads("goal", ("norm", audits[0].name, audits[1].name, "ratio", "pairs", "p (sign test)"))
    caption = "Median of the smallest change that breaks a pair"
    return table(head=[head], body=[rows], caption=caption, style="whole") if rows else ""


def _median(distance: float, norm: str) -> str:
    return f"{decimal(255 * distance, 2)}/255" if norm == "linf" else decimal(distance, 2)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
