"""Figures of the evaluation: ROC, DET, and error under attack against the radius."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from steadface.report.arm import Arm, Goal, Rate, Setting, attacked, curve, entries, radii, rate_of, supported_fmr
from steadface.report.history import Floats, number
from steadface.report.style import DASHES, MOST_POINTS, STYLE, WIDTH, arm_legend, legend, line, look, svg
from steadface.report.text import power, radius


def curves_figure(arms: Sequence[Arm]) -> str | None:
    """ROC and DET, FMR on a log axis that ends where the impostor pairs end; SVG text, None without points.

    Marks on the ROC are the operating points with their intervals.
    """
    supports = [supported_fmr(arm) for arm in arms]
    lowest = min((fmr for fmr in supports if fmr > 0), default=1e-3)
    drawn = False
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        roc, det = figure.subplots(1, 2)
        for index, (arm, support) in enumerate(zip(arms, supports, strict=True)):
            for panel, name, ordinate in ((roc, "roc", "tar"), (det, "det", "fnmr")):
                x, y = _supported(*curve(arm, name, ordinate), support)
                drawn |= len(x) > 0
                panel.plot(x, y, drawstyle="steps-post", **line(index, marker=False))
            _operating_points(roc, arm, index)
        if not drawn:
            return None
        _curve_axes(roc, det, lowest)
        legend(figure, arm_legend(arms))
        return svg(figure)


def _supported(x: Floats, y: Floats, support: float) -> tuple[Floats, Floats]:
    keep = (x > 0) & ~(x < support * (1 - 1e-9))
    x, y = x[keep], y[keep]
    if len(x) <= MOST_POINTS:
        return x, y
    # Even in log FMR, as the axis is: every point would weigh megabytes and show nothing more.
    at = np.searchsorted(x, np.geomspace(x[0], x[-1], MOST_POINTS))
    at = np.unique(np.minimum(at, len(x) - 1))
    return x[at], y[at]


def _operating_points(panel: Any, arm: Arm, index: int) -> None:
    for point in entries(arm, "operating_points"):
        tar, fmr = rate_of(point, "tar", "tar_ci"), number(point, "fmr")
        if not math.isfinite(tar.rate) or not fmr > 0:
            continue
        ends = np.nan_to_num([[tar.rate - tar.low], [tar.high - tar.rate]]).clip(min=0.0)
        panel.errorbar(
            [fmr],
            [tar.rate],
            yerr=ends,
            fmt=look(index).marker,
            color=look(index).color,
            ms=4.5,
            capsize=2.5,
            clip_on=False,
            lw=1,
        )


def _curve_axes(roc: Any, det: Any, lowest: float) -> None:
    rate = FuncFormatter(lambda value, _: power(value))
    errors = np.concatenate([np.asarray(drawn.get_ydata(), dtype=np.float64) for drawn in det.lines])
    rates = np.concatenate([np.asarray(drawn.get_ydata(), dtype=np.float64) for drawn in roc.lines])
    # Good models crowd at the top: then the lower half of the panel would stand empty.
    floor = math.floor(10 * float(rates.min(initial=1.0)) - 1e-9) / 10 if (rates > 0.5).all() else 0.0
    low = float(errors[errors > 0].min(initial=1.0))
    diagonal = np.geomspace(lowest, 1, 200)
    roc.plot(diagonal, diagonal, color="#888888", lw=0.8, ls=DASHES[3])
    roc.set(
        title="ROC",
        xscale="log",
        xlim=(lowest, 1),
        ylim=(floor, 1 + 0.02 * (1 - floor)),
        ylabel="true accept rate (TAR)",
    )
    det.plot([lowest, 1], [lowest, 1], color="#888888", lw=0.8, ls=DASHES[3])
    det.set(title="DET", xscale="log", yscale="log", xlim=(lowest, 1), ylabel="false non-match rate (FNMR)")
    det.set_ylim(10.0 ** math.floor(math.log10(low) + 1e-9) if low < 1 else 1e-3, 1)
    for axis in (roc.xaxis, det.xaxis, det.yaxis):
        axis.set_major_formatter(rate)
        axis.set_minor_formatter(NullFormatter())
    for panel in (roc, det):
        panel.set_xlabel("false match rate (FMR)")


def error_figure(arms: Sequence[Arm], setting: Setting) -> str | None:
    """Error rate against eps, a panel for dodging and one for impersonation, intervals as bands; SVG text.

    The clean rate stands at eps 0. None where no arm was attacked under the setting.
    """
    eps = radii(arms, setting)
    if not eps:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        _error_panel(panels[0], arms, setting, "dodging")
        _error_panel(panels[1], arms, setting, "impersonation")
        room = 0.05 * eps[-1]
        panels[0].set(title="Dodging", ylabel="FNMR (%)", xlim=(-room, eps[-1] + room), ylim=(-2, 102))
        panels[1].set(title="Impersonation", ylabel="FMR (%)")
        for panel in panels:
            panel.set_xlabel(f"radius ε, {setting.norm}")
            panel.xaxis.set_major_locator(FixedLocator([0.0, *eps]))
            panel.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: radius(value, setting.norm) if value else "clean")
            )
            panel.tick_params(labelleft=True)
        legend(figure, arm_legend(arms))
        return svg(figure)


def _error_panel(panel: Any, arms: Sequence[Arm], setting: Setting, goal: Goal) -> None:
    for index, arm in enumerate(arms):
        rates: dict[float, Rate] = attacked(arm, setting, goal)
        if not rates:  # an empty line that is not clipped has an infinite extent, and breaks the layout
            continue
        eps = list(rates)
        low, middle, high = ([100 * getattr(rate, part) for rate in rates.values()] for part in ("low", "rate", "high"))
        panel.fill_between(eps, low, high, color=look(index).color, alpha=0.16, lw=0)
        panel.plot(eps, middle, clip_on=False, **line(index))
