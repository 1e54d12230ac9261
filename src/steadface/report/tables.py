"""The report's tables as HTML. Every text is escaped here; numbers stand right, in figures of equal width."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steadface.files import plain
from steadface.report.arm import Arm, Goal, Rate, Setting, attacked, clean_fnmr, entries, radii, rate_of, settings
from steadface.report.history import number
from steadface.report.html import escape
from steadface.report.text import NONE, count, decimal, interval, minutes, percent, power, radius


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: its text, a smaller second line, and how many columns or rows it spans."""

    text: str
    below: str = ""
    columns: int = 1
    rows: int = 1
    head: bool = False
    style: str = "number"  # css classes

    def html(self) -> str:
        """The cell as markup."""
        name = "th" if self.head else "td"
        spans = f' colspan="{self.columns}"' if self.columns > 1 else ""
        spans += f' rowspan="{self.rows}"' if self.rows > 1 else ""
        small = f"<small>{escape(self.below)}</small>" if self.below else ""
        return f'<{name} class="{self.style}"{spans}>{escape(self.text)}{small}</{name}>'


def table(
    *, head: Sequence[Sequence[Cell]], body: Sequence[Sequence[Sequence[Cell]]], caption: str = "", style: str = ""
) -> str:
    """A table of header rows and of groups of rows; a rule stands between groups."""

    def rows(lines: Sequence[Sequence[Cell]]) -> str:
        return "\n".join(f"<tr>{''.join(cell.html() for cell in line)}</tr>" for line in lines)

    title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    groups = "\n".join(f"<tbody>\n{rows(group)}\n</tbody>" for group in body)
    return (
        f'<div class="wide"><table class="{style}">\n{title}<thead>\n{rows(head)}\n</thead>\n{groups}\n</table></div>'
    )


def name_cell(text: str, *, rows: int = 1, below: str = "") -> Cell:
    """The name at the start of a row or above a column of them."""
    return Cell(text=text, below=below, head=True, style="name", rows=rows)


def head_cells(*titles: str) -> list[Cell]:
    """One row of titles, the first above names and the others above numbers."""
    return [name_cell(titles[0]), *(Cell(text=title, head=True) for title in titles[1:])]


def rate_cell(rate: Rate, *, first: bool = False) -> Cell:
    """A rate in per cent, its interval below."""
    return Cell(text=percent(rate.rate), below=interval(rate), style="number first" if first else "number")


def training_table(arms: Sequence[Arm]) -> str:
    """Arms as rows: what training took and how the model does on clean faces."""
    found = settings(arms)
    fmr = found[0].fmr if found else _common_fmr(arms)
    second = head_cells("model", "steps", "minutes", "gate open, %", "accuracy, %", "EER, %", "genuine", "impostor")
    second += [Cell(text=f"FNMR at FMR {power(fmr)}, %", head=True)]
    first = [
        name_cell(""),
        Cell(text="training", columns=3, head=True, style="group"),
        Cell(text="clean faces", columns=2, head=True, style="group"),
        Cell(text="mean cosine", columns=2, head=True, style="group"),
        Cell(text="clean error", head=True, style="group"),
    ]
    body = [[_training_row(arm, fmr)] for arm in arms]
    return table(head=[first, second], body=body, caption="Training and recognition of clean faces", style="whole")


def _common_fmr(arms: Sequence[Arm]) -> float:
    rates = sorted({number(point, "fmr") for arm in arms for point in entries(arm, "operating_points")})
    return min(rates, key=lambda fmr: abs(fmr - 1e-2), default=float("nan"))


def _training_row(arm: Arm, fmr: float) -> list[Cell]:
    duty = float("nan") if arm.duty_cycle is None else arm.duty_cycle
    spread = percent(arm.figure("accuracy_std"), 2)
    return [
        name_cell(arm.name),
        Cell(text=count(arm.steps)),
        Cell(text=minutes(arm.seconds)),
        Cell(text=percent(duty)),
        Cell(text=percent(arm.figure("accuracy"), 2), below="" if spread == NONE else f"± {spread}"),
        Cell(text=percent(arm.figure("eer"), 2)),
        Cell(text=decimal(arm.figure("genuine_mean"))),
        Cell(text=decimal(arm.figure("impostor_mean"))),
        rate_cell(clean_fnmr(arm, fmr)),
    ]


