"""``detect`` and ``align`` as a user calls them, with a detector that takes bright squares for faces."""

import json
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from steadface.cli import detect
from steadface.data.faces import TEMPLATE, Image
from steadface.faces.detection import Face
from steadface.faces.searching import Searching

from ..faces.planted import Discs, discs
from .conftest import Call


class Squares:
    """Largest first."""

    def detect(self, image: Image) -> list[Face]:
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 1] > 127).astype(np.uint8))
        squares = sorted(((float(x), float(y), float(side)) for x, y, side, *_ in stats[1:]), key=lambda one: -one[2])
        return [
            Face(
                box=(x, y, x + side, y + side),
                landmarks=((TEMPLATE + 0.5) * side / 112 + [x, y]).astype(np.float32),
                score=0.9,
            )
            for x, y, side in squares
        ]


def size_of(file: Path) -> tuple[int, int]:
    with PIL.Image.open(file) as picture:
        return picture.size


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, float]]:
    """Puts the detector in; what it was asked for is added to the list."""
    asked: list[tuple[object, float]] = []

    def opened(path: Path | None, *, min_size: float, progress: object) -> Squares:
        assert callable(progress)
        asked.append((path, min_size))
        return Squares()

    monkeypatch.setattr(detect, "open_detector", opened)
    return asked


@pytest.fixture
def photographs(tmp_path: Path, options: list[tuple[object, float]]) -> Path:  # noqa: ARG001 - puts the detector in
    root = tmp_path / "photographs"
    for name, squares in {"ada/one": [(20, 20, 100), (200, 30, 50)], "ada/none": [], "ben/two": [(50, 50, 60)]}.items():
        pixels = np.zeros((200, 300, 3), np.uint8)
        for left, top, side in squares:
            pixels[top : top + side, left : left + side] = 255
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(root / f"{name}.png")
    return root


def test_a_table_for_people(call: Call, photographs: Path) -> None:
    said = call("detect", photographs)
    assert said.code == 0
    assert "20,20 - 120,120" in said.out
    assert "no face was found" in said.out
    assert "only 16 pixels between the eyes; come closer or use a larger picture" in said.out


def test_json_for_machines(call: Call, photographs: Path) -> None:
    said = call("detect", photographs / "ada" / "one.png", photographs / "ada" / "none.png", "--json")
    assert said.code == 0
    one, none = json.loads(said.out)
    assert one["file"] == str(photographs / "ada" / "one.png")
    assert (one["width"], one["height"]) == (300, 200)
    assert [face["box"] for face in one["faces"]] == [[20, 20, 120, 120], [200, 30, 250, 80]]
    assert np.shape(one["faces"][0]["landmarks"]) == (5, 2)
    assert one["faces"][0]["score"] == 0.9
    assert one["faces"][1]["quality"]["reasons"][0].startswith("the face is only 16 pixels")
    assert none["faces"] == []


def test_boxes_are_in_pixels_of_the_upright_photograph(call: Call, photographs: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows of the file run from right to left
    with PIL.Image.open(photographs / "ben" / "two.png") as picture:
        picture.save(photographs / "turned.png", exif=exif)
    (found,) = json.loads(call("detect", photographs / "turned.png", "--json").out)
    assert (found["width"], found["height"]) == (200, 300)
    assert found["faces"][0]["box"] == [90, 50, 150, 110]


def test_failures_are_listed_at_the_end_and_told_by_the_exit_code(call: Call, photographs: Path) -> None:
    bad = photographs / "ada" / "cut [1].jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 no more")
    said = call("detect", photographs, "--json")
    assert said.code == 1
    found = {Path(one["file"]).name: one for one in json.loads(said.out)}
    assert set(found) == {"one.png", "none.png", "two.png", bad.name}
    assert str(bad) in found[bad.name]["error"]
    assert f"error: {bad}" in said.err
    assert call("detect", bad).code == 2


def test_what_does_not_exist_is_an_error_before_any_work(
    call: Call, photographs: Path, options: list[tuple[object, float]]
) -> None:
    said = call("detect", photographs, photographs / "missing.jpg")
    assert (said.code, said.out) == (4, "")
    assert "missing.jpg does not exist" in said.err
    assert options == []


