import numpy as np
import pytest

from steadface.data.augment import Augmentation, grey, through_jpeg
from steadface.errors import SteadfaceError

NOTHING = {"mirror": 0.0, "crop": 0.0, "colour": 0.0, "grey": 0.0, "jpeg": 0.0, "occlusion": 0.0}


@pytest.fixture
def image() -> np.ndarray:
    """Smooth, with a different ramp in each channel, and not square."""
    y, x = np.mgrid[:64, :48]
    return np.stack([40 + 2 * y, 60 + 2 * x, 90 + y + x], axis=-1).astype(np.uint8)


def only(**options) -> Augmentation:
    return Augmentation(**(NOTHING | options))


def apply(augmentation, image, seed=0):
    return augmentation(image, np.random.default_rng(seed))


def test_with_no_probability_nothing_changes(image):
    np.testing.assert_array_equal(apply(only(), image), image)


def test_mirror_is_the_picture_reversed(image):
    np.testing.assert_array_equal(apply(only(mirror=1.0), image), image[:, ::-1])


@pytest.mark.parametrize("name", ["mirror", "crop", "colour", "grey", "jpeg", "occlusion"])
@pytest.mark.parametrize("size", [(112, 112), (112, 96), (5, 3), (1, 1)])
def test_each_keeps_size_type_and_input(name, size):
    image = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    before = image.copy()
    result = apply(only(**{name: 1.0}), image)
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(image, before)


def test_the_generator_decides_and_nothing_else(image):
    augmentation = Augmentation()
    results = [apply(augmentation, image, seed) for seed in (*range(20), *range(20))]
    for first, again in zip(results[:20], results[20:], strict=True):
        np.testing.assert_array_equal(first, again)
    assert len({result.tobytes() for result in results}) > 10


@pytest.mark.parametrize("name", ["mirror", "crop", "colour", "grey", "jpeg", "occlusion"])
def test_each_happens_as_often_as_its_probability_says(image, name):
    augmentation = only(**{name: 0.3})
    generator = np.random.default_rng(0)
    changed = np.mean([not np.array_equal(augmentation(image, generator), image) for _ in range(600)])
    assert abs(changed - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 600)


def test_shift_moves_by_at_most_its_share_of_the_side():
    image = np.zeros((100, 80, 3), np.uint8)
    image[49:51, 39:41] = 255
    augmentation = only(crop=1.0, scale=0.0, rotation=0.0, shift=0.1)
    places = []
    for seed in range(40):
        moved = apply(augmentation, image, seed)[..., 0].astype(float)
        y, x = np.mgrid[:100, :80]
        places.append(((moved * y).sum() / moved.sum() - 49.5, (moved * x).sum() / moved.sum() - 39.5))
    reach = np.abs(places).max(axis=0)
    assert np.all(reach < [10.1, 8.1])
    assert np.all(reach > [7, 5])


def test_scale_and_turn_keep_the_centre():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    for seed in range(10):
        turned = apply(only(crop=1.0, shift=0.0, scale=0.2, rotation=30.0), dot, seed)
        assert np.unravel_index(turned[..., 0].argmax(), (41, 41)) == (20, 20)


def test_colour_of_strength_nought_changes_nothing(image):
    same = apply(only(colour=1.0, brightness=0.0, contrast=0.0, saturation=0.0), image)
    np.testing.assert_array_equal(same, image)


def test_brightness_adds_the_same_everywhere(image):
    changes = set()
    for seed in range(10):
        shifted = apply(only(colour=1.0, brightness=0.1, contrast=0.0, saturation=0.0), image, seed)
        (change,) = np.unique(shifted.astype(int) - image)
        changes.add(int(change))
    assert max(np.abs(list(changes))) <= 26
    assert len(changes) > 5


def test_contrast_keeps_the_middle_and_saturation_keeps_grey():
    middle = np.full((8, 8, 3), 127, np.uint8)
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(10):
        assert (
            np.abs(apply(only(colour=1.0, brightness=0.0, saturation=0.0), middle, seed).astype(int) - 127).max() <= 1
        )
        np.testing.assert_array_equal(
            apply(only(colour=1.0, brightness=0.0, contrast=0.0, saturation=1.0), ramp, seed), ramp
        )


def test_grey_weighs_the_channels_as_rgb():
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        image = np.zeros((4, 4, 3), np.uint8)
        image[..., channel] = 200
        result = grey(image)
        assert np.ptp(result) == 0
        assert abs(int(result[0, 0, 0]) - 200 * weight) <= 1


def test_jpeg_stays_close_keeps_channel_order_and_worsens_with_quality(image):
    errors = [np.abs(through_jpeg(image, quality).astype(int) - image).mean() for quality in (95, 50, 5)]
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 2


def test_occlusion_is_one_rectangle_of_one_colour_within_its_area(image):
    shares = []
    for seed in range(40):
        covered = apply(only(occlusion=1.0, occlusion_area=(0.05, 0.2)), image, seed)
        changed = (covered != image).any(axis=-1)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert len(np.unique(box.reshape(-1, 3), axis=0)) == 1
        shares.append(box.shape[0] * box.shape[1] / changed.size)
    assert min(shares) > 0.04
    assert max(shares) < 0.22


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mirror", 1.5),
        ("jpeg", -0.1),
        ("jpeg_quality", (90, 30)),
        ("jpeg_quality", (0, 30)),
        ("scale", 1.0),
        ("shift", float("nan")),
    ],
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(SteadfaceError, match=option):
        Augmentation(**{option: value})
