"""How far pairs are from breaking: the smallest changes that were found, of one audit or of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steadface.audit_record import GOALS, Audit, Goal
from steadface.report import html
from steadface.report.audit.rates import Named
from steadface.report.history import Floats
from steadface.report.style import INK, STYLE, WIDTH, legend, line, look, svg
from steadface.report.text import SPACE, count, decimal

CAPTION = (
    "Share of pairs that break within a distance. Marks at one half: the medians, bars their 95 % intervals. Pairs "
    "that no search broke are counted at the right edge. Distances are the smallest found: the true ones may be "
    "smaller still."
)


@dataclass(frozen=True, kw_only=True)
class Distances:
    """The smallest distances that break the pairs of one goal.

    `found` (M,) rising, in the norm's own unit, 0 for pairs that are wrong already; `pairs` counts those that hold
    inside `radius`, the largest ball searched, too. `median` and `low` are NaN, and `high` infinite, beyond that.
    """

    found: Floats
    pairs: int
    radius: float
    median: float
    low: float
    high: float
    already_wrong: int


def distances(data: Audit, goal: Goal) -> Distances | None:
    """None where no pair of the goal has a distance, or nothing looked for any."""
    summary = data.distances.get(data.settings.norm, {}).get(goal)
    pairs = [pair for pair in data.pairs if pair.goal == goal]
    found = np.sort(np.array([pair.distance for pair in pairs if pair.distance is not None], dtype=np.float64))
    if summary is None or not len(found):
        return None
    low, high = summary.ci
    return Distances(
        found=found,
        pairs=len(found) + sum(pair.censored is True for pair in pairs),
        radius=summary.radius,
        median=math.nan if summary.median is None else summary.median,
        low=math.nan if low is None else low,
        high=math.inf if high is None else high,
        already_wrong=summary.already_wrong,
    )


def one_audit(data: Audit) -> str:
    """The section of one audit's page; empty where there are no distances."""
    wrong = {goal: found.already_wrong for goal in GOALS if (found := distances(data, goal)) is not None}
    told = ", ".join(f"{count(number)} for {goal}" for goal, number in wrong.items() if number)
    already = f" Wrong without any attack, and so at distance 0: {told}." if told else ""
    figure = html.figure(
        distance_figure([Named(name=data.model.name, data=data)]),
        CAPTION + already,
        _alt([Named(name=data.model.name, data=data)]),
    )
    return html.paragraphs([half_broken(data)]) + figure


def several_audits(audits: Sequence[Named]) -> str:
    """The same of several audits in one figure."""
    return html.figure(distance_figure(audits), CAPTION, _alt(audits))


def _alt(audits: Sequence[Named]) -> str:
    return " ".join(f"{audit.name}: {half_broken(audit.data) or 'no distances.'}" for audit in audits)


def half_broken(data: Audit) -> str:
    """The median smallest distances in words; empty where none were sought."""
    told, norm = [], data.settings.norm
    for goal in GOALS:
        found = distances(data, goal)
        if found is None:
            continue
        if math.isfinite(found.median):
            told.append(f"half of the pairs fall to {goal} within {_distance(found.median, norm)}")
        else:
            within = f" within {_distance(found.radius, norm)}"
            told.append(f"more than half of the pairs hold against {goal}{within}, so that its median is not known")
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _distance(value: float, norm: str) -> str:
    """A distance in the unit of the figures: grey levels for linf."""
    return f"{decimal(255 * value, 2)}{SPACE}of 255 grey levels" if norm == "linf" else f"{norm} {decimal(value, 2)}"


def distance_figure(audits: Sequence[Named]) -> str | None:
    """Share of pairs that break within a distance, a panel a goal; SVG text, None where no distances were found.

    The medians with their intervals stand at one half; pairs that hold in the largest ball searched are counted at
    the right edge. linf distances in grey levels, of 255.
    """
    known = {goal: [distances(audit.data, goal) for audit in audits] for goal in GOALS}
    drawn = [found for goal in GOALS for found in known[goal] if found]
    if not drawn:
        return None
    norm = audits[0].data.settings.norm
    unit, scale = ("grey levels of 255", 255) if norm == "linf" else (norm, 1)
    edge = scale * _edge(drawn)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, goal in zip(panels, GOALS, strict=True):
            panel.axhline(50, color="#888888", lw=0.8, ls=(0, (1.2, 1.2)))
            for index, found in enumerate(known[goal]):
                if found:
                    _draw_distances(panel, found, index, scale=scale, edge=edge)
            panel.set(title=goal.capitalize(), xlabel=f"smallest change that breaks a pair, {unit}")
            panel.tick_params(labelleft=True)
        panels[0].set(xlim=(0, edge), ylim=(0, 103), ylabel="pairs broken (%)")
        if len(audits) > 1:
            legend(figure, [Line2D([], [], label=a.name, **line(i)) for i, a in enumerate(audits)])
        return svg(figure)


def _edge(drawn: Sequence[Distances]) -> float:
    """Where the axis ends: at the largest ball searched if a pair holds in it, else just beyond the last pair."""
    furthest = max(float(found.found[-1]) for found in drawn)
    searched = [found.radius for found in drawn if found.pairs > len(found.found)]
    return max([1.05 * furthest, *searched]) or 1.0


def _draw_distances(panel: Any, found: Distances, index: int, *, scale: float, edge: float) -> None:
    x = scale * np.concatenate(([0.0], found.found, [edge / scale]))
    broken = np.arange(len(found.found) + 1)
    y = 100 * np.append(broken, broken[-1]) / found.pairs
    panel.plot(x, y, drawstyle="steps-post", **line(index, marker=False))
    shift = 50 - 2.0 * index  # two intervals at one height would hide each other
    if math.isfinite(found.median):
        low, high = (scale * (end if math.isfinite(end) else found.median) for end in (found.low, found.high))
        right = edge if found.high == math.inf else high
        panel.plot([low, right], [shift, shift], color=look(index).color, lw=4, alpha=0.45, solid_capstyle="butt")
        panel.plot([scale * found.median], [shift], color=look(index).color, marker=look(index).marker, ms=7, ls="")
    held = found.pairs - len(found.found)
    if held:
        panel.annotate(
            f"{held} of {found.pairs} hold",
            (edge, y[-1]),
            xytext=(-4, -13 if y[-1] > 93 else 7),
            textcoords="offset points",
            ha="right",
            color=look(index).color if index else INK,
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
        )
        panel.plot([edge], [y[-1]], color=look(index).color, marker=">", ms=7, ls="", clip_on=False, zorder=4)