def test_options_reach_the_detector(call: Call, photographs: Path, options: list[tuple[object, float]]) -> None:
    call("detect", photographs, "--detector", "scrfd.onnx", "--min-size", 80)
    assert options == [(Path("scrfd.onnx"), 80)]


def test_photographs_are_drawn_into_a_folder(call: Call, photographs: Path, tmp_path: Path) -> None:
    assert call("detect", photographs, "--draw", tmp_path / "drawn").code == 0
    drawn = sorted(str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*.jpg"))
    assert drawn == ["ada/none.png.jpg", "ada/one.png.jpg", "ben/two.png.jpg"]
    pixels = cv2.imread(str(tmp_path / "drawn" / "ben" / "two.png.jpg")).astype(int)
    assert np.ptp(pixels[90, 50]) > 60, "a coloured line down the left side"


def test_drawing_over_the_photographs_themselves_is_refused(call: Call, photographs: Path) -> None:
    PIL.Image.new("RGB", (20, 20)).save(photographs / "ada" / "a.jpg")
    said = call("detect", photographs / "ada", "--draw", photographs / "ada")
    assert said.code == 2
    assert "would overwrite" in said.err


def test_that_a_face_was_turned_and_doubt_are_said(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detect, "open_detector", lambda *_, **__: Searching(look=Discs()))
    photographs = tmp_path / "turned"
    (photographs / "ben").mkdir(parents=True)
    for name, roll in (("lying", 90), ("head", 180), ("upright", 0)):
        PIL.Image.fromarray(discs(480, 400, (200, 200, 90, roll))).save(photographs / "ben" / f"{name}.png")
    said = call("detect", photographs / "ben" / "lying.png", photographs / "ben" / "head.png")
    words = " ".join(said.out.replace("│", " ").split())
    assert "lies on its side" in words
    assert "is upside down" in words
    found = json.loads(call("detect", photographs / "ben", "--json").out)
    assert {Path(one["file"]).stem: [face["turned"] for face in one["faces"]] for one in found} == {
        "head": [180],
        "lying": [90],
        "upright": [0],
    }
    assert not any(face["unsure"] for one in found for face in one["faces"])
    made = call("align", photographs, tmp_path / "out")
    assert "turned faces upright in 2 photographs (ben/head.png, ben/lying.png)" in made.err
    for name in ("lying", "head", "upright"):
        with PIL.Image.open(tmp_path / "out" / "ben" / f"{name}.png") as picture:
            blue = np.array(picture)[:, :, 2]
        assert blue[70:].max() > 200 > 100 > blue[:40].max(), "the chin is below"


def test_align_makes_a_training_folder_and_goes_on_where_it_was(call: Call, photographs: Path, tmp_path: Path) -> None:
    said = call("align", photographs, tmp_path / "out", "--size", 64)
    assert said.code == 0
    assert said.out == f"2 faces in {tmp_path / 'out'}\n"
    assert "left out photographs without a face: 1 (ada/none.png)" in said.err
    assert size_of(tmp_path / "out" / "ada" / "one.png") == (64, 64)
    said = call("align", photographs, tmp_path / "out", "--size", 64)
    assert said.out == f"2 faces in {tmp_path / 'out'}, 2 of them from an earlier run\n"


def test_align_json_lists_what_was_left_out(call: Call, photographs: Path, tmp_path: Path) -> None:
    (photographs / "ben" / "bad.jpg").write_bytes(b"bad")
    said = call("align", photographs, tmp_path / "out", "--faces", "all", "--format", "jpg", "--json")
    assert said.code == 1
    found = json.loads(said.out)
    assert (found["faces"], found["aligned"], found["no_face"]) == (3, 2, ["ada/none.png"])
    assert found["failures"][0]["file"] == "ben/bad.jpg"
    assert (tmp_path / "out" / "ada" / "one-face2.jpg").is_file()


def test_align_without_a_single_face_is_an_error(call: Call, photographs: Path, tmp_path: Path) -> None:
    for name in ("ada/one.png", "ben/two.png"):
        (photographs / name).unlink()
    said = call("align", photographs, tmp_path / "out")
    assert said.code == 2
    assert "no face of any photograph" in said.err


def test_impossible_sizes_are_refused(call: Call, photographs: Path, tmp_path: Path) -> None:
    said = call("align", photographs, tmp_path / "out", "--size", "100x112")
    assert said.code == 2
    assert "112x96" in said.err
