"""Boxes lie where they should, captions inside the picture, and names are written in their own script."""

import numpy as np
import pytest

from steadface.data.faces import Image
from steadface.faces.drawing import BLUE, GREEN, RED, Marked, draw_faces


def blank(width: int, height: int) -> Image:
    return np.full((height, width, 3), 128, np.uint8)


def coloured(picture: Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has that colour."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_a_box_is_drawn_where_it_is_and_the_photograph_given_stays() -> None:
    image = blank(600, 400)
    picture = draw_faces(image, [Marked(box=(100.2, 120, 300, 319.8), colour=RED)])
    assert np.allclose(coloured(picture, RED), (100, 120, 300, 320), atol=1)
    assert (picture[200, 200] == 128).all()
    assert (image == 128).all()


def test_lines_and_letters_grow_with_the_photograph() -> None:
    def share(width: int) -> float:
        box = (width * 0.3, width * 0.3, width * 0.6, width * 0.6)
        picture = draw_faces(blank(width, width), [Marked(box=box, caption="Ada 0.87")])
        return float((picture != 128).any(-1).mean())

    assert share(4000) == pytest.approx(share(1000), rel=0.1)


@pytest.mark.parametrize("corner", [(0, 0), (520, 0), (-30, 350), (560, 380), (570, 150)])
def test_captions_stay_inside(corner: tuple[float, float]) -> None:
    """Every letter is there, as where there is room."""

    def letters(left: float, top: float) -> int:
        marked = Marked(box=(left, top, left + 80, top + 80), caption="Wilhelmina Featherstone\n0.912", colour=BLUE)
        return int((draw_faces(np.zeros((400, 600, 3), np.uint8), [marked]) == 255).all(-1).sum())

    assert letters(*corner) == letters(200, 200) > 0


@pytest.mark.parametrize("name", ["Zoë Łukasiewicz", "Ольга", "Ελένη", "علي"])
def test_names_are_written_in_their_own_script(name: str) -> None:
    def drawn(text: str) -> Image:
        return draw_faces(blank(600, 400), [Marked(box=(100, 120, 300, 320), caption=text)])

    unknown = "\U0010ffff" * len(name)
    assert (drawn(name) != drawn(unknown)).any()
    assert (drawn(name) != drawn(name[:-1])).any()


def test_what_does_not_fit_is_shortened_and_tiny_pictures_survive() -> None:
    long = Marked(box=(10, 30, 60, 80), caption="n" * 500)
    picture = draw_faces(blank(200, 100), [long])
    assert picture.shape == (100, 200, 3)
    for side in (1, 8, 20):
        assert draw_faces(blank(side, side), [long]).shape == (side, side, 3)


def test_landmarks_are_dotted() -> None:
    points = np.array([[150, 150], [250, 150]], np.float32)
    picture = draw_faces(blank(600, 400), [Marked(box=(100, 120, 300, 320), landmarks=points)])
    assert (picture[150, 150] == GREEN).all()
    assert (picture[150, 250] == GREEN).all()
