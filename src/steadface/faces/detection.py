"""What a detector finds, and how findings of several looks become one list."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import atan2, degrees
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import TEMPLATE, Image

Boxes = NDArray[np.float32]
"""(N, 4) left, top, right, bottom."""

SAME_IOU = 0.35
"""Two boxes that share more of their union are one face."""
SAME_INSIDE = 0.8
"""So is a box of which more lies inside a surer one: an eye or a mouth taken for a face."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """`box` is left, top, right, bottom in pixels of the upright photograph; a face that the picture cuts off may reach
    beyond it. `landmarks` (5, 2) float32: left eye, right eye, nose, left and right corner of the mouth, in image
    order, were the face upright. `score` in 0..1. `unsure` says that it looks nearly as much like a face the other way
    up, for which other landmarks would be right.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    score: float
    unsure: bool = False

    @property
    def size(self) -> float:
        """The longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def roll(self) -> float:
        """By how many degrees the face is turned clockwise in the picture, -180..180: from its eyes to its mouth."""
        left, right, _, mouth_left, mouth_right = self.landmarks.astype(np.float64)
        x, y = mouth_left + mouth_right - left - right
        return degrees(atan2(-x, y))

    @property
    def turned(self) -> int:
        """The same to the next quarter turn: 0, 90, 180 or 270."""
        return round(self.roll / 90) % 4 * 90


class Detector(Protocol):
    """Finds faces; may be used from several threads."""

    def detect(self, image: Image) -> list[Face]:
        """The faces of `image` (H, W, 3) RGB, largest first."""
        ...


class WholePicture:
    """A detector for pictures that are aligned faces already: it sees one, from edge to edge."""

    def detect(self, image: Image) -> list[Face]:
        height, width = image.shape[:2]
        landmarks = (TEMPLATE * [width / 112, height / 112]).astype(np.float32)
        return [Face(box=(0, 0, width, height), landmarks=landmarks, score=1.0)]


class Look(Protocol):
    """A network that looks at a picture once, as large as it is given; may be used from several threads.

    It sees faces whose longer side is `smallest` pixels or more.
    """

    @property
    def smallest(self) -> float: ...

    def __call__(self, image: Image) -> list[Face]:
        """The faces of `image` (H, W, 3) RGB whose score is `LEAST_SCORE` or more, in any order, none of them twice."""
        ...


LEAST_SCORE = 0.5
"""Fainter ones are noise; a second look decides about the rest."""

FARTHEST = 1e6
"""Pixels from the corner of a picture: what a network places farther away is no face of it."""
MOST_SEEN = 1000
"""Faces of one look, the surest: each is then looked at closely. The largest crowds have some hundreds."""


def largest_first(faces: Sequence[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: (-_area(face), face.box))


def distinct(faces: Sequence[Face]) -> list[Face]:
    """One of each face, the surest: non-maximum suppression over the looks of several scales."""
    if len(faces) < 2:
        return list(faces)
    ranked = sorted(faces, key=lambda face: (-face.score, face.box))
    boxes = np.array([face.box for face in ranked], dtype=np.float32)
    kept: list[int] = []
    for index in range(len(ranked)):
        if not kept or not _same(boxes[kept], boxes[index]).any():
            kept.append(index)
    return [ranked[index] for index in kept]


def unknown(faces: Sequence[Face], known: Sequence[Face]) -> list[Face]:
    """Those of `faces` that are in the place of none of the `known`."""
    return [face for face in faces if not any(_overlap(face, one) > SAME_IOU for one in known)]


def moved(face: Face, *, scale: float, shift: tuple[float, float] = (0.0, 0.0)) -> Face:
    """`face` with every coordinate p at (p - shift) / scale: back from a picture scaled, then moved by `shift`."""
    x, y = shift
    left, top, right, bottom = face.box
    return replace(
        face,
        box=((left - x) / scale, (top - y) / scale, (right - x) / scale, (bottom - y) / scale),
        landmarks=((face.landmarks - np.array(shift)) / scale).astype(np.float32),
    )


def _same(boxes: Boxes, box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each of `boxes` (N, 4) is of the same face as the less sure `box` (4,)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.clip(sides, 0, None).prod(1)
    own = max(float((box[2:] - box[:2]).prod()), 1e-6)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + own - shared
    found: NDArray[np.bool_] = (shared > SAME_IOU * union) | (shared > SAME_INSIDE * own)
    return found


def _overlap(one: Face, other: Face) -> float:
    """Intersection over union."""
    (a, b, c, d), (e, f, g, h) = one.box, other.box
    shared = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    return shared / max(_area(one) + _area(other) - shared, 1e-6)


def _area(face: Face) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


LARGER = 1.5
"""How many times as large the largest face must be as the next for it to be clear whom a photograph is of."""


def is_clear(faces: Sequence[Face]) -> bool:
    """Whether the largest of `faces` (largest first, one or more) is so by far, and the photograph of that person."""
    return len(faces) == 1 or faces[0].size >= LARGER * faces[1].size
