"""Whether the attacks can be believed: the masking checks, and the cosine around attacked pairs."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steadface.audit_record import Audit, Surface
from steadface.report import html
from steadface.report.history import Floats
from steadface.report.style import DASHES, INK, STYLE, WIDTH, svg
from steadface.report.tables import Cell, name_cell, table
from steadface.report.text import NONE, decimal

MARKS = {
    True: ("✓ holds", "word fixed good"),
    False: ("✗ fails", "word fixed bad"),
    None: (f"{NONE} not judged", "word fixed"),
}
MOST_SURFACES = 6
WHY = (
    "A recogniser can make attacks fail without resisting them, by hiding the slope that they follow. Each of these "
    "checks (after Carlini et al., On Evaluating Adversarial Robustness, 2019) must hold if it does not."
)


def checks(data: Audit) -> str:
    """Every check with its finding, and the surfaces; empty where there is neither."""
    judged = checks_table(data)
    surfaces = html.figure(
        surface_figure(data),
        "The cosine around attacked pairs, from the clean picture (dot) along the gradient and along a random "
        "direction. White line: the threshold; dotted square: the ball attacked in. A smooth slope can be "
        "followed by an attack; a rough or flat one misleads it.",
        "Contour maps of the cosine around attacked pairs, along the gradient and a random direction",
    )
    return (html.paragraphs([WHY]) + judged if judged else "") + surfaces


def failed_checks(data: Audit) -> list[str]:
    """The names of the masking checks that failed."""
    return [check.name for check in data.checks if check.passed is False]


def checks_table(data: Audit, *, caption: str = "Checks of the attacks") -> str:
    """The masking checks with a mark each."""
    rows = []
    for check in data.checks:
        text, style = MARKS[check.passed]
        rows.append([name_cell(check.name), Cell(text=text, style=style), Cell(text=check.finding, style="word")])
    head = [name_cell("what must hold"), *(Cell(text=t, head=True, style="word") for t in ("result", "finding"))]
    return table(head=[head], body=[rows], caption=caption, style="checks") if rows else ""


def surface_figure(data: Audit) -> str | None:
    """The cosine around attacked pairs, over the gradient's direction and a random one; SVG text.

    At most 6 pairs; the thick line is the threshold, the dotted square the ball. None where there is no surface.
    """
    shown = data.surfaces[:MOST_SURFACES]
    if not shown:
        return None
    columns = 4 if len(shown) == 4 else min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    levels = _levels(shown)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, rows * min(3.4, (WIDTH - 1.3) / columns + 0.45)), layout="compressed")
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel, surface in zip(panels.flat, shown, strict=False):
            drawn = _draw_surface(panel, data, surface, levels)
            panel.set_box_aspect(1)
        for panel in panels[:, 0]:
            panel.set_ylabel(f"random direction, {_unit(data)}")
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        bar = figure.colorbar(drawn, ax=panels, label="cosine", ticks=MaxNLocator(6), spacing="proportional")
        bar.ax.yaxis.set_major_formatter(lambda value, _: decimal(value, 2))
        return svg(figure)


def _levels(shown: Sequence[Surface]) -> Floats:
    low, high = (pick(value for one in shown for row in one.cosine for value in row) for pick in (min, max))
    return np.asarray(MaxNLocator(14).tick_values(low, max(high, low + 1e-3)))


def _draw_surface(panel: Any, data: Audit, surface: Surface, levels: Floats) -> Any:
    scale = 255 if data.settings.norm == "linf" else 1
    across, along, values = (np.array(part) for part in (surface.gradient, surface.random, surface.cosine))
    drawn = panel.contourf(scale * across, scale * along, values, levels=levels, cmap="cividis")
    if values.min() < data.threshold < values.max():
        panel.contour(scale * across, scale * along, values, levels=[data.threshold], colors="white", linewidths=2.4)
    side = scale * surface.eps
    corners = [-side, side, side, -side, -side], [-side, -side, side, side, -side]
    panel.plot(*corners, color="white", lw=1, ls=DASHES[3])
    panel.plot([0], [0], color="white", marker="o", mec=INK, ms=5)
    panel.set_title(surface.goal.capitalize())
    panel.set_xlabel(f"gradient, {_unit(data)}")
    return drawn


def _unit(data: Audit) -> str:
    return "grey levels" if data.settings.norm == "linf" else data.settings.norm