def attack_summary(arms: Sequence[Arm], setting: Setting) -> str:
    """Arms as rows, radii as columns: FNMR under dodging, FMR under impersonation, the clean rates beside them."""
    eps = [0.0, *radii(arms, setting)]
    labels = [
        Cell(text=radius(e, setting.norm) if e else "clean", head=True, style="number" if e else "number first")
        for e in eps
    ]
    first = [
        name_cell(""),
        Cell(text="dodging: FNMR, %", columns=len(eps), head=True, style="group"),
        Cell(text="impersonation: FMR, %", columns=len(eps), head=True, style="group"),
        Cell(text="mean cosine", head=True, style="group"),
    ]
    body = [[_attack_row(arm, setting, eps)] for arm in arms]
    caption = f"Under {setting.norm} attack, threshold frozen at FMR {power(setting.fmr)}"
    second = [name_cell("model"), *labels, *labels, Cell(text="impostor", head=True, style="number first")]
    return table(head=[first, second], body=body, caption=caption, style="dense whole")


def _attack_row(arm: Arm, setting: Setting, eps: Sequence[float]) -> list[Cell]:
    goals: tuple[Goal, Goal] = ("dodging", "impersonation")
    missing = Rate(rate=float("nan"))
    rates = [attacked(arm, setting, goal) for goal in goals]
    cells = [rate_cell(by_eps.get(e, missing), first=not e) for by_eps in rates for e in eps]
    return [name_cell(arm.name), *cells, Cell(text=decimal(arm.figure("impostor_mean")), style="number first")]


def operating_points_table(arms: Sequence[Arm], *, key: str, caption: str) -> str:
    """Every arm's TAR and threshold at each FMR, from the evaluation's `key`; empty where there are none."""
    body = []
    for arm in arms:
        rows = []
        points = entries(arm, key)
        for index, point in enumerate(points):
            tar = rate_of(point, "tar", "tar_ci")
            row = [name_cell(arm.name, rows=len(points))] if index == 0 else []
            row += [Cell(text=power(number(point, "fmr"))), Cell(text=decimal(number(point, "threshold")))]
            row += [Cell(text=percent(tar.rate, 2)), Cell(text=interval(tar, 2) or NONE)]
            rows.append([*row, Cell(text=percent(1 - tar.rate, 2))])
        body += [rows] if rows else []
    head = [head_cells("model", "FMR", "threshold", "TAR, %", "95 % interval", "FNMR, %")]
    return table(head=head, body=body, caption=caption) if body else ""


def attacks_table(arms: Sequence[Arm]) -> str:
    """Every attack that was run, not only the worst one; empty where there was none."""
    body = []
    for arm in arms:
        attacks = entries(arm, "attacks")
        rows = []
        for index, attack in enumerate(attacks):
            row = [name_cell(arm.name, rows=len(attacks))] if index == 0 else []
            rows.append([*row, *_attack_cells(attack)])
        body += [rows] if rows else []
    titles = ("attack", "budget", "goal")
    head = [name_cell("model"), *(Cell(text=title, head=True, style="word") for title in titles)]
    numbers = ("FMR", "threshold", "error, %", "95 % interval", "saved as 8 bits, %", "pairs")
    head += [Cell(text=title, head=True) for title in numbers]
    return table(head=[head], body=body, caption="Every attack") if body else ""


def _attack_cells(attack: Mapping[str, Any]) -> list[Cell]:
    norm, rate = str(attack.get("norm")), rate_of(attack, "error_rate", "ci")
    words = (str(attack.get("attack")), f"{norm} {radius(number(attack, 'eps'), norm)}")
    return [
        *(Cell(text=word, style="word") for word in (*words, str(attack.get("goal")))),
        Cell(text=power(number(attack, "fmr"))),
        Cell(text=decimal(number(attack, "threshold"))),
        Cell(text=percent(rate.rate)),
        Cell(text=interval(rate) or NONE),
        Cell(text=percent(number(attack, "error_rate_8bit"))),
        Cell(text=count(number(attack, "pairs"))),
    ]


def differences_table(arms: Sequence[Arm]) -> str:
    """The recipe keys in which the arms differ; empty for a single arm or equal recipes."""
    flat = [_flat(arm.recipe) for arm in arms]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    differing = [key for key in keys if len({recipe.get(key, NONE) for recipe in flat}) > 1]
    if len(arms) < 2 or not differing:
        return ""
    head = [name_cell("key"), *(Cell(text=arm.name, head=True, style="word") for arm in arms)]
    rows = [[name_cell(key), *(Cell(text=r.get(key, NONE), style="word") for r in flat)] for key in differing]
    return table(head=[head], body=[rows], caption="Where the recipes differ")


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(plain(value))
    return found


def pairs_table(pairs: Mapping[str, Any], *, caption: str) -> str:
    """Names and values, as for versions."""
    rows = [[name_cell(str(key)), Cell(text=str(value), style="word")] for key, value in pairs.items()]
    return table(head=[], body=[rows], caption=caption) if rows else ""
