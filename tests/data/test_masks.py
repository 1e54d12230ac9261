"""Masks cover what they are named after and spare the rest, at any size."""

import numpy as np
import pytest
import torch

from steadface.data.masks import (
    DOWN,
    EYES,
    LEFT_EYE,
    LEFT_MOUTH,
    NOSE,
    REGIONS,
    RIGHT_EYE,
    RIGHT_MOUTH,
    face_mask,
    rounded,
    superellipse,
)
from steadface.errors import SteadfaceError


def at(mask, point):
    """The mask at (column, row) of the 112 x 112 template."""
    return float(mask[0, round(float(point[1])), round(float(point[0]))])


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("size", [(112, 112), (112, 96), (224, 224), (224, 192), (32, 32), (49, 42)])
def test_masks_are_shares_with_solid_insides(region, size):
    mask = face_mask(region, size)
    assert mask.shape == (1, *size)
    assert mask.dtype == torch.float32
    assert float(mask.min()) == 0
    assert float(mask.max()) > 0.95
    assert bool((mask == 0).float().mean() > 0.5)


def test_eyes_look_through_the_frame_which_joins_them():
    frame = face_mask("eyeglasses")
    for open_point in (LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, EYES - 25 * DOWN):
        assert at(frame, open_point) == 0
    assert bool(frame[0, 47:54, 56].max() == 1), "the bridge"
    for column in (16, 96):
        assert bool(frame[0, 45:53, column].max() == 1), "the temples"
    assert 0.05 < float(frame.mean()) < 0.09


def test_the_sticker_is_above_the_eyebrows():
    sticker = face_mask("forehead")
    rows = sticker[0].amax(1).nonzero()
    assert 10 <= int(rows.min()) < int(rows.max()) <= 36
    assert at(sticker, EYES - 30 * DOWN) == 1


def test_the_lower_face_takes_nose_and_mouth_and_spares_the_eyes():
    lower = face_mask("lower-face")
    for covered in (NOSE, LEFT_MOUTH, RIGHT_MOUTH):
        assert at(lower, covered) == 1
    assert float(lower[0, :60].max()) == 0


@pytest.mark.parametrize("region", REGIONS)
def test_the_older_crop_is_the_middle_of_the_square_one(region):
    assert torch.equal(face_mask(region, (112, 96)), face_mask(region)[:, :, 8:-8])


@pytest.mark.parametrize("region", REGIONS)
def test_another_size_is_the_same_shape(region):
    small, large = face_mask(region), face_mask(region, (224, 224))
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert float((shrunk - small).abs().mean()) < 0.002
    assert float((shrunk - small).abs().max()) < 0.2


@pytest.mark.parametrize("region", REGIONS)
def test_regions_are_as_symmetric_as_the_template(region):
    mask = face_mask(region)
    mirrored = mask.flip(2).roll(1, dims=2)  # about column 56: the template's middle is at 55.9 to 56.1
    assert float((mask - mirrored).abs().mean()) < 0.01


def test_proportions_of_no_template_and_unknown_regions_are_named():
    for size in ((112, 100), (96, 112), (0, 0)):
        with pytest.raises(SteadfaceError, match="112 x 96"):
            face_mask("forehead", size)
    with pytest.raises(SteadfaceError, match=r"moustache.*eyeglasses, forehead, lower-face"):
        face_mask("moustache")


def test_a_superellipse_satisfies_its_equation():
    points = superellipse(np.array([3.0, 5.0]), np.array([2.0, 1.0]), power=4)
    x, y = (points - [3, 5]).T
    assert np.allclose(np.abs(x / 2) ** 4 + np.abs(y) ** 4, 1)


def test_cutting_corners_keeps_the_middle_and_shrinks_the_area():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    cut = rounded(square, rounds=1)
    assert np.allclose(cut.mean(0), 0.5)
    x, y = cut.T
    area = 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
    assert area == pytest.approx(1 - 4 * 0.25**2 / 2)
