"""The report: one self-contained HTML page and one JSON file, written together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from steadface.errors import InvalidInput
from steadface.files import plain, write_together
from steadface.report import candidates, html, plots, tables, text, training_plots
from steadface.report.arm import Arm, settings, supported_fmr
from steadface.report.html import escape
from steadface.report.sheet import sheet
from steadface.report.text import power


def write_report(
    path_html: Path | str,
    path_json: Path | str,
    *,
    title: str,
    arms: Sequence[Arm],
    versions: Mapping[str, str],
    seed: int,
    command: str,
    notes: Sequence[str] | str = (),
) -> None:
    """Write the page and its numbers; both files are complete or as they were before.

    The HTML loads nothing and runs no script. The JSON has `title`, `seed`, `command`, `versions`, `notes` and
    `arms`: a list with `name`, `recipe`, every field of the arm's evaluation, `seconds`, `steps` and `duty_cycle`;
    NaN and infinities become null. `notes` stand at the top of the page, after the summary in words.

    Raises SteadfaceError for no arm, for two of one name, and for a file that cannot be written.
    """
    names = [arm.name for arm in arms]
    if not names:
        raise InvalidInput("a report needs at least one arm: pass a training run with its evaluation")
    if len(set(names)) < len(names):
        raise InvalidInput(f"the arms {', '.join(names)} share a name: give each its own")
    remarks = [notes] if isinstance(notes, str) else list(notes)
    remarks = [remark for remark in remarks if remark]
    about = {"title": title, "seed": seed, "command": command, "versions": dict(versions), "notes": remarks}
    data = plain({**about, "arms": [_arm_data(arm) for arm in arms]})
    page = render_page(title=title, arms=arms, versions=versions, seed=seed, command=command, notes=remarks)
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_together({Path(path_html): page, Path(path_json): text})


def _arm_data(arm: Arm) -> dict[str, Any]:
    run = {"seconds": arm.seconds, "steps": arm.steps, "duty_cycle": arm.duty_cycle, "recipe": arm.recipe}
    return {"name": arm.name} | dict(arm.evaluation) | {"name": arm.name, **run}


def render_page(
    *,
    title: str,
    arms: Sequence[Arm],
    versions: Mapping[str, str],
    seed: int,
    command: str,
    notes: Sequence[str] = (),
) -> str:
    """The whole page as text."""
    sections = [
        _summary(arms, notes),
        _training(arms),
        _recognition(arms),
        _attack(arms),
        html.section("What this does not show", html.paragraphs(text.LIMITS)),
        _repeat(arms, versions, seed, command),
    ]
    body = "\n".join(section for section in sections if section)
    return html.document(title, body)


def _summary(arms: Sequence[Arm], notes: Sequence[str]) -> str:
    told = "".join(f"<dt>{escape(arm.name)}</dt><dd>{escape(text.about(arm))}</dd>" for arm in arms)
    compared = text.comparison(arms)
    parts = [
        f'<p class="lead">{escape(text.opening(arms))} {escape(compared)}</p>',
        f"<dl>{told}</dl>",
        html.box("Read with care", text.cautions(arms)),
        html.items(notes, "notes"),
        tables.training_table(arms),
        *(tables.attack_summary(arms, setting) for setting in settings(arms)),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _training(arms: Sequence[Arm]) -> str:
    loss = html.figure(
        training_plots.loss_figure(arms),
        "Loss by step: averages, and as a thin line each logged source batch. Shaded: the gate was open, that is, "
        "adversarial samples were trained on.",
        "Loss curves with the gate's open stretches shaded",
    )
    held_out = html.figure(
        training_plots.validation_figure(arms),
        "The held-out people during training: equal error rate on clean faces, and the error rate of the worse goal "
        "under PGD, its mean over the radii.",
        "Clean and attacked error on held-out people by step",
    )
    return html.section("Training", loss + held_out + "".join(candidates.shown(arm) for arm in arms))


def _recognition(arms: Sequence[Arm]) -> str:
    ends = [fmr for arm in arms if (fmr := supported_fmr(arm)) > 0]
    end = f" The axis ends at FMR {power(min(ends))}, the lowest that the impostor pairs support." if ends else ""
    curves = html.figure(
        plots.curves_figure(arms),
        f"ROC, with operating points and their 95 % intervals, and DET. Dotted: chance (ROC), equal error (DET).{end}",
        "ROC and DET curves",
    )
    points = tables.operating_points_table(arms, key="operating_points", caption="Operating points on clean pairs")
    crossed = tables.operating_points_table(
        arms,
        key="cross_operating_points",
        caption="Operating points on all cross pairs (they share images: the intervals are too narrow)",
    )
    return html.section("Recognition of clean faces", curves + points + crossed)


def _attack(arms: Sequence[Arm]) -> str:
    figures = ""
    for setting in settings(arms):
        caption = (
            f"Error under {setting.norm} attack, the worst over the attacks tried, at a threshold frozen at "
            f"FMR {power(setting.fmr)}. Bands: 95 % intervals. A model that errs often on clean faces has little "
            "left to lose."
        )
        figures += html.figure(plots.error_figure(arms, setting), caption, "Error rates against the radius")
    faces = sheet(arms)
    if faces:
        faces = f"<h3>Attacked faces</h3>{faces}"
    return html.section("Under attack", figures + tables.attacks_table(arms) + faces)


def _repeat(arms: Sequence[Arm], versions: Mapping[str, str], seed: int, command: str) -> str:
    recipes = "".join(
        f'<div class="recipe"><h4>{escape(arm.name)}</h4><pre>{escape(_yaml(arm.recipe), lines=True)}</pre></div>'
        for arm in arms
    )
    parts = [
        f'<pre class="command">{escape(command)}</pre>',
        tables.pairs_table({"seed": seed, **versions}, caption="Seed and versions"),
        tables.differences_table(arms),
        f'<h3>Recipes</h3><div class="recipes">{recipes}</div>',
    ]
    return html.section("How to repeat it", "\n".join(part for part in parts if part))


def _yaml(recipe: Mapping[str, Any]) -> str:
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip()
