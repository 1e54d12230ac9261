"""A network that sees faces of some sizes, upright, finds those of every size and whichever way up: several looks, as
few as will do.

    first    the whole picture at a moderate size, and half as large in the three other quarter turns
    coarse   nothing found: small, with a border around it, for a face that fills the picture or is cut off by it
    fine     nothing found, or faces so small that others beside them may have been missed: twice as large each time,
             until a face of `min_size` pixels of the photograph would be seen
    around   every face found: in eight directions at once, which settles which way up it is (`turning`)
    close    and then twice more, upright and at one size, which settles whether it is a face and where its landmarks
             are

Landmarks decide how well faces are recognised: the first look sees many faces small, where a landmark off by a pixel is
off by a tenth of the eyes' distance; and of a face that is not upright it tells none that is true.
``benchmarks/detection_table.py`` measures what looks cost and bring, ``benchmarks/turned_table.py`` turned photographs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import cast

import cv2

from steadface.data.faces import Image
from steadface.errors import InvalidInput, SteadfaceError
from steadface.faces.alignment import similarity, template_for, warped
from steadface.faces.detection import Face, Look, distinct, largest_first, moved, unknown
from steadface.faces.turning import QUARTERS, Shown, directions, in_the_middle, rival, seen_back, turned, turned_back

MIN_SIZE = 24.0
"""Pixels: a face that small has ten between the eyes, which no recogniser makes anything of."""

FIRST_SIDE = 480
"""Longer side of the first look: finds faces from 1/40 of the picture on up to its whole height."""
ASIDE = 0.5
"""In the three other quarter turns a picture is looked at so much smaller: together they take 3/4 of a look, and a face
that is one way up when all others are not is found from twice the size on."""
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
CLOSE_LOOKS = 2
"""The first one still sees a face tilted by up to 22 degrees."""
SURE = 0.7
"""Score of the second look from which on it is a face. In focus and from the front faces have 0.88 and more, turned or
blurred ones often 0.75; below lie letters and folds of cloth.
"""

CLOSE_CALL = 0.05
"""Two directions that contradict each other and whose scores are that near are both looked at closely; and where those
scores are within `DOUBT`, nothing tells which is right. Of 80 upright photographs two are a close call.
"""
DOUBT = 0.02

LEANING = 60.0
"""Degrees by which people in one photograph may lean apart."""
OTHERWISE = 0.85
"""Score from which on a face is one even if the surest one beside it is another way up; folds of cloth that look like a
face in one of eight directions have up to 0.84.
"""


@dataclass(frozen=True, kw_only=True)
class Searching:
    """A `Detector` made of a `Look`; faces of fewer than `min_size` pixels (longer side) are left out.

    Raises InvalidInput for a `min_size` that is not positive.
    """

    look: Look
    min_size: float = MIN_SIZE

    def __post_init__(self) -> None:
        if not self.min_size > 0:
            raise InvalidInput(f"a smallest face of {self.min_size:g} pixels is out of range; give 1 or more")

    def detect(self, image: Image) -> list[Face]:
        """The faces of `image` (H, W, 3) RGB, largest first, whichever way up they are."""
        side = max(image.shape[:2])
        scale = min(FIRST_SIDE / side, MOST_ENLARGED)
        faces = self._looked(image, _scales(scale, {0}))
        if (ways := _ways(faces) - {0}) and not self._enough(faces, ASIDE * scale):
            faces = self._looked(image, dict.fromkeys(ways, scale), faces)
        if not faces:
            coarse = min(COARSE_SIDE / side, MOST_ENLARGED)
            faces = self._looked(image, dict.fromkeys(QUARTERS, coarse), border=COARSE_BORDER)
        finest = min(1.0, self.look.smallest / self.min_size, FINEST_SIDE / side)
        while scale < finest and not self._enough(faces, scale):
            scale = min(2 * scale, finest)
            faces = self._looked(image, _scales(scale, _ways(faces) or {0}), faces)
        return largest_first([face for face in _believed(faces) if face.size >= self.min_size])

    def _enough(self, faces: list[Face], scale: float) -> bool:
        """Whether smaller faces than these would have been seen at that scale."""
        return bool(faces) and min(face.size for face in faces) * scale >= COMPANY * self.look.smallest

    def _looked(
        self, image: Image, scales: Mapping[int, float], known: Sequence[Face] = (), *, border: float = 0.0
    ) -> list[Face]:
        """`known` faces, and those seen after the quarter turns for which `scales` has a scale."""
        pictures = {scale: scaled(image, scale) for scale in scales.values()}
        sights = [face for way, scale in scales.items() for face in self._seen(*pictures[scale], way, border)]
        settled = (self._settled(image, face) for face in distinct(unknown(sights, known)))
        return distinct([*known, *(face for face in settled if face is not None)])

    def _seen(self, small: Image, scale: float, quarters: int, border: float) -> list[Face]:
        shift = ceil(border * max(small.shape[:2]))
        if shift:
            small = cv2.copyMakeBorder(small, shift, shift, shift, shift, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        found = (turned_back(face, quarters, small.shape[:2]) for face in self.look(turned(small, quarters)))
        return [moved(face, scale=scale, shift=(shift, shift)) for face in found]

    def _settled(self, image: Image, face: Face) -> Face | None:
        """`face` upright, the way up in which it is most a face, as close looks see it; None where they see none."""
        shown = directions(self.look, image, face)
        if not shown:
            return None
        found, other = self._closer(image, shown[0]), rival(shown)
        if other is None or other.face.score < shown[0].face.score - CLOSE_CALL:
            return found
        return _surer(found, self._closer(image, other))

    def _closer(self, image: Image, shown: Shown) -> Face | None:
        """The face of one direction, upright by its landmarks."""
        face = seen_back(shown)
        for _ in range(CLOSE_LOOKS):
            try:
                matrix = similarity(face.landmarks, CLOSE_TEMPLATE)
            except SteadfaceError:  # no order of a face: it is none
                return None
            seen = self.look(warped(image, matrix, (CLOSE_SIDE, CLOSE_SIDE)))
            near = [one for one in seen if one.score >= SURE and in_the_middle(one, CLOSE_SIDE)]
            if not near:
                return None
            face = seen_back(Shown(face=max(near, key=lambda one: one.score), matrix=matrix))
        return face


def _ways(faces: Sequence[Face]) -> set[int]:
    """Quarter turns against the clock that set them upright."""
    return {face.turned // 90 for face in faces}


def _scales(scale: float, ways: set[int]) -> dict[int, float]:
    """Of every quarter turn: `ways` at `scale`, the others aside."""
    return {way: scale if way in ways else ASIDE * scale for way in QUARTERS}


def _believed(faces: Sequence[Face]) -> list[Face]:
    """Those the same way up as the surest of them, and of the others those that are sure to be faces at all."""
    if not faces:
        return []
    roll = max(faces, key=lambda face: face.score).roll
    return [face for face in faces if face.score >= OTHERWISE or abs((face.roll - roll + 180) % 360 - 180) <= LEANING]


def _surer(one: Face | None, other: Face | None) -> Face | None:
    """The surer of two readings of a face, unsure where neither is so by much."""
    if one is None or other is None:
        return one or other
    first, second = sorted((one, other), key=lambda face: -face.score)
    return replace(first, unsure=first.score - second.score < DOUBT)


def scaled(image: Image, scale: float) -> tuple[Image, float]:
    """`image` at about `scale`, by area when it shrinks and linearly when it grows; and its longer side's scale."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image, 1.0
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(image, size, interpolation=interpolation)), max(size) / max(width, height)
