"""Figures of the training: the loss with the gate's open stretches, and the held-out people's error."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from steadface.report.arm import Arm
from steadface.report.history import History, number, open_spans, running_mean
from steadface.report.style import (
    BLUE,
    DASHES,
    INK,
    SHADE,
    STYLE,
    VERMILION,
    WIDTH,
    arm_legend,
    legend,
    line,
    svg,
    thinned,
)
from steadface.report.text import share

MOST_SPANS = 300
"""Beyond these a chattering gate is drawn as pixels: as shapes it would weigh megabytes."""


def loss_figure(arms: Sequence[Arm]) -> str | None:
    """Source loss by step, one panel per arm on shared axes, the gate's open stretches shaded; SVG text.

    None where no arm has a logged step.
    """
    shown = [(arm, arm.history) for arm in arms if arm.history is not None and len(arm.history.step)]
    if not shown:
        return None
    columns = 1 if len(shown) <= 3 else 2
    rows = math.ceil(len(shown) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 1.75 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for panel, (arm, history) in zip(panels.flat, shown, strict=False):
            _loss_panel(panel, history)
            panel.set_title(_loss_title(arm))
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        for column in range(columns):
            lowest = max(i for i in range(len(shown)) if i % columns == column)
            panels.flat[lowest].set_xlabel("step")
            panels.flat[lowest].tick_params(labelbottom=True)
        for panel in panels[:, 0]:
            panel.set_ylabel("loss")
        first = panels.flat[0]
        first.set_xlim(0, max(_end(history) for _, history in shown))
        first.set_ylim(0, _loss_limit([history for _, history in shown]))
        first.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(figure, _loss_legend([history for _, history in shown]))
        return svg(figure)


def _loss_title(arm: Arm) -> str:
    duty = arm.duty_cycle
    if duty is None or not math.isfinite(duty):
        return arm.name
    told = "never open" if duty <= 0 else "always open" if duty >= 1 else f"open for {share(duty, 0)} of the steps"
    return f"{arm.name}: gate {told}"


def _loss_panel(panel: Any, history: History) -> None:
    _gate_shading(panel, history)
    window = max(1, len(history.step) // 40)
    thin = thinned(len(history.step))
    if window > 1:
        panel.plot(history.step[thin], history.loss[thin], color=BLUE, lw=0.5, alpha=0.4)
    panel.plot(history.step[thin], running_mean(history.loss, window)[thin], color=BLUE, lw=1.7)
    _adversarial_loss(panel, history)
    panel.plot(history.step[thin], history.threshold[thin], color=INK, lw=1.1, ls=DASHES[3])


def _gate_shading(panel: Any, history: History) -> None:
    """Shaded where the gate is open; as high, of a gate that opens by degrees, as it is open."""
    spans, most = open_spans(history.step, history.gate_open), np.nanmax(history.strength, initial=0.0)
    style = {"transform": panel.get_xaxis_transform(), "color": SHADE, "lw": 0, "zorder": 0.5}
    if by_degrees(history):
        height = np.where(history.gate_open, np.nan_to_num(history.strength) / most, 0.0)
        thin = thinned(len(height))
        panel.fill_between(history.step[thin], height[thin], step="post", **style)
    elif spans:
        bars = panel.broken_barh([(start, stop - start) for start, stop in spans], (0, 1), **style)
        bars.set_rasterized(len(spans) > MOST_SPANS)


def by_degrees(history: History) -> bool:
    """Whether the gate was open by other degrees than wide."""
    known = history.strength[history.gate_open & np.isfinite(history.strength)]
    return bool(len(known)) and float(known.max()) > 0 and not bool((known == 1).all())


def _adversarial_loss(panel: Any, history: History) -> None:
    known = np.flatnonzero(np.isfinite(history.adversarial_loss))
    # Averaged over open steps alone: a mean that reached across a closed stretch would invent values there.
    smooth = np.full(len(history.step), np.nan)
    smooth[known] = running_mean(history.adversarial_loss[known], max(1, len(known) // 40))
    # A step that was open by itself has no neighbour to draw a line to.
    alone = known[(np.diff(known, prepend=-9) > 1) & (np.diff(known, append=len(smooth) + 9) > 1)]
    thin = thinned(len(smooth))
    panel.plot(history.step[thin], smooth[thin], color=VERMILION, lw=1.5, ls=DASHES[1])
    panel.plot(history.step[alone], smooth[alone], color=VERMILION, ls="", marker=".", ms=3.5)


def _loss_legend(histories: Sequence[History]) -> list[Any]:
    handles: list[Any] = [Line2D([], [], color=BLUE, lw=1.7, label="source loss")]
    if any(np.isfinite(history.adversarial_loss).any() for history in histories):
        handles.append(Line2D([], [], color=VERMILION, lw=1.5, ls=DASHES[1], label="adversarial loss"))
    if any(np.isfinite(history.threshold).any() for history in histories):
        handles.append(Line2D([], [], color=INK, lw=1.1, ls=DASHES[3], label="gate's threshold"))
    if any(history.gate_open.any() for history in histories):
        label = "gate open" + (", by its height" if any(by_degrees(history) for history in histories) else "")
        handles.append(Patch(facecolor=SHADE, edgecolor="#B8A060", lw=0.5, label=label))
    return handles


def _loss_limit(histories: Sequence[History]) -> float:
    """Room for nearly every value: a single spike must not flatten the curves."""
    values = np.concatenate([np.concatenate((h.loss, h.adversarial_loss)) for h in histories])
    values = values[np.isfinite(values)]
    top = float(np.percentile(values, 99.5)) if len(values) else 1.0
    marks = np.concatenate([h.threshold for h in histories])
    marks = marks[np.isfinite(marks) & (marks < 2 * top)]
    return 1.06 * max(top, float(marks.max(initial=0.0))) or 1.0


def _end(history: History) -> float:
    last = history.step[-1] - history.step[-2] if len(history.step) > 1 else 1
    return float(history.step[-1] + last)


VALIDATED = {"eer": "EER (%)", "attacked": "error under attack (%)"}
"""Figures on held-out people that are drawn by step, where there are any."""


def _validated(history: History | None, key: str) -> list[tuple[int, float]]:
    """Steps and figures of the looks at people held out: those that a gate's bound follows, where there are any."""
    if history is None:
        return []
    if key == "eer" and np.isfinite(history.clean).any():
        seen = np.flatnonzero(np.isfinite(history.clean) & (np.diff(history.clean, prepend=np.nan) != 0))
        return [(int(history.step[index]), float(1 - history.clean[index])) for index in seen]
    return [(point.step, number(point.figures, key)) for point in history.validation]


