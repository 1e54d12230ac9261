"""Figures that an audit's error rates are judged by: ordinary disturbances, and the loss around attacked pairs."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from steadface.report.arm import Rate, rate_of
from steadface.report.audit_data import GOALS, Data, clean_rate, norm_of, records, smallest, word
from steadface.report.audit_plots import ERRORS
from steadface.report.history import Floats, number
from steadface.report.style import DASHES, INK, STYLE, WIDTH, legend, line, look, svg
from steadface.report.text import decimal, radius

MOST_SURFACES = 6


def corruption_figure(data: Data) -> str | None:
    """Error rate against the severity of each disturbance, beside the worst case at the smallest radius; SVG text.

    None where no disturbance was tried.
    """
    names = list(dict.fromkeys(word(entry, "corruption") for entry in _corruptions(data)))
    if not names:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, goal in zip(panels, GOALS, strict=True):
            _attack_level(panel, data, goal)
            for index, name in enumerate(names, start=1):
                _draw_corruption(panel, data, goal, name, index)
            panel.set(title=goal.capitalize(), xlabel="severity of the disturbance (0: none)", ylabel=ERRORS[goal])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.tick_params(labelleft=True)
        panels[0].set_ylim(-2, 102)
        norm = norm_of(data)
        eps = min((e for goal in GOALS if math.isfinite(e := smallest(data, goal)[0])), default=math.nan)
        handles = [Line2D([], [], label=name, **line(index)) for index, name in enumerate(names, start=1)]
        if math.isfinite(eps):
            attack = f"attack, worst case at {norm} {radius(eps, norm)}"
            handles.insert(0, Line2D([], [], color=look(0).color, lw=2.6, label=attack))
        legend(figure, handles)
        return svg(figure)


def _corruptions(data: Data) -> list[Data]:
    """The entries that can be drawn."""
    entries = records(data, "corruptions")
    return [e for e in entries if math.isfinite(number(e, "severity") + number(e, "error_rate"))]


def _attack_level(panel: Any, data: Data, goal: str) -> None:
    rate = smallest(data, goal)[1]
    if math.isfinite(rate.rate):
        panel.axhline(100 * rate.rate, color=look(0).color, lw=2.6)
    if math.isfinite(rate.low + rate.high):
        panel.axhspan(100 * rate.low, 100 * rate.high, color=look(0).color, alpha=0.14, lw=0)


def _draw_corruption(panel: Any, data: Data, goal: str, name: str, index: int) -> None:
    mine = [e for e in _corruptions(data) if e.get("goal") == goal and word(e, "corruption") == name]
    rates: dict[float, Rate] = {number(entry, "severity"): rate_of(entry, "error_rate", "ci") for entry in mine}
    clean = clean_rate(data, goal)
    if math.isfinite(clean.rate):
        rates[0.0] = clean
    severities = sorted(rates)
    if not mine:
        return
    low, middle, high = ([100 * getattr(rates[s], part) for s in severities] for part in ("low", "rate", "high"))
    panel.fill_between(severities, low, high, color=look(index).color, alpha=0.04, lw=0)
    panel.plot(severities, middle, clip_on=False, **line(index))


def surface_figure(data: Data) -> str | None:
    """The cosine around attacked pairs, over the gradient's direction and a random one; SVG text.

    At most 6 pairs; the thick line is the threshold, the dotted square the ball. None where there is no surface.
    """
    shown = [(entry, grid) for entry in records(data, "surfaces") if (grid := _grid(entry)) is not None]
    shown = shown[:MOST_SURFACES]
    if not shown:
        return None
    columns = 4 if len(shown) == 4 else min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    low, high = (float(pick([pick(values) for _, (_, _, values) in shown])) for pick in (np.min, np.max))
    levels = np.asarray(MaxNLocator(14).tick_values(low, max(high, low + 1e-3)))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, rows * min(3.4, (WIDTH - 1.3) / columns + 0.45)), layout="compressed")
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel, (entry, grid) in zip(panels.flat, shown, strict=False):
            drawn = _draw_surface(panel, data, entry, grid, levels)
            panel.set_box_aspect(1)
        for panel in panels[:, 0]:
            panel.set_ylabel(f"random direction, {_unit(data)}")
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        bar = figure.colorbar(drawn, ax=panels, label="cosine", ticks=MaxNLocator(6), spacing="proportional")
        bar.ax.yaxis.set_major_formatter(lambda value, _: decimal(value, 2))
        return svg(figure)


def _grid(entry: Data) -> tuple[Floats, Floats, Floats] | None:
    """Axes (a,) and (b,) and the cosines (b, a); None where they are not whole."""
    try:
        across, along, values = (np.asarray(entry.get(k), dtype=np.float64) for k in ("gradient", "random", "cosine"))
    except (TypeError, ValueError):
        return None
    if across.ndim != 1 or along.ndim != 1 or min(across.size, along.size) < 2:
        return None
    whole = values.shape == (len(along), len(across)) and np.isfinite(values).all()
    return (across, along, values) if whole and np.isfinite(across).all() and np.isfinite(along).all() else None


def _draw_surface(panel: Any, data: Data, entry: Data, grid: Sequence[Floats], levels: Floats) -> Any:
    norm, eps, threshold = norm_of(data), number(entry, "eps"), number(data, "threshold")
    scale = 255 if norm == "linf" else 1
    across, along, values = scale * grid[0], scale * grid[1], grid[2]
    drawn = panel.contourf(across, along, values, levels=levels, cmap="cividis")
    if values.min() < threshold < values.max():
        panel.contour(across, along, values, levels=[threshold], colors="white", linewidths=2.4)
    if math.isfinite(eps):
        side = scale * eps
        corners = [-side, side, side, -side, -side], [-side, -side, side, side, -side]
        panel.plot(*corners, color="white", lw=1, ls=DASHES[3])
    panel.plot([0], [0], color="white", marker="o", mec=INK, ms=5)
    panel.set_title(word(entry, "goal").capitalize())
    panel.set_xlabel(f"gradient, {_unit(data)}")
    return drawn


def _unit(data: Data) -> str:
    return "grey levels" if norm_of(data) == "linf" else norm_of(data)
