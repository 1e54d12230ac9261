"""The page of one audit: a self-contained HTML document and its numbers as JSON, written together.

A section is a file that makes it of the record, and a line in `render_audit`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steadface.audit_record import Audit, Comparison, Model
from steadface.files import write_together
from steadface.records import Record
from steadface.report import html
from steadface.report.arm import Arm, AttackExample
from steadface.report.audit.checks import checks
from steadface.report.audit.corruptions import corruptions
from steadface.report.audit.curves import curves
from steadface.report.audit.distances import one_audit
from steadface.report.audit.identification import identification
from steadface.report.audit.patches import patches
from steadface.report.audit.summary import summary
from steadface.report.html import escape
from steadface.report.sheet import sheet
from steadface.report.tables import Cell, name_cell, table
from steadface.report.text import radius

STANDARDS = (
    "The error rates are the false match rate (FMR: pairs of different people that are accepted) and the false "
    "non-match rate (FNMR: pairs of one person that are refused) as ISO/IEC 19795-1, the standard on testing biometric "
    "performance, defines them for ordinary use. That standard describes no attacks.",
    "ISO/IEC 30107-3 tests the detection of presentation attacks: masks, printouts and screens held before the capture "
    "device. The attacks here change the picture after the camera, and so lie outside it.",
    "No standard defines a metric for digital attacks of this kind. What stands here is therefore not a certificate: "
    "the same rates are measured again on attacked pictures, at a threshold frozen on clean pairs.",
    "An attack that fails proves little, since a better one may exist: the true error under attack is at least the one "
    "shown. Intervals cover the choice of the pairs, not that of the people, of the data set or of the attacks.",
)
FACES = (
    "Each row: the picture before the attack, the one that it is compared with, the attacked picture, and the change, "
    "magnified ten times around grey. “Match” means that the recogniser takes both for one person."
)


def write_audit(
    path_html: Path | str, path_json: Path | str, data: Audit, examples: Sequence[AttackExample] = ()
) -> None:
    """Write the page of an audit and its record, `audit.json`; both files, or both as they were.

    `examples` are shown on the page alone. Raises SteadfaceError where a file cannot be written.
    """
    write_page(path_html, path_json, render_audit(data, examples), data)


def write_page(path_html: Path | str, path_json: Path | str, page: str, record: Record) -> None:
    """Write a page with its record; both files, or both as they were."""
    text = json.dumps(record.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_together({Path(path_html): page, Path(path_json): text})


def render_audit(data: Audit, examples: Sequence[AttackExample] = ()) -> str:
    """The whole page as text."""
    sections = [
        summary(data),
        html.section("Can the attacks be believed?", checks(data)),
        html.section("How errors grow with the attack", curves(data)),
        html.section("How far pairs are from breaking", one_audit(data)),
        html.section("Attacked faces", _faces(data, examples)),
        html.section("Attack, or just a bad camera?", corruptions(data)),
        html.section("Patches that somebody could wear", patches(data)),
        html.section("Searching a gallery (1:N)", identification(data)),
        html.section("What standards say", html.paragraphs(STANDARDS)),
        html.section("How to repeat it", repeat(data)),
    ]
    return html.document(data.title or f"Audit of {data.model.name}", "\n".join(s for s in sections if s))


def _faces(data: Audit, examples: Sequence[AttackExample]) -> str:
    rates = {"attacks": [entry.to_json() for entry in data.attacks]}
    faces = sheet([Arm(name=data.model.name, recipe={}, evaluation=rates, examples=list(examples))])
    return html.paragraphs([FACES]) + faces if faces else ""


def repeat(data: Audit | Comparison) -> str:
    """Command, settings, models and versions."""
    settings: dict[str, Any] = data.settings.to_json()
    settings["eps"] = [radius(eps, data.settings.norm) for eps in data.settings.eps]
    run: dict[str, Any] = dict(data.versions)
    if isinstance(data, Audit) and data.seconds is not None:
        run["seconds"] = round(data.seconds)
    parts = [
        f'<pre class="command">{escape(data.command)}</pre>' if data.command else "",
        '<div class="recipes">',
        values_table(settings, caption="Settings"),
        "<div>",
        values_table(data.settings.budget, caption="What the attacks spend, a pair"),
        values_table(run, caption="Versions and time"),
        "</div>",
        *(model_table(model) for model in ([data.model] if isinstance(data, Audit) else data.models)),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def model_table(model: Model) -> str:
    """What was audited."""
    values = {**model.to_json(), **model.convention.to_json()}
    values.pop("size", None)  # said by image_size
    return values_table(values, caption="Model")


def values_table(values: Mapping[str, Any], *, caption: str) -> str:
    """Names and values in words; what is null or nested is left out."""
    rows = []
    for key, value in values.items():
        text = _written(value)
        if text:
            rows.append([name_cell(key.replace("_", " ")), Cell(text=text, style="word")])
    return table(head=[], body=[rows], caption=caption) if rows else ""


def _written(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_written(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
