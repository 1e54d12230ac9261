"""What a run chose its model from: every candidate's clean error against its error under attack, and its verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steadface.report import html
from steadface.report.arm import Arm, Rate, rate_of
from steadface.report.history import number
from steadface.report.html import escape
from steadface.report.style import BLUE, GREEN, INK, ORANGE, SHADE, STYLE, VERMILION, WIDTH, legend, svg
from steadface.report.tables import Cell, head_cells, name_cell, table
from steadface.report.text import percent, points, points_interval, radius

KINDS = {
    "look": ("during training, by step", BLUE, "o", "-"),
    "line": ("between start and last moment, by share of the way", ORANGE, "s", "--"),
    "recovered": ("start, rounded and recovered", GREEN, "^", ""),
}
"""How candidates are drawn: name in the legend, colour, marker, and the line that joins them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate for readers; rates in [0, 1], `lost` and `gained` against the recogniser as it came."""

    name: str
    kind: str
    label: str
    clean: float
    attacked: float
    lost: Rate
    gained: Rate
    attacks: Sequence[Mapping[str, Any]]
    verdict: str


def rows(candidates: Mapping[str, Any], max_clean_drop: float) -> list[Row]:
    """The candidates of a run's `candidates.json`, in its order, with what the rule says of each."""
    model = (candidates["model"] or {}).get("name")
    return [_row(entry, model, max_clean_drop) for entry in candidates["candidates"] if "lost" in entry]


def _row(entry: Mapping[str, Any], model: str | None, max_clean_drop: float) -> Row:
    lost, gained = rate_of(entry["lost"], "value", "ci"), rate_of(entry["gained"], "value", "ci")
    if entry["name"] == model:
        verdict = "the model"
    elif not gained.low > 0:
        verdict = "not shown to gain"
    elif lost.low > max_clean_drop:
        verdict = "lost too much"
    else:
        verdict = "possible"
    return Row(
        name=entry["name"],
        kind=entry["kind"],
        label={"look": f"{entry['step']}", "line": f"{100 * entry['share']:.0f} %"}.get(entry["kind"], ""),
        clean=number(entry["clean"], "value"),
        attacked=number(entry["attacked"], "value"),
        lost=lost,
        gained=gained,
        attacks=entry["attacks"],
        verdict=verdict,
    )


def shown(arm: Arm) -> str:
    """Curve and table of an arm's candidates as markup; empty where it has none."""
    select = (arm.recipe.get("run") or {}).get("select")
    if arm.candidates is None or not arm.candidates["reference"] or not select:
        return ""
    allowed = number(select, "max_clean_drop")
    found = rows(arm.candidates, allowed)
    if not found:
        return ""
    reference = arm.candidates["reference"]
    curve = html.figure(
        _figure(found, reference, allowed),
        "What there was to choose from, on the people held out: points of clean accuracy (1 - EER) lost against the "
        "error rate of the worse goal under PGD, its mean over the radii. Bars: 95 % intervals of the paired "
        "difference to the recogniser as it came. Shaded: more lost than was to be allowed; a candidate is refused "
        "where its whole bar lies there. Ringed: the model.",
        "Clean accuracy lost against error under attack, by candidate",
    )
    return f"<h3>{escape(arm.name)}: candidates</h3>" + curve + _table(found, reference)


def _figure(found: Sequence[Row], reference: Mapping[str, Any], allowed: float) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        axes = figure.subplots()
        before = number(reference["attacked"], "value")
        for kind, (_, colour, marker, dash) in KINDS.items():
            some = [row for row in found if row.kind == kind]
            axes.plot(
                [100 * row.lost.rate for row in some], [100 * row.attacked for row in some], color=colour, ls=dash
            )
            for row in some:
                _point(axes, row, before, colour, marker)
        axes.plot(0, 100 * before, color=INK, marker="D", ls="", zorder=3)
        right = axes.get_xlim()[1]
        axes.axvspan(100 * allowed, max(right, 100 * allowed), color=SHADE, zorder=0, lw=0)
        axes.axvline(100 * allowed, color=INK, lw=1, ls=":")
        axes.set(xlabel="clean accuracy lost (points)", ylabel="error under attack (%)", ylim=(0, 105))
        axes.set_xlim(right=max(right, 100 * allowed))
        legend(figure, _handles(found))
        return svg(figure)


def _point(axes: Any, row: Row, before: float, colour: str, marker: str) -> None:
    x, y = 100 * row.lost.rate, 100 * row.attacked
    axes.errorbar(
        x,
        y,
        xerr=[[x - 100 * row.lost.low], [100 * row.lost.high - x]],
        yerr=[[y - 100 * (before - row.gained.high)], [100 * (before - row.gained.low) - y]],
        color=colour,
        elinewidth=0.6,
        capsize=2,
        alpha=0.5,
    )
    axes.plot(x, y, color=colour, marker=marker)
    if row.verdict == "the model":
        axes.plot(x, y, marker="o", ms=14, mfc="none", mec=VERMILION, mew=2)
    axes.annotate(row.label, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)


def _handles(found: Sequence[Row]) -> list[Any]:
    kinds = {row.kind for row in found}
    handles: list[Any] = [
        Line2D([], [], color=colour, marker=marker, ls=dash, label=said)
        for kind, (said, colour, marker, dash) in KINDS.items()
        if kind in kinds
    ]
    return [*handles, Line2D([], [], color=INK, marker="D", ls="", label="as it came")]


def _table(found: Sequence[Row], reference: Mapping[str, Any]) -> str:
    goals = Counter(attack["goal"] for attack in reference["attacks"])
    groups = {"clean faces": 2, "under attack": 2} | {f"{goal}, %": radii for goal, radii in goals.items()}
    first = [name_cell(""), *(Cell(text=name, columns=size, head=True, style="group") for name, size in groups.items())]
    radii = [radius(attack["eps"], attack["norm"]) for attack in reference["attacks"]]
    second = head_cells("candidate", "EER, %", "lost, points", "error, %", "gained, points", *radii)
    body = [
        [
            name_cell(row.name, below=row.verdict),
            Cell(text=percent(row.clean, 2)),
            _change(row.lost),
            Cell(text=percent(row.attacked)),
            _change(row.gained),
            *_attacks(row.attacks),
        ]
        for row in found
    ]
    before = [
        name_cell(reference["name"]),
        Cell(text=percent(number(reference["clean"], "value"), 2)),
        Cell(text=""),
        Cell(text=percent(number(reference["attacked"], "value"))),
        Cell(text=""),
        *_attacks(reference["attacks"]),
    ]
    return table(head=[first, second], body=[[before], body], caption="What the model was chosen from")


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> list[Cell]:
    return [Cell(text=percent(number(attack, "error_rate"), 0)) for attack in attacks]


def _change(rate: Rate) -> Cell:
    return Cell(text=points(rate.rate, 2, signed=False), below=points_interval(rate, 2, signed=False))
