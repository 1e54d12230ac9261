"""Where a patch is worn on an aligned face: masks drawn on the five points of the ArcFace template.

    eyeglasses   the frame of a pair of spectacles: two rims, bridge and temples         about 7 % of the picture
    forehead     a sticker between eyebrows and hairline                                 about 6 %
    lower-face   ridge of the nose to chin and cheek to cheek, like a respirator         about 23 %

Coordinates are pixels of the 112 x 112 template with the centre of the first pixel at 0, as in the template itself.
Shapes are placed relative to the template's points, so that each stays tied to eyes, nose and mouth. Every
region is drawn `OVERSAMPLING` times as large and averaged, which smooths its edge at any size.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.data.faces import OLDER_CROP_MARGIN, TEMPLATE
from steadface.errors import InvalidInput

Region = Literal["eyeglasses", "forehead", "lower-face"]
REGIONS: tuple[Region, ...] = get_args(Region)

SIDE = 112
OVERSAMPLING = 8
FRACTION_BITS = 4  # cv2 draws at sixteenths of a pixel

Points = NDArray[np.float64]
"""(n, 2): columns, then rows."""

LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = TEMPLATE
EYES = (LEFT_EYE + RIGHT_EYE) / 2
MOUTH = (LEFT_MOUTH + RIGHT_MOUTH) / 2
DOWN = np.array([0.0, 1.0])


def face_mask(region: Region, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    """Float32 `(1, H, W)` in `[0, 1]`: 1 inside the region, 0 outside, shares of covered pixels along its edge.

    `size` (H, W) is a square, or has the proportions 112 x 96 of the older crop, which lacks 8 of 112 columns on
    either side. Raises `SteadfaceError` for other proportions and for an unknown region.
    """
    height, width = size
    margin = _margin(height, width)
    canvas = np.zeros((height * OVERSAMPLING, height * OVERSAMPLING), dtype=np.uint8)
    for points, value in _shapes(region):
        _fill(canvas, (points + 0.5) * (height / SIDE * OVERSAMPLING) - 0.5, value)
    cut = round(margin * OVERSAMPLING)
    drawn = np.ascontiguousarray(canvas[:, cut : canvas.shape[1] - cut])
    averaged = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(averaged).float().div(255).unsqueeze(0)


def _margin(height: int, width: int) -> float:
    """Columns of a square picture of that height that are missing on either side."""
    older = SIDE - 2 * OLDER_CROP_MARGIN
    if height < 1 or width not in (height, round(height * older / SIDE)):
        raise InvalidInput(
            f"faces of {height} x {width} are not aligned to the template; give a square or the proportions "
            f"{SIDE} x {older} (height x width)"
        )
    return (height - width) / 2


def _shapes(region: Region) -> Sequence[tuple[Points, int]]:
    """Polygons, each filled with its value (255 covers, 0 uncovers) over those before it."""
    if region == "eyeglasses":
        return _eyeglasses()
    if region == "forehead":
        return _forehead()
    if region == "lower-face":
        return _lower_face()
    raise InvalidInput(f"there is no region '{region}' of a face; give one of {', '.join(REGIONS)}")


def _eyeglasses() -> Sequence[tuple[Points, int]]:
    """Rims whose glass an eye looks through at a little above its middle; temples reach the edge of the face."""
    apart = float(RIGHT_EYE[0] - LEFT_EYE[0])
    glass, rim = np.array([0.37, 0.29]) * apart, 0.11 * apart
    centres = [eye + 0.05 * apart * DOWN for eye in (LEFT_EYE, RIGHT_EYE)]
    bar = np.array([[-0.62, -0.22], [1.62, -0.22], [1.62, -0.06], [-0.62, -0.06]])
    bars = centres[0] + bar[:, :1] * (centres[1] - centres[0]) + bar[:, 1:] * apart * DOWN
    temples = bars + np.array([[-1, 0], [1, 0], [1, 0], [-1, 0]]) * 0.12 * apart
    rims = [(superellipse(centre, glass + rim), 255) for centre in centres]
    return [(temples, 255), *rims, *((superellipse(centre, glass), 0) for centre in centres)]


def _forehead() -> Sequence[tuple[Points, int]]:
    """As far above the eyes as the mouth is below them, less a quarter: clear of the eyebrows of most faces."""
    middle = EYES - 0.72 * (MOUTH - EYES)
    return [(superellipse(middle, np.array([21.5, 9.5]), power=4), 255)]


def _lower_face() -> Sequence[tuple[Points, int]]:
    """From the ridge of the nose over the cheeks below the eyes to the jaw; mirrored at the middle of the face."""
    ridge, chin = EYES + 0.5 * (NOSE - EYES), MOUTH + 1.0 * (MOUTH - NOSE)
    half = np.array([[0.0, ridge[1]], [11, ridge[1] + 3], [20, NOSE[1] - 4], [37, NOSE[1] - 3], [37.5, MOUTH[1] - 8]])
    jaw = np.array([[31, MOUTH[1] + 8], [19, chin[1] - 3], [0, chin[1] + 1]])
    right = np.concatenate([half, jaw])
    left = (right * [-1, 1])[::-1]
    outline = rounded(np.concatenate([right, left]))
    return [(outline + MOUTH * [1, 0], 255)]


def superellipse(centre: Points, half: Points, *, power: float = 3, corners: int = 96) -> Points:
    """Points of `|x / a|^power + |y / b|^power = 1` about `centre`: an ellipse at 2, almost a box at large ones."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points: Points = centre + half * np.sign(circle) * np.abs(circle) ** (2 / power)
    return points


def rounded(corners: Points, rounds: int = 3) -> Points:
    """Chaikin's corner cutting: each edge is kept from its first to its last quarter, `rounds` times."""
    for _ in range(rounds):
        after = np.roll(corners, -1, axis=0)
        cut = np.stack([0.75 * corners + 0.25 * after, 0.25 * corners + 0.75 * after], axis=1)
        corners = cut.reshape(-1, 2)
    return corners


def _fill(canvas: NDArray[np.uint8], points: Points, value: int) -> None:
    fixed = np.rint(points * 2**FRACTION_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], value, lineType=cv2.LINE_8, shift=FRACTION_BITS)
