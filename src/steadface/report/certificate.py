"""The page of a certificate: a self-contained HTML document and its numbers as JSON, written together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from steadface.audit_record import GOALS, Goal
from steadface.certificate_record import Certificate, CertifiedShare, PairCertificate
from steadface.report import html
from steadface.report.arm import Rate
from steadface.report.audit.page import model_table, values_table, write_page
from steadface.report.audit.summary import counted, odds_of
from steadface.report.html import escape
from steadface.report.sheet import png_uri
from steadface.report.style import STYLE, WIDTH, line, look, svg
from steadface.report.tables import Cell, head_cells, name_cell, rate_cell, table
from steadface.report.text import count, decimal, listing, share

KINDS: dict[Goal, str] = {"dodging": "pairs of one person", "impersonation": "pairs of different people"}
SIDES: dict[Goal, str] = {"dodging": "certified to be accepted", "impersonation": "certified to be refused"}
MEANING = (
    "What is certified is the smoothed verifier: it looks at a picture many times, each time with fresh Gaussian "
    "noise on "
    "every pixel, and compares the median of the cosines with its threshold. Within the certified radius of a pair, "
    "the "
    "length (l2) of a change on the pixel range 0 to 1, no change of the first picture of that pair makes it decide "
    "otherwise, whatever attack is used: that is a theorem, and no attack was needed to find the radius.",
    "The threshold and the enrolled picture are taken as they are: an attacker who can change them, or the "
    "recogniser, is "
    "not meant. Nor is a larger change that people do not see, such as a shift, a scarf or other light: an l2 radius "
    "says "
    "nothing of those.",
    "The median of all noise cannot be known, only drawn. A verifier that draws anew for every decision comes as near "
    "to it "
    "as its draws allow, and near its threshold may decide either way.",
)
FACES = (
    "Each row: the enrolled picture, the one that is certified, and what the recogniser is shown of it, once out of "
    "all draws."
)


class Example(Protocol):
    """A pair as pictures (H, W, 3) RGB; `noisy` beyond [0, 1] too."""

    @property
    def goal(self) -> Goal: ...
    @property
    def enrolled(self) -> NDArray[Any]: ...
    @property
    def probe(self) -> NDArray[Any]: ...
    @property
    def noisy(self) -> NDArray[Any]: ...
    @property
    def cosine(self) -> float: ...
    @property
    def radius(self) -> float: ...


def write_certificate(
    path_html: Path | str, path_json: Path | str, data: Certificate, examples: Sequence[Example] = ()
) -> None:
    """Write the page of a certificate and its record, `certificate.json`; both files, or both as they were.

    `examples` are shown on the page alone. Raises SteadfaceError where a file cannot be written.
    """
    write_page(path_html, path_json, render_certificate(data, examples), data)


def render_certificate(data: Certificate, examples: Sequence[Example] = ()) -> str:
    """The whole page as text."""
    sections = [
        _summary(data),
        html.section("How far pairs are certified", _curves(data)),
        html.section("Certificates, held against an attack", _sandwich(data)),
        html.section("Faces, and what the recogniser is shown of them", _faces(examples)),
        html.section("What is certified, and what is not", html.paragraphs(MEANING)),
        html.section("How to repeat it", _repeat(data)),
    ]
    return html.document(data.title or f"Certificate of {data.model.name}", "\n".join(s for s in sections if s))


def _summary(data: Certificate) -> str:
    parts = [f'<p class="lead">{escape(_opening(data))}</p>', html.box("Read with care", data.warnings), _table(data)]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _opening(data: Certificate) -> str:
    clean, settings = data.smoothed, data.settings
    at = f" ({odds_of(data.calibration.fmr)} pairs of other people)" if data.calibration.fmr > 0 else ""
    largest = max(settings.radii)
    held = [
        f"{counted(one.share, KINDS[one.goal])} are {SIDES[one.goal]}"
        for one in data.certified
        if one.radius == largest
    ]
    return (
        f"Under noise of sigma {settings.sigma:g} the recogniser “{data.model.name}”, smoothed, misses "
        f"{counted(clean.fnmr, KINDS['dodging'])} and accepts {counted(clean.fmr, KINDS['impersonation'])} at a "
        f"threshold "
        f"of {decimal(data.threshold)}{at}. Whatever is changed within an l2 radius of {largest:g}, {listing(held)}; "
        f"all "
        f"of this together holds with a confidence of {share(settings.confidence, 0)}."
    )


def _table(data: Certificate) -> str:
    """Certified shares by radius."""
    head = head_cells("l2 radius", *(f"{KINDS[goal]} {SIDES[goal]}, %" for goal in GOALS), "both, %")
    body = []
    for radius in dict.fromkeys(one.radius for one in data.certified):
        both = {one.goal: one for one in data.certified if one.radius == radius}
        cells = [rate_cell(_rate(both[goal])) for goal in GOALS]
        mean = sum(both[goal].share for goal in GOALS) / len(GOALS)
        body.append([name_cell(f"{radius:g}"), *cells, Cell(text=f"{100 * mean:.1f}")])
    caption = f"Certified shares; intervals are those of the choice of the pairs, {data.settings.draws:,} draws each"
    return table(head=[head], body=[body], caption=caption)


def _rate(entry: CertifiedShare) -> Rate:
    return Rate(rate=entry.share, low=entry.ci[0], high=entry.ci[1])


def _of(data: Certificate, goal: Goal) -> list[PairCertificate]:
    return [pair for pair in data.pairs if pair.goal == goal]


def _curves(data: Certificate) -> str:
    told = [
        f"{SIDES[one.goal]} within {one.radius:g}: {share(one.share)} of the {KINDS[one.goal]}"
        for one in data.certified
    ]
    caption = (
        f"Certified share by l2 radius. Bands: 95 % intervals of the choice of the pairs. No pair can be certified "
        f"beyond "
        f"{data.furthest:.2f} (dotted) with {data.settings.draws:,} draws."
    )
    return html.figure(_curves_figure(data), caption, "; ".join(told) + ".")


def _curves_figure(data: Certificate) -> str:
    """Certified share against the radius, a line a kind of pair; SVG text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        panel = figure.subplots()
        for index, goal in enumerate(GOALS):
            points = [one for one in data.curve if one.goal == goal]
            radii, shares = [one.radius for one in points], [100 * one.share for one in points]
            low, high = ([100 * one.ci[end] for one in points] for end in (0, 1))
            panel.fill_between(radii, low, high, color=look(index).color, alpha=0.18, lw=0)
            panel.plot(radii, shares, label=f"{KINDS[goal]}, {SIDES[goal]}", **line(index, marker=False))
        panel.axvline(data.furthest, color="#666666", ls=":", lw=1)
        panel.set(xlabel="l2 radius, of the pixel range", ylabel="certified pairs (%)", ylim=(-2, 102))
        panel.set_xlim(0, 1.04 * data.furthest)
        panel.legend(loc="lower left")
        return svg(figure)