def _asked(panel: Any, arms: Sequence[Arm]) -> None:
    """A line at the error of every clean level that was asked for."""
    levels = {level for arm in arms if arm.history is not None for level in arm.history.clean_asked[-1:].tolist()}
    for level in sorted(level for level in levels if math.isfinite(level)):
        panel.axhline(100 * (1 - level), color=INK, lw=1.1, ls=DASHES[3])
        panel.text(0.01, 100 * (1 - level), "asked for", transform=panel.get_yaxis_transform(), va="bottom", fontsize=8)


def validation_figure(arms: Sequence[Arm]) -> str | None:
    """Clean and attacked error of the held-out people by step, a panel each, arms as lines; SVG text.

    None where no arm has two of either.
    """
    series = {key: [_validated(arm.history, key) for arm in arms] for key in VALIDATED}
    drawn = [
        key
        for key, lines in series.items()
        if any(sum(math.isfinite(value) for _, value in points) > 1 for points in lines)
    ]
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        for key, panel in zip(drawn, figure.subplots(1, len(drawn), squeeze=False)[0], strict=True):
            for index, points in enumerate(series[key]):
                seen = [(step, 100 * value) for step, value in points if math.isfinite(value)]
                panel.plot([step for step, _ in seen], [value for _, value in seen], **line(index))
            if key == "eer":
                _asked(panel, arms)
            # A curve may hardly vary far above zero: room for its markers is a share of its height, not of its range.
            panel.set(xlabel="step", ylabel=VALIDATED[key], ylim=(0, 1.08 * panel.dataLim.ymax or 1.0))
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend(figure, arm_legend(arms))
        return svg(figure)
