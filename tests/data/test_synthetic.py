"""Synthetic faces: drawn from a seed, placed as aligned crops, and as like and unlike as people are."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from steadface.data.faces import TEMPLATE, ArrayFaces
from steadface.data.synthetic import synthetic_faces, write_synthetic_faces
from steadface.data.synthetic.camera import _blur
from steadface.data.synthetic.conditions import Conditions, Pose, draw_conditions
from steadface.data.synthetic.geometry import _alignment, _frontal, _turned, landmarks, place_pixels
from steadface.data.synthetic.head import new_canvas
from steadface.data.synthetic.identity import Identity, draw_identities
from steadface.data.synthetic.parameters import Table, ramp
from steadface.data.synthetic.planes import bump, cover, lattice_noise, white_noise
from steadface.errors import SteadfaceError

_PEOPLE, _IMAGES = 30, 8


@pytest.fixture(scope="module")
def faces() -> ArrayFaces:
    return synthetic_faces(people=_PEOPLE, images_per_person=_IMAGES, seed=3)


def _drawn(people: int, images: int) -> tuple[Identity, Conditions]:
    owners = np.repeat(np.arange(people), images)
    return draw_identities(0, range(people)).take(owners), draw_conditions(0, range(people), images)


def _columns(table: Table) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if isinstance(value, Table):
            yield from _columns(value)
        else:
            yield field.name, value


def _descriptor(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey levels at 16 x 16, of zero mean and unit length: a recogniser without learning."""
    cells = images.astype(np.float32).mean(axis=3).reshape(len(images), 16, 7, 16, 7).mean(axis=(2, 4))
    flat = cells.reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    unit: NDArray[np.float32] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return unit


def test_shape_type_and_labels(faces: ArrayFaces) -> None:
    assert faces.images.shape == (_PEOPLE * _IMAGES, 112, 112, 3)
    assert faces.images.dtype == np.uint8
    assert np.array_equal(faces.labels, np.repeat(np.arange(_PEOPLE), _IMAGES))
    assert len(set(faces.people)) == _PEOPLE


def test_tones_use_the_range_without_clipping_much(faces: ArrayFaces) -> None:
    assert 90 < faces.images.mean() < 165
    assert faces.images.std() > 40
    assert np.mean((faces.images == 0) | (faces.images == 255)) < 0.03


def test_same_seed_same_pixels(faces: ArrayFaces) -> None:
    again = synthetic_faces(people=2, images_per_person=_IMAGES, seed=3)
    assert np.array_equal(again.images, faces.images[: 2 * _IMAGES])
    other = synthetic_faces(people=2, images_per_person=_IMAGES, seed=4)
    assert not np.array_equal(again.images, other.images)


def test_an_image_does_not_depend_on_how_many_are_asked_for(faces: ArrayFaces) -> None:
    few = synthetic_faces(people=3, images_per_person=5, seed=3, first_person=20)
    every = faces.images.reshape(_PEOPLE, _IMAGES, 112, 112, 3)
    assert np.array_equal(few.images.reshape(3, 5, 112, 112, 3), every[20:23, :5])
    assert few.people == faces.people[20:23]


def test_people_differ_beyond_the_first_block_of_people() -> None:
    late = synthetic_faces(people=66, images_per_person=1, size=(16, 16))
    assert np.array_equal(
        late.images[65], synthetic_faces(people=1, images_per_person=1, size=(16, 16), first_person=65).images[0]
    )
    assert len(np.unique(late.images.reshape(66, -1), axis=0)) == 66


@pytest.mark.parametrize("size", [(64, 64), (112, 96), (56, 56)])
def test_other_sizes_show_the_same_face(faces: ArrayFaces, size: tuple[int, int]) -> None:
    images = synthetic_faces(people=2, images_per_person=2, size=size, seed=3).images
    assert images.shape == (4, *size, 3)
    whole = faces.images.reshape(_PEOPLE, _IMAGES, 112, 112, 3)[:2, :2].reshape(4, 112, 112, 3)
    for image, full in zip(images, whole, strict=True):
        margin = (112 - round(112 * size[1] / size[0])) // 2
        resized = cv2.resize(full[:, margin : 112 - margin], size[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(float) - resized).mean() < 10.0


def test_landmarks_of_the_turned_head_lie_on_the_template() -> None:
    identity, conditions = _drawn(40, 3)
    still = {"roll": 0.0, "zoom": 1.0, "shift_x": 0.0, "shift_y": 0.0}
    zero = conditions.pose.yaw * 0.0
    pose = dataclasses.replace(conditions.pose, **{k: zero + np.float32(v) for k, v in still.items()})
    slope, shift = _alignment(identity, pose, conditions.expression)
    x, y = _turned(identity, pose, *landmarks(identity, conditions.expression))
    placed = (slope * (x + 1j * y) + shift)[:, 0, :]
    offset = placed - (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1])
    assert np.abs(offset).mean() < 3.5  # a similarity cannot fit five points of every face exactly
    assert np.abs(offset.mean(axis=1)).max() < 1e-3  # but least squares leaves no shift
    spread = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1] - (TEMPLATE.mean(axis=0) @ np.array([1, 1j]))
    fitted = placed - placed.mean(axis=1, keepdims=True)
    assert np.abs(np.sum(np.conj(fitted) * (fitted - spread), axis=1)).max() < 0.05  # nor a turn or a scale