def _sandwich(data: Certificate) -> str:
    found = data.sandwich
    if found is None:
        return ""
    closest = "" if found.closest is None else f" The closest came to {found.closest:.2f} times the certified radius."
    words = (
        f"{found.pairs} certified pairs were attacked with gradients over the noise ({found.steps} steps, l2). "
        f"{found.broken} could be broken within {found.radius:g}, none within its certified radius: the truth lies "
        f"between the two.{closest} {count(found.checks)} images near these pairs were drawn {count(found.draws)} "
        f"times "
        "each, and none is decided wrongly more often than the certificate of its pair allows at its distance."
    )
    caption = "Certified radius and distance of the nearest image that was found to be decided wrongly, a point a pair."
    return html.paragraphs([words]) + (html.figure(_sandwich_figure(data), caption, words) if found.broken else "")


def _sandwich_figure(data: Certificate) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        panel = figure.subplots()
        most = data.furthest
        for index, goal in enumerate(GOALS):
            reached = [(p.radius, p.distance) for p in _of(data, goal) if p.radius and p.distance is not None]
            x, y = ([point[end] for point in reached] for end in (0, 1))
            most = max([most, *y])
            panel.plot(x, y, look(index).marker, color=look(index).color, ms=5, label=goal)
        panel.plot([0, most], [0, most], color="#666666", lw=1, label="certified = attacked")
        panel.set(xlabel="certified l2 radius", ylabel="attacked l2 distance", xlim=(0, 1.04 * data.furthest))
        panel.set_ylim(0, 1.04 * most)
        panel.legend(loc="upper left")
        return svg(figure)


def _faces(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    return html.paragraphs([FACES]) + f'<div class="examples">{"".join(map(_card, examples))}</div>'


def _card(example: Example) -> str:
    pictures = (("enrolled", example.enrolled), ("certified", example.probe), ("with noise", example.noisy))
    cells = "".join(
        f'<div><img src="{png_uri(image)}" alt="{escape(label)}"><span>{escape(label)}</span></div>'
        for label, image in pictures
    )
    radius = f"certified within l2 {example.radius:.2f}" if example.radius > 0 else "not certified"
    kind = "one person" if example.goal == "dodging" else "different people"
    text = f"{kind}, smoothed cosine {decimal(example.cosine, 2)}: {radius}"
    return f'<figure class="example"><div class="faces">{cells}</div><figcaption>{escape(text)}</figcaption></figure>'


def _repeat(data: Certificate) -> str:
    run: dict[str, Any] = dict(data.versions)
    for name, value in (("seconds", data.seconds), ("pairs per minute", data.pairs_per_minute)):
        run |= {} if value is None else {name: round(value, 1)}
    statements = {"statements": data.statements, "each may be wrong with probability": f"{data.alpha:.2g} (Bonferroni)"}
    parts = [
        f'<pre class="command">{escape(data.command)}</pre>' if data.command else "",
        '<div class="recipes">',
        values_table(data.settings.to_json(), caption="Settings"),
        "<div>",
        values_table(statements, caption="Confidence"),
        values_table(run, caption="Versions and time"),
        "</div>",
        model_table(data.model),
        "</div>",
    ]
    return "\n".join(part for part in parts if part)
