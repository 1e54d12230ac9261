"""Good faces pass without a word, and each flaw is called by its name; the pose is that of a head turned in space."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from steadface.data.faces import TEMPLATE, Image
from steadface.data.synthetic import synthetic_faces
from steadface.faces.alignment import align
from steadface.faces.detection import Face
from steadface.faces.quality import DEPTH, DOWN, EYES, LEVEL, Quality, assess, pose, way_up

HEAD = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, LEVEL * DOWN / EYES, -DEPTH], [-0.4, DOWN / EYES, 0], [0.4, DOWN / EYES, 0]]
)
"""An average face in distances of the eyes: x to the right, y down, z away from the camera."""


def head(yaw: float, pitch: float, roll: float, *, size: float = 60) -> Face:
    """The landmarks of a head turned by so many degrees, seen from far away."""
    a, b, c = np.radians([yaw, pitch, roll])
    turn_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turn_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    seen = (HEAD @ turn_y.T @ turn_x.T @ turn_z.T)[:, :2] * size + 200
    return Face(box=(100, 100, 300, 300), landmarks=seen.astype(np.float32), score=0.9)


@pytest.mark.parametrize("angle", [-60, -30, -10, 0, 10, 30, 60])
def test_pose_of_a_head_that_turns_about_one_axis(angle: float) -> None:
    # The nose is nearer to the camera: turning it to the right of the image shows it there.
    assert np.allclose(pose(head(angle, 0, 0)), (angle, 0, 0), atol=1.5)
    assert np.allclose(pose(head(0, 0, angle)), (0, 0, angle), atol=0.5)
    if abs(angle) < 60:
        assert np.allclose(pose(head(0, angle, 0)), (0, angle, 0), atol=1.5)


def test_a_tilted_head_has_the_pose_of_a_level_one() -> None:
    yaw, pitch, _ = pose(head(25, 10, 0))
    assert np.allclose(pose(head(25, 10, 40)), (yaw, pitch, 40), atol=6)


@pytest.fixture(scope="module")
def photographs() -> NDArray[np.uint8]:
    faces = synthetic_faces(people=6, images_per_person=1, size=(112, 112))
    return np.stack([faces.read(index) for index in range(len(faces))])


def seen(face: Image, *, scale: float = 1.0, landmarks: NDArray[np.float64] = TEMPLATE) -> Quality:
    """The quality of an aligned face, enlarged, in the middle of a photograph."""
    side = round(112 * scale)
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    image = cv2.copyMakeBorder(large, 40, 40, 40, 40, cv2.BORDER_REPLICATE)
    points = ((landmarks + 0.5) * scale - 0.5 + 40).astype(np.float32)
    found = Face(box=(40 + 0.15 * side, 40, 40 + 0.85 * side, 40 + side), landmarks=points, score=0.9)
    return assess(image, found, align(image, points))


def said(quality: Quality) -> str:
    return "; ".join(quality.reasons)


def rough(face: Image) -> Image:
    """With detail as skin has it, which drawn faces lack."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, face.shape[:2]), (0, 0), 0.7)
    return np.clip(face + noise[:, :, None], 0, 255).astype(np.uint8)


def test_good_faces_give_no_reasons(photographs: NDArray[np.uint8]) -> None:
    for face in photographs:
        for scale in (1.0, 2.0):
            assert seen(rough(face), scale=scale).reasons == ()


def test_every_flaw_is_called_by_its_name(photographs: NDArray[np.uint8]) -> None:
    face = rough(photographs[0])
    assert "only 18 pixels between the eyes; come closer" in said(seen(face, scale=0.5))
    assert said(seen(cv2.GaussianBlur(face, (0, 0), 3))).startswith("the face is blurred")
    assert "is dark" in said(seen((face * 0.15).astype(np.uint8)))
    assert "too bright" in said(seen((255 - (255 - face) * 0.15).astype(np.uint8)))
    assert "hardly any contrast" in said(seen((face * 0.05 + 120).astype(np.uint8)))
    harsh = np.clip((face.astype(float) - 128) * 20 + 128, 0, 255).astype(np.uint8)
    assert "plain black or white" in said(seen(harsh))


@pytest.mark.parametrize(
    ("face", "words"),
    [
        (head(60, 0, 0), "turned 60 degrees to the side"),
        (head(-60, 0, 0), "turned 60 degrees to the side"),
        (head(0, 40, 0), "looks down by 40"),
        (head(0, -40, 0), "looks up by 40"),
        (head(0, 0, -70), "lies on its side (70 degrees) and was turned"),
    ],
)
def test_poses_are_called_by_their_name(face: Face, words: str, photographs: NDArray[np.uint8]) -> None:
    quality = assess(np.zeros((400, 400, 3), np.uint8), face, rough(photographs[0]))
    assert len(quality.reasons) == 1
    assert words in quality.reasons[0]


def test_how_a_face_lies_is_said_and_whether_that_is_certain() -> None:
    assert way_up(head(0, 0, 40)) == ()
    (said,) = way_up(head(0, 0, 178))
    assert said.startswith("the face is upside down (178 degrees) and was turned")
    _, doubt = way_up(replace(head(0, 0, -90), unsure=True))
    assert doubt.startswith("it is not certain which way up the face is")


def test_a_face_in_profile_is_not_called_small() -> None:
    assert assess(np.zeros((400, 400, 3), np.uint8), head(80, 0, 0), np.zeros((112, 112, 3), np.uint8)).size > 55


def test_a_face_at_the_edge_is_cut_off_by_what_lies_beyond() -> None:
    face = replace(head(0, 0, 0), box=(-50, 100, 150, 300))
    quality = assess(np.zeros((400, 400, 3), np.uint8), face, np.zeros((112, 112, 3), np.uint8))
    assert quality.cut_off == pytest.approx(0.25)
    assert "cuts off 25% of the face" in said(quality)


def test_it_is_the_same_whatever_the_size_of_the_aligned_face(photographs: NDArray[np.uint8]) -> None:
    face, aligned = head(0, 0, 0), rough(photographs[1])
    image = np.zeros((400, 400, 3), np.uint8)
    whole = assess(image, face, aligned)
    assert assess(image, face, aligned[:, 8:-8]) == whole
    double = assess(image, face, cv2.resize(aligned, (224, 224), interpolation=cv2.INTER_CUBIC))
    assert double.sharpness == pytest.approx(whole.sharpness, rel=0.15)


def test_contrast_alone_does_not_make_a_face_sharp(photographs: NDArray[np.uint8]) -> None:
    face = rough(photographs[2])
    faint = (128 + (face.astype(float) - 128) * 0.4).astype(np.uint8)
    assert seen(faint).sharpness == pytest.approx(seen(face).sharpness, rel=0.1)


def test_json_has_every_figure_and_the_reasons() -> None:
    found = assess(np.zeros((400, 400, 3), np.uint8), head(0, 0, 0), np.zeros((112, 112, 3), np.uint8)).to_json()
    assert found["size"] == pytest.approx(60, abs=0.1)
    assert found["reasons"][0].startswith("the face is blurred")
    assert set(found) >= {"sharpness", "yaw", "pitch", "roll", "brightness", "contrast", "clipped", "cut_off"}