def test_pixels_are_carried_back_to_where_they_came_from() -> None:
    identity, conditions = _drawn(20, 2)
    grid = np.linspace(-0.8, 0.8, 9, dtype=np.float32)
    u, v = np.broadcast_arrays(grid[None, None, :] + 0 * conditions.pose.yaw, grid[None, :, None] + 0.4)
    back_u, back_v = _frontal(identity, conditions.pose, *_turned(identity, conditions.pose, u, v))
    error = np.hypot(back_u - u, back_v - v)
    assert np.median(error) < 0.005
    assert np.mean(error < 0.05) > 0.95  # what is left is where the far side of the nose is hidden


def test_a_turned_head_shows_more_of_one_cheek() -> None:
    identity, conditions = _drawn(10, 1)
    zero = np.zeros_like(conditions.pose.yaw)
    still = Pose(yaw=zero, pitch=zero, roll=zero, zoom=zero + 1, shift_x=zero, shift_y=zero)
    turned = dataclasses.replace(still, yaw=zero + np.float32(0.35))
    ahead = place_pixels(identity, still, conditions.expression, (112, 112))
    aside = place_pixels(identity, turned, conditions.expression, (112, 112))
    row = 64  # the nose moves to the right, so that the middle column shows the face further left
    assert np.all(aside.u[:, row, 56] < ahead.u[:, row, 56])
    assert np.allclose(
        ahead.u[:, row, :] + ahead.u[:, row, ::-1], ahead.u[:, row, :1] + ahead.u[:, row, -1:], atol=1e-4
    )


def test_features_lie_where_alignment_puts_them(faces: ArrayFaces) -> None:
    grey = faces.images.astype(np.float64).mean(axis=(0, 3))

    def around(x: float, y: float) -> float:
        return float(grey[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].mean())

    left, right, nose, mouth_left, mouth_right = (around(*point) for point in TEMPLATE)
    cheeks = 0.5 * (around(36, 70) + around(76, 70))
    assert max(left, right) < 0.75 * cheeks
    assert max(mouth_left, mouth_right) < 0.95 * cheeks
    assert nose < cheeks
    darkest = np.unravel_index(np.argmin(cv2.GaussianBlur(grey, (5, 5), 0)[44:62, 24:56]), (18, 32))
    assert np.hypot(darkest[0] + 44 - TEMPLATE[0, 1], darkest[1] + 24 - TEMPLATE[0, 0]) < 4.0


def test_people_are_told_apart_but_not_by_pixels_alone(faces: ArrayFaces) -> None:
    described, labels = _descriptor(faces.images), faces.labels
    cosine = described @ described.T
    same = labels[:, None] == labels[None, :]
    itself = np.eye(len(labels), dtype=bool)
    assert cosine[same & ~itself].mean() > cosine[~same].mean() + 0.1
    nearest = np.where(itself, -np.inf, cosine).argmax(axis=1)
    rate = float(np.mean(labels[nearest] == labels))
    assert 6.0 / _PEOPLE < rate < 0.9  # chance is below 1 / _PEOPLE


