"""What hardening costs and gains: clean LFW error against the median smallest perturbation, as a table and a plot.

    steadface evaluate RUN --images LFW --pairs pairs.txt --no-mirror --json POINTS/NAME/evaluation.json
    steadface audit RUN --images LFW --pairs pairs.txt --eps 2/255 --eps 4/255 --fmr 1e-2 --out POINTS/NAME
    python benchmarks/hardening_frontier.py POINTS/NAME POINTS/OTHER ... --out docs/frontier.svg

The distance in the plot is that of the goal which is easier for the attacker, linf, in grey levels. Beside them stand
the networks that RobFR publishes (Yang et al., "RobFR: Benchmarking adversarial robustness on face recognition", 2020),
about 40 times larger and judged at another threshold.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from steadface.audit_record import GOALS
from steadface.report.text import with_interval
from steadface.workflows.audit import read_audit

ROBFR = {"RobFR, clean": (0.4, 1.41), "RobFR, PGD-AT": (8.7, 10.2), "RobFR, TRADES": (9.0, 10.3)}
BESIDE = {"RobFR, clean": (0, 8), "RobFR, PGD-AT": (-26, -14), "RobFR, TRADES": (-8, 8)}
"""Where each label stands, in points, so that they do not lie on each other."""


def point(folder: Path) -> dict[str, Any]:
    """Clean error in %, and median distances with intervals in grey levels, of one model."""
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    audit = read_audit(folder)
    distances = {goal: audit.distances["linf"][goal] for goal in GOALS}
    return {
        "name": folder.name,
        "error": 100 * (1 - evaluation["accuracy"]),
        "medians": {goal: _grey(found.median or found.radius) for goal, found in distances.items()},
        "intervals": {
            goal: tuple(_grey(end) for end in (found.ci[0] or 0.0, found.ci[1] or found.radius))
            for goal, found in distances.items()
        },
        "attacked": {(entry.goal, round(255 * entry.eps, 3)): entry for entry in audit.worst_case},
        "preset": audit.settings.preset,
        "pairs": audit.clean.genuine_pairs,
    }


def table(points: list[dict[str, Any]]) -> str:
    """Every model with its medians, and the pairs decided as they should be or not at the radii audited everywhere."""
    radii = sorted(set.intersection(*({eps for _, eps in one["attacked"]} for one in points)))
    attacked = [f"{said} {eps:g}/255 %" for eps in radii for said in ("kept", "accepted")]
    names = ["LFW accuracy %", "median distance, dodging", "median distance, impersonation", *attacked]
    lines = [f"| model | {' | '.join(names)} | audit |", "|---" + "|---:" * len(names) + "|---|"]
    for one in points:
        cells = [f"{100 - one['error']:.2f}"]
        cells += [with_interval(one["medians"][goal], *one["intervals"][goal], digits=2) for goal in GOALS]
        for eps in radii:
            dodged, passed = (one["attacked"][goal, eps] for goal in GOALS)
            low, high = dodged.ci
            cells += [
                with_interval(100 * (1 - dodged.error_rate), 100 * (1 - high), 100 * (1 - low), digits=0),
                with_interval(100 * passed.error_rate, *(100 * end for end in passed.ci), digits=0),
            ]
        audited = f"{one['preset']}, {one['pairs']} + {one['pairs']} pairs"
        lines.append(f"| {one['name']} | {' | '.join(cells)} | {audited} |")
    return "\n".join(lines)


def plot(points: list[dict[str, Any]]) -> Figure:
    """Every model with the 95 % interval of its median, and RobFR's."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    # Names stand in a column of their own, from low to high like their points, since neighbours lie close.
    for rank, one in enumerate(sorted(points, key=lambda one: min(one["medians"].values()))):
        worse = min(GOALS, key=lambda goal: one["medians"][goal])
        median, (low, high) = one["medians"][worse], one["intervals"][worse]
        quick = one["preset"] == "quick"
        axes.errorbar(
            one["error"],
            median,
            yerr=[[max(0.0, median - low)], [max(0.0, high - median)]],
            fmt="o",
            mfc="white" if quick else None,
            capsize=2,
            color="C0",
        )
        axes.annotate(
            one["name"],
            (one["error"], median),
            xytext=(0.6, 0.05 + 0.07 * rank),
            textcoords="axes fraction",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "C7", "shrinkB": 4},
        )
    for name, (error, median) in ROBFR.items():
        axes.plot(error, median, "s", color="C7")
        axes.annotate(name, (error, median), textcoords="offset points", xytext=BESIDE[name], fontsize=8)
    axes.set(
        xlabel="clean LFW error, % (log)",
        ylabel="median smallest perturbation, grey levels (log)",
        xscale="log",
        yscale="log",
        xlim=(0.3, 20),
        ylim=(0.7, 15),
        title="filled: standard audit; hollow: quick audit; squares: published by RobFR",
    )
    axes.title.set_fontsize(9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_xticks([0.5, 1, 2, 5, 10])
    axes.set_yticks([1, 2, 3, 5, 10])
    axes.grid(alpha=0.3)
    return figure


def _grey(distance: float) -> float:
    return 255 * distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", nargs="+", type=Path, help="folders with evaluation.json and audit.json")
    parser.add_argument("--out", type=Path, help="an .svg or .png")
    options = parser.parse_args()
    points = sorted((point(folder) for folder in options.points), key=lambda one: one["error"])
    print(table(points))
    if options.out is not None:
        mpl.rcParams["svg.hashsalt"] = "frontier"  # the same picture from the same figures
        plot(points).savefig(options.out, metadata={"Date": None} if options.out.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
