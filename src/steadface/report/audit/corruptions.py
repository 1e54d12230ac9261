"""Attack, or just a bad camera: errors under ordinary disturbances beside those under attack."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from steadface.audit_record import GOALS, Audit, CorruptionRate, Goal
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.rates import ERRORS, clean_rate, rate_of, smallest
from steadface.report.style import STYLE, WIDTH, legend, line, look, svg
from steadface.report.text import radius, share


def corruptions(data: Audit) -> str:
    """The curves with what they show in figures; empty where no disturbance was tried."""
    note = corruption_note(data)
    return html.figure(
        corruption_figure(data),
        "Error by the severity of ordinary disturbances, with no attacker. Horizontal line: the worst case under "
        "attack at the smallest radius. Where that lies far above the others, a wrong decision on a picture that looks "
        f"clean speaks of an attack rather than of a bad camera. {note}",
        f"Errors under ordinary disturbances. {note}",
    )


def corruption_note(data: Audit) -> str:
    """The worst ordinary disturbance beside the attack; empty where there is none to compare."""
    told, norm = [], data.settings.norm
    for goal in GOALS:
        mine = [entry for entry in data.corruptions if entry.goal == goal]
        if not mine:
            continue
        attacked, worst = smallest(data, goal), max(mine, key=lambda entry: entry.error_rate)
        told.append(
            f"{goal} at {norm} {radius(attacked.eps, norm)} causes {share(attacked.error_rate)} errors, the worst "
            f"disturbance ({worst.corruption}, severity {worst.severity}) {share(worst.error_rate)}"
        )
    return f"In figures: {'; '.join(told)}." if told else ""


def corruption_figure(data: Audit) -> str | None:
    """Error rate against the severity of each disturbance, beside the worst case at the smallest radius; SVG text.

    None where no disturbance was tried.
    """
    names = list(dict.fromkeys(entry.corruption for entry in data.corruptions))
    if not names:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, goal in zip(panels, GOALS, strict=True):
            _attack_level(panel, data, goal)
            for index, name in enumerate(names, start=1):
                mine = [entry for entry in data.corruptions if (entry.goal, entry.corruption) == (goal, name)]
                _draw_corruption(panel, mine, clean_rate(data, goal), index)
            panel.set(title=goal.capitalize(), xlabel="severity of the disturbance (0: none)", ylabel=ERRORS[goal])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.tick_params(labelleft=True)
        panels[0].set_ylim(-2, 102)
        norm, eps = data.settings.norm, min(smallest(data, goal).eps for goal in GOALS)
        attack = Line2D([], [], color=look(0).color, lw=2.6, label=f"attack, worst case at {norm} {radius(eps, norm)}")
        legend(figure, [attack, *(Line2D([], [], label=name, **line(i)) for i, name in enumerate(names, start=1))])
        return svg(figure)


def _attack_level(panel: Any, data: Audit, goal: Goal) -> None:
    rate = rate_of(smallest(data, goal))
    panel.axhline(100 * rate.rate, color=look(0).color, lw=2.6)
    panel.axhspan(100 * rate.low, 100 * rate.high, color=look(0).color, alpha=0.14, lw=0)


def _draw_corruption(panel: Any, mine: Sequence[CorruptionRate], clean: Rate, index: int) -> None:
    if not mine:
        return
    rates: dict[int, Rate] = {0: clean} | {entry.severity: rate_of(entry) for entry in mine}
    severities = sorted(rates)
    low, middle, high = ([100 * getattr(rates[s], part) for s in severities] for part in ("low", "rate", "high"))
    panel.fill_between(severities, low, high, color=look(index).color, alpha=0.04, lw=0)
    panel.plot(severities, middle, clip_on=False, **line(index))
