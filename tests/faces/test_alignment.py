"""The closed form is Umeyama's, and an aligned face is where the template says."""

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from steadface.data.faces import TEMPLATE, Image, fit_size
from steadface.errors import SteadfaceError
from steadface.faces.alignment import align, similarity, template_for, warped


def smooth(height: int, width: int, seed: int = 0) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    found: Image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return found


def cases() -> list[np.ndarray]:
    """Landmarks like a face's anywhere, at random, mirrored, nearly on a line, and tiny."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(40):
        angle, scale = rng.uniform(-np.pi, np.pi), np.exp(rng.uniform(-2, 4))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        found.append(TEMPLATE @ turn.T + rng.normal(0, 3 * scale, (5, 2)) + rng.uniform(-500, 4000, 2))
    found += [rng.uniform(0, 300, (5, 2)) for _ in range(10)]
    found += [TEMPLATE * [-1, 1] + 200 + rng.normal(0, 2, (5, 2)) for _ in range(5)]
    found += [np.outer(np.arange(5), [1.0, 2.0]) + rng.normal(0, 1e-3, (5, 2)) for _ in range(3)]
    return found


@pytest.mark.parametrize("points", cases())
def test_it_is_within_a_hundredth_of_a_pixel_of_scikit_image(points: np.ndarray) -> None:
    reference = SimilarityTransform.from_estimate(points, TEMPLATE)
    matrix = similarity(points, TEMPLATE)
    ours = points @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(ours - reference(points)).max() < 0.01
    assert np.linalg.det(matrix[:, :2]) > 0, "no reflection"


def test_the_template_itself_stays_where_it_is() -> None:
    face = smooth(112, 112)
    assert np.array_equal(align(face, TEMPLATE.astype(np.float32)), face)


def test_the_older_crop_is_the_same_picture_without_eight_columns_left_and_right() -> None:
    photograph = smooth(400, 300)
    landmarks = TEMPLATE * 1.3 + [60, 90]
    whole, older = align(photograph, landmarks), align(photograph, landmarks, (112, 96))
    assert older.shape == (112, 96, 3)
    assert np.abs(older.astype(int) - whole[:, 8:-8]).max() <= 1


def test_larger_squares_show_the_same_at_another_size() -> None:
    photograph = smooth(400, 300)
    landmarks = TEMPLATE * 1.7 + [40, 90]
    double = align(photograph, landmarks, (224, 224))
    assert np.abs(fit_size(double, (112, 112)).astype(int) - align(photograph, landmarks)).mean() < 1


def test_outside_of_the_photograph_it_is_black() -> None:
    white = np.full((112, 112, 3), 255, np.uint8)
    assert align(white, TEMPLATE - [56, 0])[:, :50].max() == 0


def test_a_face_much_larger_than_the_template_is_averaged_not_sampled() -> None:
    rng = np.random.default_rng(1)
    face = smooth(1120, 1120) // 4 + 96
    noisy = np.clip(face + rng.normal(0, 40, face.shape), 0, 255).astype(np.uint8)
    landmarks = (TEMPLATE + 0.5) * 10 - 0.5
    clean = align(face, landmarks).astype(int)
    plain = cv2.warpAffine(noisy, similarity(landmarks, TEMPLATE), (112, 112)).astype(int)
    assert np.abs(align(noisy, landmarks) - clean).mean() < 0.3 * np.abs(plain - clean).mean()


@pytest.mark.parametrize("factor", [2.2, 3.7, 9.9])
def test_averaging_shifts_nothing(factor: float) -> None:
    photograph = smooth(1301, 1207)
    matrix = similarity((TEMPLATE + 0.5) * factor - 0.5 + [13, 7], TEMPLATE)
    plain = cv2.warpAffine(photograph, matrix, (112, 112)).astype(int)
    difference = np.abs(warped(photograph, matrix, (112, 112)) - plain)
    assert difference.max() <= 4, "half of a shrunk pixel would make a dozen"
    assert difference.mean() < 0.6


def test_a_large_face_outside_of_the_photograph_is_black_and_one_at_its_edge_is_there() -> None:
    photograph = np.full((600, 800, 3), 200, np.uint8)
    landmarks = (TEMPLATE + 0.5) * 4 - 0.5
    assert align(photograph, landmarks + 5000).max() == 0
    assert align(photograph, landmarks - 5000).max() == 0
    half = align(photograph, landmarks - [224, 0])
    assert half[:, :54].max() == 0
    assert (half[:, 58:] == 200).all()


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.full((5, 2), 40.0), "coincide"),
        (np.full((5, 2), 4000.0) + 1e-4, "coincide"),
        (np.full((5, 2), np.nan), "not finite"),
        (TEMPLATE[:4], "shape"),
    ],
)
def test_landmarks_that_give_no_similarity_are_refused(points: np.ndarray, words: str) -> None:
    with pytest.raises(SteadfaceError, match=words):
        align(smooth(50, 50), points)


@pytest.mark.parametrize("size", [(112, 100), (0, 0), (5000, 5000), (96, 112)])
def test_sizes_without_a_template_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SteadfaceError, match="aligned faces of"):
        template_for(size)
