"""Figures of an audit, or of two on the same pairs: security curves, and how far pairs are from breaking."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from steadface.report.arm import Rate
from steadface.report.audit_data import (
    GOALS,
    WORST,
    Distances,
    Named,
    attack_names,
    distances,
    norm_of,
    radii,
    security,
)
from steadface.report.style import INK, STYLE, WIDTH, legend, line, look, svg
from steadface.report.text import radius

ERRORS = {"dodging": "refused pairs of one person, FNMR (%)", "impersonation": "accepted strangers, FMR (%)"}


def security_figure(audits: Sequence[Named]) -> str | None:
    """Error rate against eps, a panel a goal, intervals as bands; SVG text, None where nothing was attacked.

    Of one audit the worst case and every attack, of several each one's worst case.
    """
    eps = radii(audits)
    if not eps:
        return None
    norm = norm_of(audits[0].data)
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


def _curves(audits: Sequence[Named], goal: str) -> dict[str, Mapping[float, Rate]]:
    """What is drawn, by its name in the legend."""
    if len(audits) > 1:
        return {audit.name: security(audit.data, goal) for audit in audits}
    data = audits[0].data
    return {name: security(data, goal, name) for name in dict.fromkeys([WORST, *attack_names(data)])}


def _line(index: int) -> dict[str, Any]:
    return line(index) | ({"lw": 2.6} if not index else {"lw": 1.3, "ms": 4.5})


def _draw_curve(panel: Any, curve: Mapping[float, Rate], index: int, *, band: float) -> None:
    if not curve:  # an empty line that is not clipped has an infinite extent, and breaks the layout
        return
    eps = list(curve)
    low, middle, high = ([100 * getattr(rate, part) for rate in curve.values()] for part in ("low", "rate", "high"))
    panel.fill_between(eps, low, high, color=look(index).color, alpha=band, lw=0)
    panel.plot(eps, middle, clip_on=False, zorder=3 - 0.01 * index, **_line(index))


def distance_figure(audits: Sequence[Named]) -> str | None:
    """Share of pairs that break within a distance, a panel a goal; SVG text, None where no distances were found.

    The medians with their intervals stand at one half; pairs that hold in the largest ball searched are counted at
    the right edge. linf distances in grey levels, of 255.
    """
    known = {goal: [distances(audit.data, goal) for audit in audits] for goal in GOALS}
    drawn = [found for goal in GOALS for found in known[goal] if found]
    if not drawn:
        return None
    unit, scale = ("grey levels of 255", 255) if drawn[0].norm == "linf" else (drawn[0].norm, 1)
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
    searched = [found.radius for found in drawn if found.pairs > len(found.found) and math.isfinite(found.radius)]
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
