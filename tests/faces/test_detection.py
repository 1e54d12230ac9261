"""Which boxes are one face, and which photographs are clearly of one person."""

import numpy as np
import pytest

from steadface.data.faces import TEMPLATE
from steadface.faces.detection import Face, distinct, is_clear, largest_first, moved, unknown


def face(left: float, top: float, side: float, score: float = 0.9) -> Face:
    landmarks = ((TEMPLATE + 0.5) * side / 112 + [left, top]).astype(np.float32)
    return Face(box=(left, top, left + side, top + side), landmarks=landmarks, score=score)


def test_of_two_looks_at_one_face_the_surer_stays() -> None:
    sure, other, neighbour = face(10, 10, 100, 0.95), face(14, 6, 104, 0.8), face(105, 10, 100, 0.7)
    assert distinct([other, neighbour, sure]) == [sure, neighbour]


def test_an_eye_taken_for_a_face_goes_unless_it_is_surer() -> None:
    whole, part = face(0, 0, 200, 0.9), face(60, 60, 40, 0.8)
    assert distinct([part, whole]) == [whole]
    assert len(distinct([face(60, 60, 40, 0.95), whole])) == 2


def test_nothing_is_lost_among_faces_apart() -> None:
    crowd = [face(60 * column, 60 * row, 50, 0.5 + 0.01 * row) for row in range(20) for column in range(20)]
    assert len(distinct(crowd)) == 400
    assert distinct([]) == []


def test_what_is_in_the_place_of_a_known_face_is_not_looked_at_again() -> None:
    known, again, neighbour = face(0, 0, 100, 0.8), face(4, 6, 104, 0.9), face(105, 10, 100)
    assert unknown([again, neighbour], [known]) == [neighbour]


@pytest.mark.parametrize(
    ("degrees", "turned"), [(0, 0), (44, 0), (46, 90), (90, 90), (170, 180), (-170, 180), (-90, 270)]
)
def test_how_a_face_lies_is_told_by_its_landmarks(degrees: float, turned: int) -> None:
    """Clockwise in the picture, whose y points down."""
    turn = np.exp(1j * np.radians(degrees))
    points = (TEMPLATE - [56, 56]) @ [1, 1j] * turn
    # the template's own eyes and mouth are a hundredth of a degree askew
    lying = Face(box=(0, 0, 9, 9), landmarks=np.stack([points.real, points.imag], 1).astype(np.float32), score=0.9)
    assert (lying.roll - degrees + 180) % 360 - 180 == pytest.approx(0, abs=1)
    assert lying.turned == turned


def test_largest_first() -> None:
    faces = [face(0, 0, 10), face(0, 0, 30), face(0, 0, 20)]
    assert [one.size for one in largest_first(faces)] == [30, 20, 10]


def test_moved_is_undone_by_its_inverse() -> None:
    there = moved(face(30, 50, 64), scale=0.5, shift=(8, 4))
    assert there.box == (44, 92, 172, 220)
    back = moved(there, scale=2, shift=(-16, -8))
    assert back.box == face(30, 50, 64).box
    assert np.allclose(back.landmarks, face(30, 50, 64).landmarks)


@pytest.mark.parametrize(("second", "clear"), [(60, True), (66, True), (70, False), (100, False)])
def test_a_photograph_is_clearly_of_one_person_when_nobody_else_is_about_as_large(second: int, clear: bool) -> None:
    assert is_clear([face(0, 0, 100), face(200, 0, second)]) is clear
    assert is_clear([face(0, 0, 100)])
