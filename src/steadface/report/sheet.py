"""The sheet of attacked faces: source, reference, adversarial image and their difference, magnified."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.report.arm import Arm, AttackExample, entries
from steadface.report.history import number
from steadface.report.html import escape
from steadface.report.text import decimal, radius

MAGNIFICATION = 10
WIDEST = 160  # pixels; larger pictures are shrunk for the page
MOST_EXAMPLES = 12  # on one page: with 112 x 112 faces about 1.5 MB


def difference(source: NDArray[Any], adversarial: NDArray[Any]) -> NDArray[np.float64]:
    """The perturbation times 10 around mid-grey, clipped to [0, 1]; (H, W, 3) like its arguments."""
    change = np.asarray(adversarial, dtype=np.float64) - np.asarray(source, dtype=np.float64)
    return np.asarray(np.clip(0.5 + MAGNIFICATION * change, 0.0, 1.0))


def png_uri(image: NDArray[Any]) -> str:
    """A picture (H, W, 3) RGB in [0, 1] as a `data:` address; NaN is drawn as black."""
    picture = np.nan_to_num(np.clip(np.asarray(image, dtype=np.float64), 0.0, 1.0))
    height, width = picture.shape[:2]
    if max(height, width) > WIDEST:
        scale = WIDEST / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(np.rint(255 * picture).astype(np.uint8)[..., ::-1])
    done, encoded = cv2.imencode(".png", pixels)
    assert done, "a small RGB picture can always be written as PNG"
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def sheet(arms: Sequence[Arm]) -> str:
    """HTML of every arm's examples, at most 12 on the page in equal shares; empty where there are none."""
    with_examples = [arm for arm in arms if len(arm.examples)]
    if not with_examples:
        return ""
    each = max(2, MOST_EXAMPLES // len(with_examples))
    parts = []
    for arm in with_examples:
        cards = "\n".join(_card(arm, example) for example in list(arm.examples)[:each])
        parts.append(f'<h4>{escape(arm.name)}</h4>\n<div class="examples">\n{cards}\n</div>')
    return "\n".join(parts)


def _card(arm: Arm, example: AttackExample) -> str:
    other = "target person" if example.goal == "impersonation" else "same person"
    pictures = (
        ("source", example.source),
        (other, example.reference),
        ("adversarial", example.adversarial),
        (f"difference \N{MULTIPLICATION SIGN} {MAGNIFICATION}", difference(example.source, example.adversarial)),
    )
    cells = "".join(
        f'<div><img src="{png_uri(image)}" alt="{escape(label)}"><span>{escape(label)}</span></div>'
        for label, image in pictures
    )
    return (
        f'<figure class="example"><div class="faces">{cells}</div>'
        f"<figcaption>{_caption(arm, example)}</figcaption></figure>"
    )


def _caption(arm: Arm, example: AttackExample) -> str:
    budget = f"{example.norm} {radius(example.eps, example.norm)}"
    moved = f"cosine {decimal(example.cosine_before, 2)} → {decimal(example.cosine_after, 2)}"
    text = f"<b>{escape(example.goal)}, {escape(budget)}: {moved}</b>"
    threshold = _threshold(arm, example)
    if not math.isfinite(threshold + example.cosine_before + example.cosine_after):
        return text
    before, after = (
        "match" if cosine >= threshold else "no match" for cosine in (example.cosine_before, example.cosine_after)
    )
    return f"{text}<br>{before} → {after} at threshold {decimal(threshold, 2)}"


def _threshold(arm: Arm, example: AttackExample) -> float:
    """The threshold of the evaluation's attack with the example's budget, NaN where it has none."""
    for attack in entries(arm, "attacks"):
        same = attack.get("goal") == example.goal and attack.get("norm") == example.norm
        if same and math.isclose(number(attack, "eps"), example.eps, rel_tol=1e-6):
            return number(attack, "threshold")
    return math.nan
