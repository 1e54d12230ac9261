"""A network that sees faces of some sizes finds those of every size: several looks, as few as will do.

    first    the whole picture at a moderate size
    coarse   nothing found: small, with a border around it, for a face that fills the picture or is cut off by it
    fine     nothing found, or faces so small that others beside them may have been missed: twice as large each time,
             until a face of `min_size` pixels of the photograph would be seen
    close    every face found: once more, upright and at one size, which settles whether it is a face and where its
             landmarks are

Landmarks decide how well faces are recognised: the first look sees many faces small, where a landmark off by a pixel is
off by a tenth of the eyes' distance. ``benchmarks/detection_table.py`` measures what each look costs and brings.
"""

from dataclasses import dataclass
from math import ceil, hypot
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.errors import SteadfaceError
from steadface.faces.alignment import similarity, template_for, warped
from steadface.faces.detection import Face, Look, distinct, largest_first, moved

MIN_SIZE = 24.0
"""Pixels: a face that small has ten between the eyes, which no recogniser makes anything of."""

FIRST_SIDE = 480
"""Longer side of the first look: finds faces from 1/40 of the picture on up to its whole height."""
COARSE_SIDE = 160
COARSE_BORDER = 0.5
"""Share of the longer side added on every side."""
FINEST_SIDE = 3840
"""A look that large takes seconds and a gigabyte; a face of 24 pixels in 8,000 is still seen."""
MOST_ENLARGED = 4.0
"""Thumbnails gain nothing from more."""

COMPANY = 2.5
"""People in one photograph are rarely so many times smaller than the smallest who was seen."""

CLOSE_SIDE = 192
"""Of the second look, in pixels."""
CLOSE_TEMPLATE = template_for((128, 128)) + (CLOSE_SIDE - 128) / 2
"""Where it has the landmarks: a face of about 96 pixels, and as much around it."""
CLOSE_SHIFT = 0.5
"""Share of its size by which a face may be elsewhere than the first look said."""
SURE = 0.7
"""Score of the second look from which on it is a face. In focus and from the front faces have 0.88 and more, turned or
blurred ones often 0.75; below lie letters and folds of cloth.
"""


@dataclass(frozen=True, kw_only=True)
class Searching:
    """A `Detector` made of a `Look`; faces of fewer than `min_size` pixels (longer side) are left out.

    Raises SteadfaceError for a `min_size` that is not positive.
    """

    look: Look
    min_size: float = MIN_SIZE

    def __post_init__(self) -> None:
        if not self.min_size > 0:
            raise SteadfaceError(f"a smallest face of {self.min_size:g} pixels is out of range; give 1 or more")

    def detect(self, image: Image) -> list[Face]:
        """The faces of `image` (H, W, 3) RGB, largest first."""
        side = max(image.shape[:2])
        scale = min(FIRST_SIDE / side, MOST_ENLARGED)
        faces = self._looked(image, scale)
        if not faces:
            faces = self._looked(image, min(COARSE_SIDE / side, MOST_ENLARGED), border=COARSE_BORDER)
        finest = min(1.0, self.look.smallest / self.min_size, FINEST_SIDE / side)
        while scale < finest and not self._enough(faces, scale):
            scale = min(2 * scale, finest)
            faces = distinct([*faces, *self._looked(image, scale)])
        return largest_first([face for face in faces if face.size >= self.min_size])

    def _enough(self, faces: list[Face], scale: float) -> bool:
        """Whether smaller faces than these would have been seen at that scale."""
        return bool(faces) and min(face.size for face in faces) * scale >= COMPANY * self.look.smallest

    def _looked(self, image: Image, scale: float, *, border: float = 0.0) -> list[Face]:
        small, exact = scaled(image, scale)
        shift = ceil(border * max(small.shape[:2]))
        if shift:
            small = cv2.copyMakeBorder(small, shift, shift, shift, shift, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        found = [moved(face, scale=exact, shift=(shift, shift)) for face in self.look(small)]
        closer = (self._closer(image, face) for face in found)
        return distinct([face for face in closer if face is not None])

    def _closer(self, image: Image, face: Face) -> Face | None:
        """`face` as a second look sees it, upright at one size; None where that sees no face."""
        try:
            matrix = similarity(face.landmarks, CLOSE_TEMPLATE)
        except SteadfaceError:  # no order of a face: it is none
            return None
        seen = self.look(warped(image, matrix, (CLOSE_SIDE, CLOSE_SIDE)))
        near = [one for one in seen if one.score >= SURE and _in_the_middle(one)]
        return _back(max(near, key=lambda one: one.score), matrix) if near else None


def scaled(image: Image, scale: float) -> tuple[Image, float]:
    """`image` at about `scale`, by area when it shrinks and linearly when it grows; and its longer side's scale."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image, 1.0
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(image, size, interpolation=interpolation)), max(size) / max(width, height)


def _in_the_middle(face: Face) -> bool:
    x, y = face.centre
    return hypot(x - CLOSE_SIDE / 2, y - CLOSE_SIDE / 2) < CLOSE_SHIFT * face.size


def _back(face: Face, matrix: NDArray[np.float64]) -> Face:
    """`face`, seen where `matrix` took the picture, in the picture; its box is as large, and level again."""
    scale = float(np.hypot(*matrix[:, 0]))
    turn = np.linalg.inv(matrix[:, :2])
    x, y = turn @ (np.array(face.centre) - matrix[:, 2])
    half_width, half_height = (face.box[2] - face.box[0]) / scale / 2, (face.box[3] - face.box[1]) / scale / 2
    landmarks = (face.landmarks - matrix[:, 2]) @ turn.T
    return Face(
        box=(float(x - half_width), float(y - half_height), float(x + half_width), float(y + half_height)),
        landmarks=landmarks.astype(np.float32),
        score=face.score,
    )
