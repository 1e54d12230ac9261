"""Finished audits side by side as a markdown table: what docs/audit.md shows of trained models.

steadface audit MODEL --images LFW --pairs pairs.txt --preset standard --eps 2/255 --eps 4/255 --out AUDITS/NAME
python benchmarks/audit_table.py AUDITS/NAME AUDITS/OTHER ...
"""

import argparse
from pathlib import Path

from steadface.audit_record import GOALS, Audit, MedianDistance
from steadface.report.text import radius, with_interval
from steadface.workflows.audit import read_audit


def distance(found: MedianDistance | None, norm: str) -> str:
    """A median with its interval, in grey levels under linf; censored ends are open."""
    if found is None:
        return "not sought"
    scale = 255 if norm == "linf" else 1
    middle = f"over {scale * found.radius:.3g}" if found.median is None else f"{scale * found.median:.2f}"
    low, high = found.ci
    end = "..." if high is None else f"{scale * high:.2f}"
    return f"{middle} ({scale * (low or 0.0):.2f} to {end})"


def column(audit: Audit) -> dict[str, str]:
    """Every row of the table for one model."""
    clean, norm = audit.clean, audit.settings.norm
    cells = {
        "pairs": f"{clean.genuine_pairs} + {clean.impostor_pairs}",
        "threshold": f"{audit.threshold:.3f}",
        "impostor cosine": f"{audit.calibration.impostor_mean:.2f}",
        "FNMR, FMR clean %": f"{100 * clean.fnmr:.0f}, {100 * clean.fmr:.0f}",
    }
    for entry in audit.worst_case:
        eps, ends = radius(entry.eps, norm), (100 * end for end in entry.ci)
        cells[f"{entry.goal} {eps}, worst case %"] = with_interval(100 * entry.error_rate, *ends, digits=0)
        for attack in audit.attacks:
            same = (attack.goal, attack.eps) == (entry.goal, entry.eps)
            if same and attack.part_of_worst_case:
                cells[f"{entry.goal} {eps}, {attack.attack} %"] = f"{100 * attack.error_rate:.0f}"
    for goal in GOALS:
        cells[f"median distance, {goal}"] = distance(audit.distances.get(norm, {}).get(goal), norm)
    cells["checks that fail"] = "; ".join(check.name for check in audit.checks if check.passed is False) or "none"
    cells["minutes"] = "" if audit.seconds is None else f"{audit.seconds / 60:.0f}"
    return cells


def table(columns: dict[str, dict[str, str]]) -> str:
    """Models as columns."""
    rows = dict.fromkeys(row for cells in columns.values() for row in cells)
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {row} | " + " | ".join(cells.get(row, "") for cells in columns.values()) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audits", nargs="+", type=Path, help="folders that `steadface audit` wrote")
    folders = parser.parse_args().audits
    print(table({folder.name: column(read_audit(folder)) for folder in folders}))


if __name__ == "__main__":
    main()
