"""Boxes with captions on a photograph, in any script that DejaVu Sans has.

The font is the one that matplotlib brings along, so that a picture looks the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from steadface.data.faces import Image

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

GREEN: Colour = (46, 160, 67)
RED: Colour = (207, 34, 46)
BLUE: Colour = (31, 111, 235)

LINE, LINE_OF_BOX = 1 / 300, 1 / 30
"""Width of a line as a share of the photograph's longer side, and at most of the box, so that a small face shows."""
TEXT = 1 / 40
"""Height of a letter as a share of the longer side; and of the box, so that small faces keep small captions."""
TEXT_OF_BOX = 1 / 6
SMALLEST_TEXT = 10
PADDING = 0.25
"""Around a caption, in heights of a letter."""
SHORTENED = "…"


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A `box` (left, top, right, bottom; pixels) to draw in `colour` (RGB), its `caption` of one or more lines, and
    the `landmarks` (n, 2) to dot.
    """

    box: Box
    caption: str = ""
    colour: Colour = GREEN
    landmarks: NDArray[np.float32] | None = None


def draw_faces(image: Image, faces: Sequence[Marked]) -> Image:
    """`image` (H, W, 3) RGB with every one of `faces` marked, captions on top; the image given stays as it is."""
    picture = Pictures.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for face in faces:
        _mark(pen, face, max(picture.size))
    for face in faces:
        if face.caption.strip():
            _write(pen, face, picture.size)
    return np.array(picture)


def _mark(pen: ImageDraw.ImageDraw, face: Marked, side: int) -> None:
    left, top, right, bottom = face.box
    width = max(1, round(min(LINE * side, LINE_OF_BOX * (right - left))))
    pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=face.colour, width=width)
    for x, y in () if face.landmarks is None else face.landmarks:
        pen.ellipse((x - width, y - width, x + width, y + width), fill=face.colour)


def _write(pen: ImageDraw.ImageDraw, face: Marked, size: tuple[int, int]) -> None:
    """The caption above its box, or below, or inside where there is room for neither; never beyond the picture."""
    height = _letters(face.box, max(size))
    font = _font(height)
    gap = max(1, round(PADDING * height))
    lines = [_fitting(line, font, size[0] - 2 * gap) for line in face.caption.splitlines()]
    width = max(round(font.getlength(line)) for line in lines) + 2 * gap
    step = sum(font.getmetrics())
    tall = step * len(lines) + gap
    x = min(max(0, round(face.box[0])), max(0, size[0] - width))
    y = _top(face.box, tall, size[1])
    pen.rectangle((x, y, x + width, y + tall), fill=face.colour)
    for number, line in enumerate(lines):
        pen.text((x + gap, y + gap // 2 + number * step), line, font=font, fill=_ink(face.colour))


def _top(box: Box, tall: int, height: int) -> int:
    """Where a caption so `tall` begins."""
    above, below = round(box[1]) - tall, round(box[3])
    if 0 <= above <= height - tall:
        return above
    return below if 0 <= below <= height - tall else min(max(0, round(box[1])), max(0, height - tall))


def _letters(box: Box, side: int) -> int:
    return max(SMALLEST_TEXT, round(min(TEXT * side, max(TEXT_OF_BOX * (box[2] - box[0]), TEXT * side / 2))))


def _fitting(line: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`line`, shortened to so many pixels."""
    if font.getlength(line) <= width:
        return line
    kept = len(line)
    while kept and font.getlength(line[:kept] + SHORTENED) > width:
        kept -= 1
    return line[:kept] + SHORTENED


def _ink(colour: Colour) -> Colour:
    """Black on light colours and white on dark ones (luma of ITU-R BT.601)."""
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 150
    return (0, 0, 0) if light else (255, 255, 255)


@cache
def _font(height: int) -> ImageFont.FreeTypeFont:
    matplotlib = find_spec("matplotlib")  # found, not loaded, which would make folders in the user's home
    assert matplotlib is not None
    assert matplotlib.submodule_search_locations
    fonts = Path(matplotlib.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", height)
