"""Which looks are made for which photographs, with a network that sees faces of some sizes only.

The planted network sees white squares on black: a face is a square, its landmarks the template's in it.
"""

import io
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from steadface.data.faces import TEMPLATE, Image
from steadface.errors import SteadfaceError
from steadface.faces.detection import Face
from steadface.faces.photograph import ORIENTATION, read_photograph
from steadface.faces.scrfd import Scrfd
from steadface.faces.searching import CLOSE_SIDE, FIRST_SIDE, Searching, scaled
from steadface.faces.turning import CELL, COLUMNS, DIRECTIONS

from .planted import Discs, DiscsSession, discs, marks

AROUND = DIRECTIONS // COLUMNS * CELL, COLUMNS * CELL
"""(Height, width) of the look in all directions at once."""

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
        """Longer sides of the looks at whole photographs, of each the largest of the four ways."""
        looks = [max(shape) for shape in self.shapes if shape not in (AROUND, (CLOSE_SIDE, CLOSE_SIDE))]
        assert len(looks) % 4 == 0
        return [max(looks[start : start + 4]) for start in range(0, len(looks), 4)]

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


def test_a_portrait_takes_one_look_and_smaller_ones_the_other_ways_and_then_the_face_is_looked_at() -> None:
    look = Discs()
    (face,) = Searching(look=look).detect(discs(1200, 900, (550, 350, 150, 0)))
    whole = [(360, FIRST_SIDE), (240, 180), (180, 240), (240, 180)]
    assert look.shapes == [*whole, AROUND, (CLOSE_SIDE, CLOSE_SIDE), (CLOSE_SIDE, CLOSE_SIDE)]
    assert np.allclose(face.box, (400, 200, 700, 500), atol=6)
    assert (face.turned, face.unsure) == (0, False)


@pytest.mark.parametrize("roll", [0, 20, 45, 67, 90, 130, 180, 200, 270, 300, 337])
def test_a_face_is_found_whichever_way_up_it_is(roll: float) -> None:
    (face,) = Searching(look=Discs()).detect(discs(640, 480, (300, 200, 90, roll)))
    assert np.abs(face.landmarks - marks(300, 200, 90, roll)).max() < 4
    assert np.allclose(face.box, (210, 110, 390, 290), atol=4)
    assert face.turned == round(roll / 90) % 4 * 90
    assert not face.unsure


def test_a_lying_photograph_of_many_is_looked_at_that_way_as_large_as_any() -> None:
    """Of the nine small ones the first look sees none: half as large they have 10 pixels, and their score is low."""
    small = [(60 + 100 * column, 300 + 60 * row, 10, 90.0) for column in range(3) for row in range(3)]
    look = Discs()
    found = Searching(look=look, min_size=12).detect(discs(480, 480, (200, 120, 70, 90), *small))
    assert len(found) == 10
    assert {face.turned for face in found} == {90}


def test_people_in_one_photograph_may_lie_each_another_way() -> None:
    planted = [(100, 100, 60, 0.0), (300, 110, 50, 90.0), (100, 300, 40, 180.0), (300, 300, 30, 225.0)]
    found = Searching(look=Discs()).detect(discs(480, 400, *planted))
    assert len(found) == 4
    for face, disc in zip(found, planted, strict=True):
        assert np.abs(face.landmarks - marks(*disc)).max() < 0.06 * disc[2]


def test_what_is_hardly_a_face_another_way_up_than_the_sure_one_beside_it_is_none() -> None:
    class Cloth(Discs):
        """The smaller one has 0.8 at best."""

        def _face(self, blue: Image, row: NDArray[np.int32], centre: NDArray[np.float64]) -> Face:
            face = super()._face(blue, row, centre)
            spots = cv2.connectedComponents((blue > 127).astype(np.uint8))[0] - 1
            return replace(face, score=face.score - 0.13 * (spots > 1))

    def folds(roll: float) -> Image:
        pixels = discs(480, 400, (100, 200, 60, 0), (300, 200, 60, roll))
        cv2.circle(pixels, (300, 200), 6, (0, 255, 255), -1)
        return pixels

    assert len(Searching(look=Cloth()).detect(folds(20))) == 2
    assert len(Searching(look=Cloth()).detect(folds(120))) == 1
    (alone,) = Searching(look=Cloth()).detect(folds(120)[:, 200:])
    assert alone.turned == 90


def test_doubt_is_said_where_another_way_up_is_as_good_and_the_pictures_own_is_taken() -> None:
    tie = Discs(scores=[0.93] * 8)
    (face,) = Searching(look=tie).detect(discs(480, 400, (200, 200, 90, 0)))
    assert (face.turned, face.unsure) == (0, True)
    near = Discs(scores=[0.93, 0.91, 0.87, 0.81, 0.69, 0.81, 0.87, 0.90])
    (face,) = Searching(look=near).detect(discs(480, 400, (200, 200, 90, 180)))
    assert (face.turned, face.unsure) == (180, False), "a close look tells them apart"


def test_exif_is_obeyed_before_anything_is_looked_at() -> None:
    """Stored on its side with a tag that says so: upright. With the tag of a picture that is not: turned by it."""
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    for roll in (0, 90):
        stream = io.BytesIO()
        PIL.Image.fromarray(np.rot90(discs(480, 400, (200, 150, 90, roll)))).save(stream, "PNG", exif=exif)
        (face,) = Searching(look=Discs()).detect(read_photograph(stream.getvalue()).pixels)
        assert face.turned == roll
        assert np.abs(face.landmarks - marks(200, 150, 90, roll)).max() < 4


@pytest.mark.parametrize("roll", [0, 90, 150, 180, 270])
def test_scrfd_of_a_fixed_size_finds_them_whichever_way_up_as_well(roll: float) -> None:
    look = Scrfd(session=DiscsSession(), fixed=(320, 320))
    (face,) = Searching(look=look).detect(discs(640, 480, (300, 200, 90, roll)))
    assert np.abs(face.landmarks - marks(300, 200, 90, roll)).max() < 6


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
