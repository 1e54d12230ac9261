"""How errors grow with the attack: security curves of one audit or of several, and every attack alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from steadface.audit_record import GOALS, Audit, Goal, SingleAttack
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.rates import ERRORS, WORST, Named, budget, rate_of, security
from steadface.report.audit.thresholds import thresholds_table
from steadface.report.style import STYLE, WIDTH, legend, line, look, svg
from steadface.report.tables import Cell, name_cell, table
from steadface.report.text import count, decimal, interval, listing, percent, power, radius, share


def curves(data: Audit) -> str:
    """The curves of the worst case and of every attack, and the tables behind them."""
    point = f"threshold {decimal(data.threshold)}" + (f", FMR {power(data.fmr)}" if data.fmr > 0 else "")
    figure = html.figure(
        security_figure([Named(name=data.model.name, data=data)]),
        f"Error by the largest change allowed ({data.settings.norm}), at a frozen {point}. Thick: the worst case over "
        "the attacks. Bands: 95 % intervals.",
        alternative("Worst case", data),
    )
    return figure + attacks_table(data) + thresholds_table(data)


def alternative(name: str, data: Audit) -> str:
    """The curves of the worst case as a sentence, for readers who do not see the figure."""
    told = []
    for goal in GOALS:
        curve, norm = security(data, goal), data.settings.norm
        points = [f"{share(rate.rate)} at {radius(eps, norm) if eps else 'no attack'}" for eps, rate in curve.items()]
        told.append(f"{goal} {listing(points)}")
    return f"{name}: {'; '.join(told)}."


def security_figure(audits: Sequence[Named]) -> str:
    """Error rate against eps, a panel a goal, intervals as bands; SVG text.

    Of one audit the worst case and every attack, of several each one's worst case.
    """
    eps = sorted({entry.eps for audit in audits for entry in (*audit.data.worst_case, *audit.data.attacks)})
    norm = audits[0].data.settings.norm
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, goal in zip(panels, GOALS, strict=True):
            for index, curve in enumerate(_curves(audits, goal).values()):
                _draw_curve(panel, curve, index, band=0.18 if not index or len(audits) > 1 else 0.05)
            panel.set(title=goal.capitalize(), ylabel=ERRORS[goal], xlabel=f"largest change, {norm}")
            panel.tick_params(labelleft=True)
            panel.xaxis.set_major_locator(FixedLocator([0.0, *eps]))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda e, _: radius(e, norm) if e else "clean"))
        panels[0].set(xlim=(-0.05 * eps[-1], 1.05 * eps[-1]), ylim=(-2, 102))
        names = list(_curves(audits, GOALS[0]))
        legend(figure, [Line2D([], [], label=name, **_line(index)) for index, name in enumerate(names)])
        return svg(figure)


def _curves(audits: Sequence[Named], goal: Goal) -> dict[str, Mapping[float, Rate]]:
    """What is drawn, by its name in the legend."""
    if len(audits) > 1:
        return {audit.name: security(audit.data, goal) for audit in audits}
    data = audits[0].data
    return {name: security(data, goal, name) for name in dict.fromkeys([WORST, *(e.attack for e in data.attacks)])}


def _line(index: int) -> dict[str, Any]:
    return line(index) | ({"lw": 2.6} if not index else {"lw": 1.3, "ms": 4.5})


def _draw_curve(panel: Any, curve: Mapping[float, Rate], index: int, *, band: float) -> None:
    if not curve:  # an empty line that is not clipped has an infinite extent, and breaks the layout
        return
    eps = list(curve)
    low, middle, high = ([100 * getattr(rate, part) for rate in curve.values()] for part in ("low", "rate", "high"))
    panel.fill_between(eps, low, high, color=look(index).color, alpha=band, lw=0)
    panel.plot(eps, middle, clip_on=False, zorder=3 - 0.01 * index, **_line(index))


def attacks_table(data: Audit) -> str:
    """Every attack alone, a group an attack."""
    groups: dict[str, list[SingleAttack]] = {}
    for entry in data.attacks:
        groups.setdefault(entry.attack, []).append(entry)
    body = []
    for name, entries in groups.items():
        below = "" if any(entry.part_of_worst_case for entry in entries) else "for comparison only"
        rows = [_attack_cells(entry) for entry in entries]
        rows[0].insert(0, name_cell(name, rows=len(entries), below=below))
        body.append(rows)
    head = [name_cell("attack"), Cell(text="goal", head=True, style="word")]
    numbers = ("radius", "error, %", "95 % interval", "saved as PNG, %", "queries, median", "queries, most", "pairs")
    head += [Cell(text=title, head=True) for title in numbers]
    return table(head=[head], body=body, caption="Every attack alone") if body else ""


def _attack_cells(entry: SingleAttack) -> list[Cell]:
    rate, queries = rate_of(entry), entry.queries
    return [
        Cell(text=entry.goal, style="word fixed"),
        Cell(text=budget(entry.norm, entry.eps)),
        Cell(text=percent(rate.rate)),
        Cell(text=interval(rate)),
        Cell(text=percent(entry.error_rate_8bit)),
        *(Cell(text=count(used)) for used in ((queries.median, queries.most) if queries else (None, None))),
        Cell(text=count(entry.pairs)),
    ]
