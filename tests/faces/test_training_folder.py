"""Photographs become aligned faces of the same people; what is done stays done, what is not is listed."""

import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from steadface.data.faces import TEMPLATE, Image
from steadface.data.folders import open_faces
from steadface.errors import SteadfaceError
from steadface.faces.detection import Face
from steadface.faces.surveying import several_at_a_time
from steadface.faces.training_folder import align_folder


class Squares:
    """A detector that takes white squares for faces, largest first, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, image: Image) -> list[Face]:
        self.asked += 1
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 1] > 127).astype(np.uint8))
        faces = [
            Face(
                box=(left, top, left + side, top + side),
                landmarks=((TEMPLATE + 0.5) * side / 112 + [left, top]).astype(np.float32),
                score=0.9,
            )
            for left, top, side in ((float(row[0]), float(row[1]), float(row[2])) for row in stats[1:])
        ]
        return sorted(faces, key=lambda face: -face.size)


def write(path: Path, *squares: tuple[int, int, int]) -> None:
    pixels = np.zeros((200, 300, 3), np.uint8)
    for left, top, side in squares:
        pixels[top : top + side, left : left + side] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def size_of(file: Path) -> tuple[int, int]:
    with PIL.Image.open(file) as picture:
        return picture.size


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    root = tmp_path / "photographs"
    write(root / "ada" / "one.png", (20, 20, 100))
    write(root / "ada" / "two.png", (20, 20, 100), (200, 20, 40))
    write(root / "ada" / "2019" / "three.png", (20, 20, 100), (200, 20, 90))
    write(root / "ben" / "none.png")
    write(root / "ben" / "four.png", (50, 50, 60))
    (root / "ben" / "cut.png").write_bytes((root / "ben" / "four.png").read_bytes()[:50])
    return root


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_largest_face_of_every_photograph_and_a_list_of_the_rest(photographs: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    made = align_folder(photographs, tmp_path / "out", Squares(), progress=lambda *now: told.append(now))
    assert names(tmp_path / "out") == ["ada/one.png", "ada/two.png", "ben/four.png"]
    assert told[-1] == (6, 6)
    found = made.to_json()
    assert found["faces"] == found["aligned"] == 3
    assert found["no_face"] == ["ben/none.png"]
    assert found["ambiguous"] == ["ada/2019/three.png"]
    assert found["several_faces"] == ["ada/2019/three.png", "ada/two.png"]
    assert [failure["file"] for failure in found["failures"]] == ["ben/cut.png"]
    assert "is damaged" in found["failures"][0]["error"]
    faces = open_faces(tmp_path / "out")
    assert faces.people == ("ada", "ben")
    assert faces.read(0).shape == (112, 112, 3)
    assert faces.read(0)[20:100, 20:100].min() > 200


def test_all_faces_of_every_photograph_at_another_size(photographs: Path, tmp_path: Path) -> None:
    made = align_folder(photographs, tmp_path / "out", Squares(), size=(112, 96), wanted="all", encoding="jpg")
    expected = ["2019/three-face2.jpg", "2019/three.jpg", "one.jpg", "two-face2.jpg", "two.jpg"]
    assert names(tmp_path / "out" / "ada") == expected
    assert made.faces == 6
    assert made.named("ambiguous") == []
    assert size_of(tmp_path / "out" / "ada" / "two-face2.jpg") == (96, 112)


def test_what_is_done_is_kept_and_the_rest_is_done(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    align_folder(photographs, out, Squares())
    before = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    (out / "ben" / "four.png").unlink()
    again = Squares()
    made = align_folder(photographs, out, again)
    assert made.named("kept") == ["ada/one.png", "ada/two.png"]
    assert made.named("aligned") == ["ben/four.png"]
    assert again.asked == 3, "the two without a result, and the one that was gone"
    after = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    assert {**after, "ben/four.png": 0} == {**before, "ben/four.png": 0}


def test_another_size_a_newer_photograph_and_a_damaged_result_are_done_anew(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    align_folder(photographs, out, Squares())
    assert align_folder(photographs, out, Squares(), size=(64, 64)).named("kept") == []
    assert size_of(out / "ada" / "one.png") == (64, 64)
    newer = (out / "ada" / "one.png").stat().st_mtime + 10
    os.utime(photographs / "ada" / "one.png", (newer, newer))
    (out / "ada" / "two.png").write_bytes(b"half")
    made = align_folder(photographs, out, Squares(), size=(64, 64))
    assert made.named("aligned") == ["ada/one.png", "ada/two.png"]


def test_photographs_that_differ_in_their_ending_alone_do_not_collide(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "b.png"):
        write(tmp_path / "in" / "ada" / name, (20, 20, 100))
    align_folder(tmp_path / "in", tmp_path / "out", Squares())
    assert names(tmp_path / "out") == ["ada/a.bmp.png", "ada/a.png.png", "ada/b.png"]


def test_impossible_requests_are_refused_before_any_work(photographs: Path, tmp_path: Path) -> None:
    detector = Squares()
    (tmp_path / "file").write_bytes(b"")
    for source, out, size, words in (
        (photographs, photographs, (112, 112), "one inside the other"),
        (photographs, photographs / "faces", (112, 112), "one inside the other"),
        (photographs, tmp_path, (112, 112), "one inside the other"),
        (photographs, tmp_path / "file", (112, 112), "is a file"),
        (photographs, tmp_path / "out", (112, 100), "have no template"),
        (tmp_path / "missing", tmp_path / "out", (112, 112), "cannot list"),
    ):
        with pytest.raises(SteadfaceError, match=words):
            align_folder(source, out, detector, size=size)
    assert detector.asked == 0


def test_several_at_a_time_keeps_the_order_and_stops_at_the_first_error() -> None:
    assert list(several_at_a_time(lambda value: value * 2, range(50), workers=3)) == list(range(0, 100, 2))
    begun: list[int] = []

    def work(value: int) -> int:
        begun.append(value)
        if value == 5:
            raise SteadfaceError("the disk is full")
        return value

    with pytest.raises(SteadfaceError, match="full"):
        list(several_at_a_time(work, range(1000), workers=2))
    assert len(begun) < 30
