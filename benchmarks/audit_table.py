"""Finished audits side by side as a markdown table: what docs/audit.md shows of trained models.

steadface audit MODEL --images LFW --pairs pairs.txt --preset standard --eps 2/255 --eps 4/255 --out AUDITS/NAME
python benchmarks/audit_table.py AUDITS/NAME AUDITS/OTHER ...
"""

import argparse
from pathlib import Path
from typing import Any

from steadface.api import read_audit
from steadface.report.text import with_interval

GOALS = ("dodging", "impersonation")


def rate(entry: dict[str, Any]) -> str:
    """A rate with its interval, in per cent."""
    low, high = entry["ci"]
    return with_interval(100 * entry["error_rate"], 100 * low, 100 * high, digits=0)


def distance(found: dict[str, Any] | None, norm: str) -> str:
    """A median with its interval, in grey levels under linf; censored ends are open."""
    if found is None:
        return "not sought"
    scale = 255 if norm == "linf" else 1
    middle = f"over {scale * found['radius']:.3g}" if found["median"] is None else f"{scale * found['median']:.2f}"
    low, high = found["ci"]
    end = "..." if high is None else f"{scale * high:.2f}"
    return f"{middle} ({scale * (low or 0.0):.2f} to {end})"


def column(audit: dict[str, Any]) -> dict[str, str]:
    """Every row of the table for one model."""
    clean, norm = audit["clean"], audit["settings"]["norm"]
    cells = {
        "pairs": f"{clean['genuine_pairs']} + {clean['impostor_pairs']}",
        "threshold": f"{audit['threshold']:.3f}",
        "impostor cosine": f"{audit['calibration']['impostor_mean']:.2f}",
        "FNMR, FMR clean %": f"{100 * clean['fnmr']:.0f}, {100 * clean['fmr']:.0f}",
    }
    for entry in audit["worst_case"]:
        radius = f"{255 * entry['eps']:g}/255" if norm == "linf" else f"{entry['eps']:g}"
        cells[f"{entry['goal']} {radius}, worst case %"] = rate(entry)
        for attack in audit["attacks"]:
            same = (attack["goal"], attack["eps"]) == (entry["goal"], entry["eps"])
            if same and attack["part_of_worst_case"]:
                cells[f"{entry['goal']} {radius}, {attack['attack']} %"] = f"{100 * attack['error_rate']:.0f}"
    for goal in GOALS:
        cells[f"median distance, {goal}"] = distance(audit["distances"].get(norm, {}).get(goal), norm)
    failed = [check["name"] for check in audit["checks"] if check["passed"] is False]
    cells["checks that fail"] = "; ".join(failed) or "none"
    cells["minutes"] = f"{audit['seconds'] / 60:.0f}"
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
