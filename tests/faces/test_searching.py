"""Which looks are made for which photographs, with a network that sees faces of some sizes only.

The planted network sees white squares on black: a face is a square, its landmarks the template's in it.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from steadface.data.faces import Image
from steadface.errors import SteadfaceError
from steadface.faces.alignment import TEMPLATE
from steadface.faces.detection import Face
from steadface.faces.searching import CLOSE_SIDE, FIRST_SIDE, Searching, scaled

SEEN = (12.0, 330.0)
"""Sides of the squares that the network sees, as YuNet does about."""


@dataclass
class Squares:
    """A `Look` that keeps what it was shown."""

    blind_to: tuple[float, float] = (-1, -1)
    off: float = 0.0
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def smallest(self) -> float:
        return SEEN[0]

    @property
    def scans(self) -> list[int]:
        """Longer sides of the looks at whole photographs."""
        return [max(shape) for shape in self.shapes if shape != (CLOSE_SIDE, CLOSE_SIDE)]

    def __call__(self, image: Image) -> list[Face]:
        self.shapes.append(image.shape[:2])
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 1] > 127).astype(np.uint8))
        return [self._face(*map(float, row[:4])) for row in stats[1:] if self._sees(row, image.shape)]

    def _sees(self, row: np.ndarray, shape: tuple[int, ...]) -> bool:
        side = max(row[2:4])
        cut = row[0] == 0 or row[1] == 0 or row[0] + row[2] == shape[1] or row[1] + row[3] == shape[0]
        return SEEN[0] <= side <= SEEN[1] and not cut and not self.blind_to[0] <= side <= self.blind_to[1]

    def _face(self, left: float, top: float, width: float, height: float) -> Face:
        landmarks = (TEMPLATE + 0.5) * max(width, height) / 112 + [left + self.off, top]
        return Face(box=(left, top, left + width, top + height), landmarks=landmarks.astype(np.float32), score=0.9)


def photograph(width: int, height: int, *squares: tuple[int, int, int]) -> Image:
    """Black, with white squares (left, top, side)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for left, top, side in squares:
        pixels[top : top + side, left : left + side] = 255
    return pixels


def test_a_portrait_takes_one_look_and_a_second_at_the_face() -> None:
    look = Squares()
    (face,) = Searching(look=look).detect(photograph(1200, 900, (400, 200, 300)))
    assert look.shapes == [(360, FIRST_SIDE), (CLOSE_SIDE, CLOSE_SIDE)]
    assert np.allclose(face.box, (400, 200, 700, 500), atol=6)


def test_landmarks_are_those_of_the_second_look() -> None:
    """The first look is wrong by 3 of its pixels, 30 of the photograph; the second is wrong by 3 of its own, 9."""
    look = Squares(off=3)
    (face,) = Searching(look=look).detect(photograph(4800, 3600, (1000, 1000, 300)))
    assert 4 < np.abs(face.landmarks[:, 0] - (TEMPLATE[:, 0] * 300 / 112 + 1000)).max() < 16


def test_a_face_that_fills_the_picture_is_found_with_a_border_around_it() -> None:
    look = Squares()
    (face,) = Searching(look=look).detect(photograph(900, 900, (0, 0, 900)))
    assert look.scans == [FIRST_SIDE, 320]
    assert np.allclose(face.box, (0, 0, 900, 900), atol=15)


def test_small_faces_in_a_large_picture_are_looked_for_until_the_smallest_asked_for_would_be_seen() -> None:
    picture = photograph(4800, 3600, (2000, 1500, 40))
    look = Squares()
    (face,) = Searching(look=look).detect(picture)
    assert look.scans == [480, 320, 960, 1920, 2400]
    assert np.allclose(face.box, (2000, 1500, 2040, 1540), atol=3)
    patient = Squares()
    assert Searching(look=patient, min_size=60).detect(picture) == []
    assert patient.scans == [480, 320, 960], "12 pixels of that are 60 of the photograph"


def test_several_people_of_several_sizes_each_once_and_largest_first() -> None:
    squares = [(100, 100, 700), (1200, 300, 300), (2000, 1000, 90), (2300, 1000, 45)]
    found = Searching(look=Squares()).detect(photograph(2880, 2160, *squares))
    assert np.allclose([face.box for face in found], [(x, y, x + side, y + side) for x, y, side in squares], atol=8)


def test_what_the_second_look_does_not_see_is_no_face() -> None:
    assert Searching(look=Squares(blind_to=(90, 140))).detect(photograph(480, 480, (100, 100, 150))) == []


def test_a_turned_head_keeps_its_box_level_and_its_landmarks_in_place() -> None:
    turned = cv2.warpAffine(
        photograph(480, 480, (190, 190, 100)), cv2.getRotationMatrix2D((240, 240), 20, 1), (480, 480)
    )
    (face,) = Searching(look=Squares()).detect(turned)
    assert np.allclose(face.centre, (240, 240), atol=6)


def test_thumbnails_are_enlarged_and_odd_shapes_survive() -> None:
    (face,) = Searching(look=Squares()).detect(photograph(60, 60, (15, 15, 30)))
    assert np.allclose(face.box, (15, 15, 45, 45), atol=2)
    for width, height in ((1, 1), (1, 3000), (5000, 2)):
        assert Searching(look=Squares()).detect(photograph(width, height)) == []


def test_faces_below_the_smallest_asked_for_are_left_out() -> None:
    picture = photograph(480, 480, (50, 50, 100), (300, 300, 30))
    assert len(Searching(look=Squares()).detect(picture)) == 2
    assert len(Searching(look=Squares(), min_size=50).detect(picture)) == 1
    with pytest.raises(SteadfaceError, match="smallest face of 0 pixels"):
        Searching(look=Squares(), min_size=0)


def test_scaled_says_what_it_did() -> None:
    small, scale = scaled(photograph(1000, 500), 0.4804)
    assert small.shape == (240, 480, 3)
    assert scale == pytest.approx(0.48)
