"""Corruptions do more harm with each severity, keep the range, and owe their luck to the generator alone."""

import re
from itertools import pairwise

import pytest
import torch

from steadface.attacks import corruptions
from steadface.attacks.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    bright,
    dark,
    defocus,
    jpeg,
    motion,
    noise,
    occlusion,
)
from steadface.errors import SteadfaceError

from ..rounding import rounding

each = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.__name__)


@pytest.fixture(scope="module")
def pictures():
    """``(4, 3, 112, 96)``: smooth with some grain, over the whole range."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 8, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(112, 96), mode="bicubic")
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


@each
def test_each_severity_is_further_from_the_source(corruption, pictures, seeded):
    distances = [
        float((corruption(pictures, severity, generator=seeded(1)) - pictures).square().mean())
        for severity in SEVERITIES
    ]
    assert distances[0] > 0
    assert all(later > earlier for earlier, later in pairwise(distances))


@each
@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("shape", [(2, 3, 112, 112), (3, 3, 32, 24), (0, 3, 16, 16)])
def test_shape_type_and_range_are_kept_and_the_source_is_untouched(corruption, severity, shape, seeded):
    images = torch.rand(shape, generator=seeded(2), dtype=torch.float64).round(decimals=1)
    before = images.clone()
    corrupted = corruption(images, severity, generator=seeded(3))
    assert corrupted.shape == images.shape
    assert corrupted.dtype == images.dtype
    assert bool(((corrupted >= 0) & (corrupted <= 1)).all())
    assert torch.equal(images, before)


@each
def test_the_outcome_is_decided_by_the_generator(corruption, pictures, seeded):
    state = torch.get_rng_state()
    first, second = (corruption(pictures, 3, generator=seeded(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    other = corruption(pictures, 3, generator=seeded(5))
    assert torch.equal(first, other) == (corruption in (defocus, jpeg, bright))


@each
@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_other_severities_are_named(corruption, severity, pictures, seeded):
    with pytest.raises(SteadfaceError, match=f"severity {severity} of a corruption; give 1, 2, 3, 4 or 5"):
        corruption(pictures, severity, generator=seeded(0))


@pytest.mark.parametrize("blur", [defocus, motion])
def test_blur_leaves_a_constant_picture_as_it_is(blur, seeded):
    images = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 112, 112)
    for severity in SEVERITIES:
        assert torch.allclose(blur(images, severity, generator=seeded(6)), images, atol=1e-6)


def test_a_point_out_of_focus_becomes_a_disc_of_its_light(seeded):
    point = torch.zeros(1, 3, 112, 112)
    point[..., 56, 56] = 1
    for severity, radius in zip(SEVERITIES, corruptions.RADIUS, strict=True):
        disc = defocus(point, severity, generator=seeded(0))[0, 0]
        rows, columns = (disc > rounding(1)).nonzero().T
        distance = ((rows - 56) ** 2 + (columns - 56) ** 2).float().sqrt()
        assert float(disc.sum()) == pytest.approx(1, abs=1e-5)
        assert radius - 0.5 <= float(distance.max()) < radius + 0.5


def test_a_point_in_motion_becomes_a_line_of_its_length(seeded):
    point = torch.zeros(8, 3, 112, 112)
    point[..., 56, 56] = 1
    for severity, length in zip(SEVERITIES, corruptions.LENGTH, strict=True):
        for line in motion(point, severity, generator=seeded(7))[:, 0]:
            place = (line > rounding(1)).nonzero().float() - 56
            weights = line[line > rounding(1)]
            spread = torch.linalg.eigvalsh((place * weights[:, None]).T @ place)
            assert float(line.sum()) == pytest.approx(1, abs=1e-5)
            assert float(spread[0]) < 0.35, "its width"
            assert abs((12 * float(spread[1])) ** 0.5 - length) < 1.2, "its length, as of a uniform line"


def test_a_larger_picture_is_blurred_alike(pictures, seeded):
    def enlarged(images):
        return torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear")

    before = enlarged(defocus(pictures, 4, generator=seeded(0)))
    after = defocus(enlarged(pictures), 4, generator=seeded(0))
    assert float((before - after).abs().mean()) < 0.01


def test_noise_of_a_grey_has_the_deviation_of_its_electrons(seeded):
    light = 0.25
    images = torch.full((1, 3, 112, 112), light ** (1 / corruptions.GAMMA))
    for severity, well in zip((1, 2), corruptions.ELECTRONS, strict=False):
        measured = noise(images, severity, generator=seeded(8)).pow(corruptions.GAMMA)
        expected = (light * well + corruptions.READ_NOISE**2) ** 0.5 / well
        assert float(measured.std()) == pytest.approx(expected, rel=0.02)
        assert float(measured.mean()) == pytest.approx(light, rel=0.01)


def test_exposure_halves_and_doubles_the_light(seeded):
    images = torch.full((1, 3, 112, 112), 0.5)
    light = 0.5**corruptions.GAMMA
    darker = dark(images, 1, generator=seeded(9)).pow(corruptions.GAMMA).mean()
    brighter = bright(images, 2, generator=seeded(9)).pow(corruptions.GAMMA).mean()
    assert float(darker) == pytest.approx(light / 2 ** corruptions.UNDEREXPOSURE[0], rel=0.05)
    assert float(brighter) == pytest.approx(light * 2 ** corruptions.OVEREXPOSURE[1], rel=0.01)


def test_occlusion_covers_its_share_with_one_colour_and_grows_in_place(seeded):
    images = torch.full((16, 3, 112, 96), -1.0)  # no colour at all
    before = torch.zeros(16, 112, 96, dtype=torch.bool)
    for severity, area in zip(SEVERITIES, corruptions.AREA, strict=True):
        corrupted = occlusion(images, severity, generator=seeded(10))
        covered = (corrupted >= 0).all(1)
        assert torch.allclose(covered.float().mean((1, 2)), torch.tensor(area), atol=0.02)
        assert bool((covered >= before).all())
        for picture, where in zip(corrupted, covered, strict=True):
            colours = picture[:, where]
            assert torch.equal(colours, colours[:, :1].expand_as(colours))
        before = covered


def test_jpeg_keeps_order_of_images_and_of_colours(seeded):
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])
    stored = jpeg(colours[:, :, None, None].expand(3, 3, 32, 32), 1, generator=seeded(0))
    assert torch.allclose(stored.mean((2, 3)), colours, atol=0.03)


def test_the_table_says_what_the_severities_are():
    levels = {
        "defocus": corruptions.RADIUS,
        "motion": corruptions.LENGTH,
        "noise": corruptions.ELECTRONS,
        "jpeg": corruptions.QUALITY,
        "dark": corruptions.UNDEREXPOSURE,
        "bright": corruptions.OVEREXPOSURE,
        "occlusion": [100 * area for area in corruptions.AREA],
    }
    assert set(levels) == {corruption.__name__ for corruption in CORRUPTIONS}
    for name, values in levels.items():
        row = re.search(rf"^    {name} .*$", corruptions.__doc__, re.MULTILINE).group()
        assert [float(number) for number in row.split()[-5:]] == pytest.approx(list(values))