def test_mean_colour_alone_does_not_tell_who_it_is(faces: ArrayFaces) -> None:
    colour = faces.images[:, 28:84, 28:84].mean(axis=(1, 2))
    distance = np.linalg.norm(colour[:, None] - colour[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert np.mean(faces.labels[distance.argmin(axis=1)] == faces.labels) < 0.4


def test_images_of_one_person_vary(faces: ArrayFaces) -> None:
    images = faces.images.reshape(_PEOPLE, _IMAGES, 112, 112, 3).astype(np.float32)
    assert np.all(images.std(axis=1).mean(axis=(1, 2, 3)) > 10.0)


def test_every_parameter_is_float32_finite_and_varies() -> None:
    for table in _drawn(60, 1):
        for name, column in _columns(table):
            assert column.dtype == np.float32, name
            assert column.shape in {(60, 1, 1), (60, 3, 1, 1)}, name
            assert np.isfinite(column).all(), name
            assert len(np.unique(column)) > 1, name


def test_planes_stay_float32() -> None:
    identity, conditions = _drawn(2, 1)
    frame = place_pixels(identity, conditions.pose, conditions.expression, (32, 32))
    canvas = new_canvas(conditions.scene, frame)
    assert {frame.u.dtype, frame.v.dtype, canvas.albedo.dtype, canvas.height.dtype} == {np.dtype(np.float32)}


def test_parameters_are_not_correlated_across_people_and_images() -> None:
    identity, conditions = draw_identities(0, range(400)), draw_conditions(0, range(400), 1)
    pair = np.corrcoef(identity.eyes.spacing.ravel(), conditions.pose.yaw.ravel())[0, 1]
    assert abs(pair) < 0.2


def test_noise_is_white_and_standard() -> None:
    noise = white_noise((4, 64, 64), np.arange(4, dtype=np.float32)[:, None, None])
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    flat = noise.reshape(4, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.06
    assert abs(np.mean(noise[:, :, 1:] * noise[:, :, :-1])) < 0.04
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 0.04


def test_lattice_noise_is_continuous_and_passes_through_its_lattice() -> None:
    x, salt = np.linspace(-3, 3, 601, dtype=np.float32)[None, None, :], np.ones((1, 1, 1), np.float32)
    values = lattice_noise(x, 0.0 * x, salt)
    assert 0.0 <= values.min() < values.max() < 1.0
    assert np.abs(np.diff(values)).max() < 0.02  # smoothstep's slope is at most 1.5 per cell
    across = lattice_noise(0.0 * x, x, salt)
    assert across[0, 0, 300] == pytest.approx(values[0, 0, 300], abs=1e-3)


def test_soft_edges() -> None:
    distance = np.array([-2.0, -0.25, 0.0, 0.25, 2.0], dtype=np.float32)
    assert cover(distance, 1.0).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert bump(distance, 0.0, 0.5, 1.0).tolist() == [0.0, 0.5625, 1.0, 0.5625, 0.0]


def test_ramp_passes_through_its_stops_in_linear_light() -> None:
    stops = ((0.0, 0.0, 0.0), (0.5, 0.6, 0.7), (1.0, 1.0, 1.0))
    position = np.array([0.0, 0.5, 1.0], dtype=np.float32)[:, None, None]
    assert ramp(stops, position)[:, :, 0, 0] == pytest.approx(np.array(stops) ** 2)


def test_blur_is_that_of_a_gaussian() -> None:
    image = np.random.default_rng(0).random((2, 3, 20, 24), dtype=np.float32)
    deviations = (0.6, 1.1)
    blurred = _blur(image, np.array(deviations, np.float32)[:, None, None])
    for one, result, deviation in zip(image, blurred, deviations, strict=True):
        expected = cv2.GaussianBlur(one.transpose(1, 2, 0), (7, 7), deviation, borderType=cv2.BORDER_REPLICATE)
        assert np.allclose(result.transpose(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": 0}, "people is 0"),
        ({"images_per_person": 0}, "images_per_person is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"first_person": -2}, "first_person is -2"),
        ({"size": (8, 112)}, "size is"),
        ({"size": (112, 5000)}, "size is"),
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    request: dict[str, object] = {"people": 1, "images_per_person": 1, **wrong}
    with pytest.raises(SteadfaceError, match=message):
        synthetic_faces(**request)  # type: ignore[arg-type]
    with pytest.raises(SteadfaceError, match=message):
        write_synthetic_faces(tmp_path / "faces", **request)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_written_folders_hold_the_same_pixels(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = write_synthetic_faces(
        tmp_path / "new" / "faces",
        people=3,
        images_per_person=4,
        size=(48, 48),
        first_person=5,
        progress=lambda done, total: calls.append((done, total)),
    )
    expected = synthetic_faces(people=3, images_per_person=4, size=(48, 48), first_person=5)
    paths = sorted(root.rglob("*.png"))
    assert [path.parent.name for path in paths] == [expected.people[label] for label in expected.labels]
    for path, image in zip(paths, expected.images, strict=True):
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], image)
    assert calls[-1] == (12, 12)
    assert [path.name for path in root.parent.iterdir()] == ["faces"]


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    write_synthetic_faces(root, people=1, images_per_person=1, size=(16, 16))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SteadfaceError, match="not an empty folder"):
        write_synthetic_faces(root, people=1, images_per_person=1, size=(16, 16))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SteadfaceError, match="file"):
        write_synthetic_faces(tmp_path / "file", people=1, images_per_person=1)
    with pytest.raises(SteadfaceError, match="cannot write"):
        write_synthetic_faces(tmp_path / "file" / "faces", people=1, images_per_person=1)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_faces(tmp_path / "faces", people=2, images_per_person=2, size=(16, 16), progress=interrupt)
    assert not list(tmp_path.iterdir())
