import pickle

import cv2
import numpy as np
import pytest

from steadface.data.faces import ArrayFaces, JoinedFaces, Subset, UnreadableImage, decode_image, fit_size
from steadface.errors import SteadfaceError


@pytest.fixture
def faces() -> ArrayFaces:
    images = np.random.default_rng(0).integers(256, size=(6, 8, 8, 3), dtype=np.uint8)
    return ArrayFaces(images, [0, 0, 1, 2, 2, 2], ["ada", "bo", "cy"])


def test_array_faces_give_back_what_they_hold(faces):
    assert len(faces) == 6
    assert faces.people == ("ada", "bo", "cy")
    np.testing.assert_array_equal(faces.read(3), faces.images[3])
    assert "cy" in faces.name(3)


@pytest.mark.parametrize(
    ("labels", "said"),
    [([0, 0, 1, 2, 2, 3], "label 3"), ([0, 0, 1, 2, 2, -1], "label -1"), ([0, 0, 1, 2, 2, 0.5], "0.5"), ([0], "1,")],
)
def test_labels_that_cannot_be_are_named(faces, labels, said):
    with pytest.raises(SteadfaceError, match=said):
        ArrayFaces(faces.images, labels, faces.people)


def test_float_images_are_refused(faces):
    with pytest.raises(SteadfaceError, match="float32"):
        ArrayFaces(faces.images.astype(np.float32), faces.labels, faces.people)


def test_subset_relabels_in_order_and_reads_through(faces):
    subset = Subset(faces, [5, 0, 3])
    assert subset.people == ("ada", "cy")
    np.testing.assert_array_equal(subset.labels, [1, 0, 1])
    np.testing.assert_array_equal(subset.read(0), faces.read(5))
    assert subset.name(0) == faces.name(5)


def test_subset_of_subset_is_the_subset_of_the_composition(faces):
    twice = Subset(Subset(faces, [5, 0, 3]), [2, 1])
    once = Subset(faces, [3, 0])
    np.testing.assert_array_equal(twice.labels, once.labels)
    assert twice.people == once.people
    np.testing.assert_array_equal(twice.read(0), once.read(0))


@pytest.mark.parametrize("index", [-1, 6])
def test_subset_names_an_index_outside(faces, index):
    with pytest.raises(SteadfaceError, match=str(index)):
        Subset(faces, [0, index])


def test_joined_sources_follow_each_other(faces):
    joined = JoinedFaces([Subset(faces, [5, 0]), faces, Subset(faces, [2])])
    assert len(joined) == 9
    assert joined.people == ("ada", "cy", "ada", "bo", "cy", "bo")
    np.testing.assert_array_equal(joined.labels, [1, 0, 2, 2, 3, 4, 4, 4, 5])
    for index, own in enumerate([5, 0, *range(6), 2]):
        np.testing.assert_array_equal(joined.read(index), faces.read(own))
        assert joined.name(index) == faces.name(own)
    other = JoinedFaces([Subset(faces, [5, 0]), faces, Subset(faces, [3])])
    assert other.fingerprint() != joined.fingerprint() == JoinedFaces(joined.sources).fingerprint()


def test_fingerprint_follows_pixels_labels_people_and_choice(faces):
    changed = faces.images.copy()
    changed[2, 1, 1, 1] ^= 1
    prints = {
        faces.fingerprint(),
        ArrayFaces(changed, faces.labels, faces.people).fingerprint(),
        ArrayFaces(faces.images, [0, 0, 1, 1, 2, 2], faces.people).fingerprint(),
        ArrayFaces(faces.images, faces.labels, ["ada", "bo", "di"]).fingerprint(),
        Subset(faces, range(6)).fingerprint(),
        Subset(faces, range(5)).fingerprint(),
    }
    assert len(prints) == 6
    assert ArrayFaces(faces.images.copy(), faces.labels, faces.people).fingerprint() == faces.fingerprint()


def test_sources_survive_the_way_into_a_worker(faces):
    copy = pickle.loads(pickle.dumps(Subset(faces, [4, 1])))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(copy.read(1), faces.read(1))


def test_older_crop_is_the_newer_without_eight_columns_each_side():
    image = np.random.default_rng(0).integers(256, size=(112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_size(image, (112, 96)), image[:, 8:104])


def test_fitting_to_the_same_size_changes_nothing():
    image = np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_size(image, (40, 30)), image)


def test_halving_averages_blocks():
    image = np.random.default_rng(0).integers(256, size=(112, 112, 3), dtype=np.uint8)
    blocks = image.reshape(56, 2, 56, 2, 3).mean(axis=(1, 3))
    assert np.abs(fit_size(image, (56, 56)) - blocks).max() <= 0.5


def test_growing_keeps_size_order_height_first():
    assert fit_size(np.zeros((10, 20, 3), np.uint8), (33, 44)).shape == (33, 44, 3)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_decoding_gives_rgb():
    bgr = np.zeros((4, 5, 3), np.uint8)
    bgr[..., 2] = 200
    np.testing.assert_array_equal(decode_image(_png(bgr), "x"), bgr[..., ::-1])


def test_grey_alpha_and_sixteen_bits_decode_to_8_bit_rgb():
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.testing.assert_array_equal(decode_image(_png(grey), "x"), np.repeat(grey[..., None], 3, axis=2))
    alpha = np.dstack([grey, grey + 1, grey + 2, grey])
    np.testing.assert_array_equal(decode_image(_png(alpha), "x"), alpha[..., 2::-1])
    deep = decode_image(_png(grey.astype(np.uint16) * 257), "x")
    np.testing.assert_array_equal(deep, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("encoded", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_undecodable_bytes_raise_with_the_name(encoded):
    with pytest.raises(UnreadableImage, match="anna"):
        decode_image(encoded, "anna/1.jpg")


@pytest.mark.parametrize(
    ("encoded", "remedy"),
    [
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "it is HEIC, AVIF or a video; export it as JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>404</title>", "it is an HTML page"),
    ],
)
def test_what_is_taken_for_an_image_gets_a_remedy(encoded, remedy):
    with pytest.raises(UnreadableImage, match=remedy):
        decode_image(encoded, "anna/1.jpg")
