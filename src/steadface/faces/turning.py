"""Which way up a face is, found by looking at it in every direction.

Detectors have learnt upright faces, and find something in a face that lies or stands on its head as well: a box in its
place, with the landmarks of an upright face, of which nothing is true. What tells is the score: of the directions in
which a face can be shown it is highest near the upright one (``benchmarks/turned_table.py``: in all of 80 photographs).

Points are continuous: the upper left corner of a picture is (0, 0), its lower right one (width, height). A quarter turn
against the clock takes (x, y) to (y, width - x).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, hypot, pi, sin

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.faces.alignment import warped
from steadface.faces.detection import Face, Look, moved

QUARTERS = (0, 1, 2, 3)
"""Quarter turns against the clock."""

DIRECTIONS = 8
"""In which a face is shown: one of them is within 22.5 degrees of upright, where landmarks are true."""
CELL = 80
"""Pixels of a side of the square that it is shown in. Larger ones take longer and tell directions less well apart."""
CELL_FACE = 40.0
"""Its longer side there."""
ENLARGED = 1.5
NEAR = 2 * round(CELL * ENLARGED / 2**0.5)
"""The picture is first taken so much larger, in a square with room for all directions."""
COLUMNS = 4
SHIFT = 0.5
"""Share of its size by which a face may be elsewhere than the first look said."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The best `face` seen in one direction, where `matrix` (2, 3) took the picture."""

    face: Face
    matrix: NDArray[np.float64]


def turned(image: Image, quarters: int) -> Image:
    """`image` (H, W, 3) by so many quarter turns against the clock, without loss."""
    return np.ascontiguousarray(np.rot90(image, quarters))


def turned_back(face: Face, quarters: int, size: tuple[int, int]) -> Face:
    """`face` of `turned(image, quarters)` in `image`, of `size` = (height, width)."""
    x, y = _back(np.array([[face.box[0], face.box[1]], [face.box[2], face.box[3]]]), quarters, size).T
    return replace(
        face,
        box=(float(x.min()), float(y.min()), float(x.max()), float(y.max())),
        landmarks=_back(face.landmarks, quarters, size).astype(np.float32),
    )


def _back(points: NDArray[np.floating], quarters: int, size: tuple[int, int]) -> NDArray[np.floating]:
    height, width = size
    x, y = points[:, 0], points[:, 1]
    return np.stack(((x, y), (width - y, x), (width - x, height - y), (y, height - x))[quarters % 4], 1)


def directions(look: Look, image: Image, face: Face) -> list[Shown]:
    """What `look` sees in the place of `face` in each direction, best first, of equals the one nearest to the picture's
    own; empty where it sees nothing. All directions are beside each other in one picture.
    """
    near = _matrix(face.centre, NEAR / 2, CELL_FACE * ENLARGED / max(face.size, 1e-6), 0.0)
    around = warped(image, near, (NEAR, NEAR))  # shrunk once for all directions
    turns = [
        _matrix((NEAR / 2, NEAR / 2), CELL / 2, 1 / ENLARGED, 2 * pi * step / DIRECTIONS) for step in range(DIRECTIONS)
    ]
    cells = [warped(around, turn, (CELL, CELL)) for turn in turns]
    matrices = [turn @ np.vstack([near, [0, 0, 1]]) for turn in turns]
    rows = [np.hstack(cells[start : start + COLUMNS]) for start in range(0, DIRECTIONS, COLUMNS)]
    best: dict[int, Face] = {}
    for one in look(np.vstack(rows)):
        x, y = one.centre
        column, row = int(np.clip(x // CELL, 0, COLUMNS - 1)), int(np.clip(y // CELL, 0, len(rows) - 1))
        step, there = row * COLUMNS + column, moved(one, scale=1, shift=(column * CELL, row * CELL))
        if in_the_middle(there, CELL) and (step not in best or there.score > best[step].score):
            best[step] = there
    ranked = sorted(best, key=lambda step: (-best[step].score, min(step, DIRECTIONS - step), step))
    return [Shown(face=best[step], matrix=matrices[step]) for step in ranked]


def rival(shown: Sequence[Shown]) -> Shown | None:
    """Of directions, best first, the best one that contradicts the first: by more than a step of the circle."""
    axes = [each.matrix[:, 0] / hypot(*each.matrix[:, 0]) for each in shown]
    near = cos(2 * pi * 1.5 / DIRECTIONS)
    return next((one for one, axis in zip(shown, axes, strict=True) if axis @ axes[0] < near), None)


def seen_back(shown: Shown) -> Face:
    """The face in the picture before its matrix; its box is as large, and level to the next quarter turn."""
    face, matrix = shown.face, shown.matrix
    scale = float(np.hypot(*matrix[:, 0]))
    turn = np.linalg.inv(matrix[:, :2])
    x, y = turn @ (np.array(face.centre) - matrix[:, 2])
    half = np.array([face.box[2] - face.box[0], face.box[3] - face.box[1]]) / scale / 2
    across, down = half if abs(matrix[0, 0]) >= abs(matrix[1, 0]) else half[::-1]
    landmarks = (face.landmarks - matrix[:, 2]) @ turn.T
    return replace(
        face,
        box=(float(x - across), float(y - down), float(x + across), float(y + down)),
        landmarks=landmarks.astype(np.float32),
    )


def in_the_middle(face: Face, side: int) -> bool:
    """Whether `face` is in the middle of a square picture of it."""
    x, y = face.centre
    return hypot(x - side / 2, y - side / 2) < SHIFT * face.size


def _matrix(centre: tuple[float, float], to: float, scale: float, angle: float) -> NDArray[np.float64]:
    """Takes `centre` to (to, to), scaled and turned clockwise by `angle`."""
    turn = scale * np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    return np.hstack([turn, (to - turn @ np.array(centre))[:, None]])
