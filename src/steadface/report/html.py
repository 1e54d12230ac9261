"""The frame that every page of the report shares: one self-contained document, its sections, figures and lists.

Every text is escaped here; `content` and `body` are markup already.
"""

import base64
import html
from collections.abc import Sequence
from importlib.resources import files

from steadface.errors import visible


def escape(text: str, *, lines: bool = False) -> str:
    """`text` as HTML shows it, in which nothing is markup and everything is seen, see `visible`."""
    return html.escape(visible(text, lines=lines))


def document(title: str, body: str) -> str:
    """A whole page that loads nothing and runs no script, under its title."""
    style = files("steadface.report").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1></header>
{body}
</main>
</body>
</html>
"""


def section(title: str, content: str) -> str:
    """A headed section; empty where there is no content."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def figure(svg: str | None, caption: str, alt: str) -> str:
    """An SVG picture with its caption and alternative text; empty where there is none."""
    if svg is None:
        return ""
    address = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
    return (
        f'<figure><img class="plot" src="{address}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def items(texts: Sequence[str], style: str) -> str:
    """A bulleted list of css class `style`; empty where there are no texts."""
    lines = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{style}">{lines}</ul>' if texts else ""


def paragraphs(texts: Sequence[str], style: str = "") -> str:
    """A paragraph for every text that is not empty."""
    start = f'<p class="{style}">' if style else "<p>"
    return "\n".join(f"{start}{escape(text)}</p>" for text in texts if text)


def box(title: str, texts: Sequence[str]) -> str:
    """A box of warnings; empty where there are none."""
    return f"<aside><h3>{escape(title)}</h3>{items(texts, 'cautions')}</aside>" if texts else ""
