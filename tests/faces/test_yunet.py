"""YuNet files that do not work are refused; on real photographs it finds what is there, however large or small."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.faces.detection import Detector
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import Photograph, read_photograph
from steadface.faces.yunet import open_yunet

from .planted import write_scrfd


def test_a_file_that_opencv_finds_no_faces_with_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = write_scrfd(tmp_path / "yunet.onnx")
    (tmp_path / "cut.onnx").write_bytes(other.read_bytes()[:700])
    for path in (other, tmp_path / "cut.onnx"):
        with pytest.raises(SteadfaceError, match=r"does not work as a YuNet detector.*take face_detection_yunet"):
            open_yunet(path)
    assert capfd.readouterr().err == "", "OpenCV says nothing of its own"


@pytest.fixture(scope="module")
def detector() -> Detector:
    folder = os.environ.get("STEADFACE_FACES")
    if not folder:
        pytest.skip("STEADFACE_FACES names no folder with data/photos and weights/yunet_n_dynamic.onnx")
    return open_detector(Path(folder) / "weights" / "yunet_n_dynamic.onnx")


@pytest.fixture(scope="module")
def photographs(detector: Detector) -> list[Photograph]:  # noqa: ARG001 - skips with it
    files = sorted(Path(os.environ["STEADFACE_FACES"]).glob("data/photos/*/*.jpg"))
    return [read_photograph(file) for file in files[::12]]


def test_every_photograph_shows_a_face(detector: Detector, photographs: list[Photograph]) -> None:
    assert all(detector.detect(photograph.pixels) for photograph in photographs)


def test_faces_that_fill_the_picture_are_found_where_they_were(
    detector: Detector, photographs: list[Photograph]
) -> None:
    found = 0
    for photograph in photographs:
        whole = detector.detect(photograph.pixels)[0]
        left, top, right, bottom = (max(0, round(side)) for side in whole.box)
        close = detector.detect(photograph.pixels[top:bottom, left:right])
        if close:
            eyes = np.hypot(*(whole.landmarks[1] - whole.landmarks[0]))
            found += np.abs(close[0].landmarks + np.array([left, top]) - whole.landmarks).max() < 0.35 * eyes
    assert found >= len(photographs) - 1


def test_a_small_face_in_a_very_large_picture(detector: Detector, photographs: list[Photograph]) -> None:
    canvas = np.full((3000, 4000, 3), 120, np.uint8)
    pixels = photographs[0].pixels
    scale = 60 / detector.detect(pixels)[0].size
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas[1500 : 1500 + len(small), 2500 : 2500 + small.shape[1]] = small
    (face,) = detector.detect(canvas)
    assert face.size == pytest.approx(60, rel=0.25)


def test_threads_find_the_same(detector: Detector, photographs: list[Photograph]) -> None:
    alone = [detector.detect(photograph.pixels)[0].box for photograph in photographs[:6]]
    with ThreadPoolExecutor(3) as pool:
        together = [found[0].box for found in pool.map(lambda one: detector.detect(one.pixels), photographs[:6])]
    assert together == alone
