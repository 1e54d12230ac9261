"""The page of one audit: a self-contained HTML document and its numbers as JSON, written together."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from steadface.report import audit_captions, audit_plots, audit_surroundings, audit_tables, audit_words, html
from steadface.report.arm import Arm, AttackExample
from steadface.report.audit_data import (
    GOALS,
    Data,
    Named,
    block,
    distances,
    name_of,
    norm_of,
    records,
    security,
    texts,
    word,
)
from steadface.report.history import number
from steadface.report.output import plain, write_together
from steadface.report.sheet import sheet
from steadface.report.text import NONE, count, radius


def write_audit(
    path_html: Path | str, path_json: Path | str, data: Mapping[str, Any], examples: Sequence[AttackExample] = ()
) -> None:
    """Write the page of an audit and `data`, the contents of `audit.json`; both files, or both as they were.

    Any key may be absent, any figure null. `examples` are shown on the page alone. Raises SteadfaceError where a file
    cannot be written.
    """
    numbers = plain(data)
    write_page(path_html, path_json, render_audit(numbers, examples), numbers)


def write_page(path_html: Path | str, path_json: Path | str, page: str, numbers: Mapping[str, Any]) -> None:
    """Write a page with its numbers, which are plain already; both files, or both as they were."""
    text = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_together({Path(path_html): page, Path(path_json): text})


def render_audit(data: Data, examples: Sequence[AttackExample] = ()) -> str:
    """The whole page as text."""
    sections = [
        _summary(data),
        html.section("Can the attacks be believed?", _believed(data)),
        html.section("How errors grow with the attack", _curves(data)),
        html.section("How far pairs are from breaking", distance_figure([Named(name=name_of(data), data=data)])),
        html.section("Attacked faces", _faces(data, examples)),
        html.section("Attack, or just a bad camera?", _corruptions(data)),
        html.section("Patches that somebody could wear", _patches(data)),
        html.section("Searching a gallery (1:N)", _identification(data)),
        html.section("What standards say", html.paragraphs(audit_words.STANDARDS)),
        html.section("How to repeat it", repeat(data)),
    ]
    return html.document(word(data, "title", f"Audit of {name_of(data)}"), "\n".join(s for s in sections if s))


def _summary(data: Data) -> str:
    parts = [
        f'<p class="lead">{escape(audit_words.opening(data))}</p>',
        html.box("Read with care", texts(data, "warnings")),
        audit_tables.worst_table(data),
        audit_tables.clean_table([Named(name=name_of(data), data=data)]),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _believed(data: Data) -> str:
    checks = audit_tables.checks_table(data)
    if checks:
        why = (
            "A recogniser can make attacks fail without resisting them, by hiding the slope that they follow. Each of "
            "these checks (after Carlini et al., On Evaluating Adversarial Robustness, 2019) must hold if it does not."
        )
        checks = html.paragraphs([why]) + checks
    surfaces = html.figure(
        audit_surroundings.surface_figure(data),
        "The cosine around attacked pairs, from the clean picture (dot) along the gradient and along a random "
        "direction. White line: the threshold; dotted square: the ball attacked in. A smooth slope can be "
        "followed by an attack; a rough or flat one misleads it.",
        "Contour maps of the cosine around attacked pairs, along the gradient and a random direction",
    )
    return checks + surfaces


def _curves(data: Data) -> str:
    named, norm = Named(name=name_of(data), data=data), norm_of(data)
    figure = html.figure(
        audit_plots.security_figure([named]),
        f"Error by the largest change allowed ({norm}), at a frozen {audit_captions.operating_point(data)}. Thick: the "
        "worst case over the attacks. Bands: 95 % intervals.",
        audit_captions.curve_alt("Worst case", {goal: security(data, goal) for goal in GOALS}, norm),
    )
    return figure + audit_tables.attacks_table(data) + audit_tables.thresholds_table(data)


def distance_figure(audits: Sequence[Named]) -> str:
    """The distributions of distances with their caption, of one audit or of several; empty where there are none."""
    caption = (
        "Share of pairs that break within a distance. Marks at one half: the medians, bars their 95 % intervals. Pairs "
        "that no search broke are counted at the right edge. Distances are the smallest found: the true ones may be "
        "smaller still."
    )
    told = "" if len(audits) > 1 else audit_captions.half_broken(audits[0].data)
    wrong = "" if len(audits) > 1 else _already_wrong(audits[0].data)
    svg = audit_plots.distance_figure(audits)
    return html.paragraphs([told]) + html.figure(svg, f"{caption}{wrong}", audit_captions.distance_alt(audits))


def _already_wrong(data: Data) -> str:
    told = []
    for goal in GOALS:
        wrong = number(block(data, "distances", norm_of(data), goal), "already_wrong")
        if wrong > 0 and distances(data, goal):
            told.append(f"{count(wrong)} for {goal}")
    return f" Wrong without any attack, and so at distance 0: {', '.join(told)}." if told else ""


def _faces(data: Data, examples: Sequence[AttackExample]) -> str:
    faces = sheet([Arm(name=name_of(data), recipe={}, evaluation=data, examples=list(examples))])
    if not faces:
        return ""
    what = (
        "Each row: the picture before the attack, the one that it is compared with, the attacked picture, and the "
        "change, magnified ten times around grey. “Match” means that the recogniser takes both for one person."
    )
    return html.paragraphs([what]) + faces


def _corruptions(data: Data) -> str:
    return html.figure(
        audit_surroundings.corruption_figure(data),
        "Error by the severity of ordinary disturbances, with no attacker. Horizontal line: the worst case under "
        "attack at the smallest radius. Where that lies far above the others, a wrong decision on a picture that looks "
        "clean speaks of an attack rather than of a bad camera. " + audit_captions.corruption_note(data),
        f"Errors under ordinary disturbances. {audit_captions.corruption_note(data)}",
    )


def _patches(data: Data) -> str:
    rates = audit_tables.patches_table(data)
    if not rates:
        return ""
    what = (
        "A patch may take any colours within its outline, so it has no radius and no part in the worst case. Each was "
        "made for one pair, and so that it also deceives a little off its place and in other light."
    )
    return html.paragraphs([what]) + rates


def _identification(data: Data) -> str:
    known, tables = block(data, "identification"), audit_tables.identification_tables(data)
    if not tables:
        return ""
    gallery, strangers, fpir = (number(known, key) for key in ("gallery", "strangers", "fpir"))
    odds = audit_words.odds_of(fpir) if fpir > 0 else NONE
    at = f"the threshold at which {odds} searches of strangers finds somebody (FPIR)"
    if math.isfinite(strangers):
        at += f", set on {count(strangers)} strangers"
    return html.paragraphs([f"A gallery of {count(gallery)} people, searched at {at}."]) + tables


def repeat(data: Data) -> str:
    """Command, settings, model and versions."""
    command = word(data, "command")
    settings = dict(block(data, "settings"))
    norm = norm_of(data)
    if isinstance(settings.get("eps"), list):
        settings["eps"] = [radius(number({"eps": e}, "eps"), norm) for e in settings["eps"]]
    parts = [
        f'<pre class="command">{escape(command)}</pre>' if command else "",
        '<div class="recipes">',
        audit_tables.values_table(settings, caption="Settings"),
        "<div>",
        audit_tables.values_table(block(data, "settings", "budget"), caption="What the attacks spend, a pair"),
        audit_tables.values_table(_run(data), caption="Versions and time"),
        "</div>",
        *(model_table(model) for model in _models(data)),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)


def _models(data: Data) -> list[Data]:
    model = block(data, "model")
    return [model] if model else records(data, "models")


def model_table(model: Data) -> str:
    """What was audited."""
    values = {**model, **block(model, "convention")}
    values.pop("size", None)  # said by image_size
    return audit_tables.values_table(values, caption="Model")


def _run(data: Data) -> dict[str, Any]:
    seconds = number(data, "seconds")
    time = {"seconds": round(seconds)} if math.isfinite(seconds) else {}
    return {**block(data, "versions"), **time}
