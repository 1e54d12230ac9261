"""Turning a picture and what was found in it, in closed form; and which directions contradict each other."""

import cv2
import numpy as np
import pytest

from steadface.data.faces import TEMPLATE
from steadface.faces.alignment import similarity
from steadface.faces.detection import Face
from steadface.faces.turning import QUARTERS, Shown, directions, rival, seen_back, turned, turned_back

from .planted import Discs, discs, marks

WIDTH, HEIGHT = 70, 40


def face(left: float, top: float, right: float, bottom: float) -> Face:
    return Face(box=(left, top, right, bottom), landmarks=TEMPLATE.astype(np.float32), score=0.9)


@pytest.mark.parametrize("quarters", QUARTERS)
def test_a_box_is_turned_back_to_the_pixels_that_were_in_it(quarters: int) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[5:17, 30:61] = 255
    rows, columns = np.nonzero(turned(picture, quarters)[:, :, 0])
    there = face(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    back = turned_back(there, quarters, (HEIGHT, WIDTH))
    assert back.box == (30, 5, 61, 17)
    assert back.score == there.score


@pytest.mark.parametrize(("quarters", "expected"), [(0, (3, 4)), (1, (66, 3)), (2, (67, 36)), (3, (4, 37))])
def test_landmarks_are_turned_back_in_closed_form(quarters: int, expected: tuple[float, float]) -> None:
    landmarks = np.full((5, 2), (3, 4), np.float32)
    back = turned_back(Face(box=(0, 0, 1, 1), landmarks=landmarks, score=0.9), quarters, (HEIGHT, WIDTH))
    assert np.array_equal(back.landmarks, np.full((5, 2), expected, np.float32))


@pytest.mark.parametrize("angle", [0, 45, 90, 180, 250])
def test_what_was_seen_through_a_matrix_is_seen_back_in_its_place(angle: float) -> None:
    """A face of 40 x 60 pixels upright lies 60 x 40 where the head is turned by a quarter."""
    there = marks(200, 100, 50, angle)
    matrix = similarity(there, marks(96, 96, 48, 0).astype(np.float64))
    scale = 48 / 50
    seen = Face(
        box=(96 - 20 * scale, 96 - 30 * scale, 96 + 20 * scale, 96 + 30 * scale),
        landmarks=marks(96, 96, 48, 0),
        score=0.9,
    )
    back = seen_back(Shown(face=seen, matrix=matrix))
    # float32 at 200 pixels keeps 1e-5, and the inverse some times that
    assert np.allclose(back.landmarks, there, atol=1e-3)
    half = (30, 20) if angle in (90, 250) else (20, 30)
    assert np.allclose(back.box, (200 - half[0], 100 - half[1], 200 + half[0], 100 + half[1]), atol=1e-3)


def test_the_direction_nearest_to_upright_comes_first_and_its_neighbours_are_no_rivals() -> None:
    planted = face(100, 60, 200, 160)
    shown = directions(Discs(), discs(300, 220, (150, 110, 50, 130)), planted)
    assert len(shown) == 8
    assert abs(seen_back(shown[0]).roll - 130) < 3
    scores = [one.face.score for one in shown]
    assert scores == sorted(scores, reverse=True)
    other = rival(shown)
    assert other is not None
    cosine = other.matrix[:, 0] @ shown[0].matrix[:, 0] / np.hypot(*shown[0].matrix[:, 0]) ** 2
    assert cosine < 0.1, "90 degrees away or more"
    assert rival(shown[:2]) is None


def test_where_all_directions_are_alike_the_pictures_own_comes_first() -> None:
    shown = directions(Discs(scores=[0.9] * 8), discs(300, 220, (150, 110, 50, 0)), face(100, 60, 200, 160))
    assert shown[0].matrix[1, 0] == pytest.approx(0)
    assert directions(Discs(), np.zeros((220, 300, 3), np.uint8), face(100, 60, 200, 160)) == []


def test_a_turned_picture_lost_nothing() -> None:
    picture = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint32).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert np.array_equal(turned(picture, 1), cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE))
    for quarters in QUARTERS:
        assert np.array_equal(turned(turned(picture, quarters), -quarters), picture)
