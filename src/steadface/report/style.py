"""How every figure of the report looks, and how it becomes SVG: sharp on screen and in print.

Arms differ by colour, dash and marker at once, so that they are told apart in greyscale. Colours are those of Okabe
and Ito, "Color Universal Design" (2008), which colour-blind readers can tell apart. Object-oriented Matplotlib only
(`Figure`, never pyplot): no figure manager, no state left behind.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from steadface.errors import visible
from steadface.report.arm import Arm

WIDTH = 9.6  # inches; at 96 css pixels an inch the page's column, so that 1 pt here is 1 pt there
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, "#222222", ORANGE, SKY)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (5, 1.5, 1, 1.5)), (0, (1.2, 1.2)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SHADE, INK, GRID = "#F6E3AE", "#222222", "#DDDDDD"
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "text.parse_math": False,  # a dollar sign in a user's name is a dollar sign
    "svg.fonttype": "path",
    "svg.hashsalt": "steadface",  # element ids, and with them the file, do not change from run to run
}
MOST_POINTS = 1200


@dataclass(frozen=True, kw_only=True)
class Look:
    """How an arm is drawn in every figure."""

    color: str
    linestyle: Any
    marker: str


def look(index: int) -> Look:
    """Colour, dash and marker of arm `index`: periods 7, 5, 7, so that 35 arms differ."""
    return Look(
        color=COLOURS[index % len(COLOURS)],
        linestyle=DASHES[index % len(DASHES)],
        marker=MARKERS[index % len(MARKERS)],
    )


def line(index: int, *, marker: bool = True) -> dict[str, Any]:
    chosen = look(index)
    line = {"color": chosen.color, "ls": chosen.linestyle, "lw": 1.7}
    return line | ({"marker": chosen.marker, "ms": 5} if marker else {})


def arm_legend(arms: Sequence[Arm]) -> list[Any]:
    return [Line2D([], [], label=arm.name, **line(index)) for index, arm in enumerate(arms)]


def legend(figure: Figure, handles: list[Any]) -> None:
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(110 / (longest + 8))))
    # An underscore at the start would hide the entry from Matplotlib's own collecting, not from `handles`.
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)


def thinned(length: int) -> slice:
    return slice(None, None, max(1, math.ceil(length / MOST_POINTS)))


def svg(figure: Figure) -> str:
    """The figure as text. Its canvas is asked directly: `savefig` draws all of it twice, once for its layout alone."""
    for text in figure.findobj(Text):  # a code in a name has no glyph
        text.set_text(visible(text.get_text(), lines=True))
    buffer = io.StringIO()
    figure.set_dpi(200)
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()
