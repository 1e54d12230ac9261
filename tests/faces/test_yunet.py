"""YuNet files that do not work are refused; on real photographs it finds what is there, however large or small."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from steadface.data.faces import Image
from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.faces.detection import LEAST_SCORE, SAME_IOU, Detector
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import Photograph, read_photograph
from steadface.faces.yunet import NUMBERS, decoded, open_yunet

from .planted import write_scrfd, write_yunet


def test_a_file_that_opencv_finds_no_faces_with_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = write_scrfd(tmp_path / "yunet.onnx")
    (tmp_path / "cut.onnx").write_bytes(other.read_bytes()[:700])
    for path in (other, tmp_path / "cut.onnx"):
        with pytest.raises(SteadfaceError, match=r"does not work as a YuNet detector.*take face_detection_yunet"):
            open_yunet(path)
    assert capfd.readouterr().err == "", "OpenCV says nothing of its own"


def picture(height: int, width: int, seed: int = 1) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (70, 131), (200, 97)])
def test_faces_are_decoded_as_opencv_does(size: tuple[int, int], tmp_path: Path) -> None:
    for seed in range(3):
        path = write_yunet(tmp_path / "yunet.onnx", seed)
        image = picture(*size, seed)
        theirs = cv2.FaceDetectorYN.create(str(path), "", size[::-1], LEAST_SCORE, SAME_IOU, 5000)
        rows = theirs.detect(image[:, :, ::-1])[1]
        faces = open_yunet(path)(image)
        assert len(faces) == len(rows) > 1
        for face, row in zip(faces, rows, strict=True):
            np.testing.assert_allclose([*face.box[:2], face.score], [*row[:2], row[14]], rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(face.landmarks.reshape(-1), row[4:14], rtol=1e-5, atol=1e-4)


def test_weights_that_are_no_numbers_are_refused_before_opencv_sees_them(tmp_path: Path) -> None:
    path = write_yunet(tmp_path / "yunet.onnx")
    model = onnx.load(path)
    one = next(one for one in model.graph.initializer if one.name == "cls_8/w")
    weights = numpy_helper.to_array(one).copy()
    for value in (np.nan, np.inf):
        weights.flat[5] = value
        one.CopyFrom(numpy_helper.from_array(weights, one.name))
        onnx.save(model, path)
        with pytest.raises(InvalidInput, match=r"NaN or infinite \('cls_8/w'\)"):
            open_detector(path)


def test_outputs_smaller_than_the_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"its output kps_8 has 30 numbers, not 64 x 10"):
        open_detector(write_yunet(tmp_path / "yunet.onnx", short=True))


def test_what_is_far_away_or_overflows_is_left_out() -> None:
    places = {
        f"{kind}_{stride}": (64 // stride) ** 2 for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)
    }
    outputs = {name: np.zeros((count, NUMBERS[name.split("_")[0]]), np.float32) for name, count in places.items()}
    for place, (value, size) in enumerate([(0, 1), (3e38, 1), (np.nan, 1), (-1e5, 1), (0, 1e3)]):
        outputs["cls_8"][8 * place] = outputs["obj_8"][8 * place] = 1
        outputs["kps_8"][8 * place] = value
        outputs["bbox_8"][8 * place, 2:] = size
    rows = decoded(outputs, (64, 64))
    assert len(rows) == 2
    assert np.isfinite(rows).all()


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
