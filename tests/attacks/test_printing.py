"""Printable colours lie inside what inks can mix; the penalties are zero at their optimum and have its gradient."""

import pytest
import torch

from steadface.attacks.printing import (
    BLACK,
    GAMMA,
    OVERPRINTS,
    non_printability,
    printable_colours,
    total_variation,
)


def test_the_colours_are_thirty_and_hold_paper_and_solid_inks():
    colours = printable_colours()
    assert colours.shape == (30, 3)
    assert 0 <= float(colours.min()) <= float(colours.max()) <= 1
    assert len(colours.unique(dim=0)) == 30
    for solid in (*OVERPRINTS.values(), BLACK):
        assert float((colours - torch.tensor(solid) / 255).abs().amax(1).min()) < 1e-6


def test_half_a_coverage_reflects_half_of_ink_and_half_of_paper():
    cyan = torch.tensor(OVERPRINTS[1, 0, 0], dtype=torch.float64) / 255
    half = ((1 + cyan.pow(GAMMA)) / 2).pow(1 / GAMMA)
    assert float((printable_colours() - half).abs().amax(1).min()) < 1e-6


def test_variation_of_one_colour_is_nothing_and_of_a_ramp_its_slope():
    mask = torch.ones(1, 6, 5)
    assert float(total_variation(torch.full((1, 3, 6, 5), 0.7), mask)) == 0
    ramp = 0.3 * torch.arange(6.0).view(6, 1) + 0.4 * torch.arange(5.0)
    assert float(total_variation(ramp.expand(2, 3, 6, 5), mask)[1]) == pytest.approx(0.5, abs=1e-3)


def test_only_pixels_inside_the_mask_count(seeded):
    patch, mask = torch.full((1, 3, 6, 6), 0.5), torch.zeros(1, 6, 6)
    mask[:, 2:5, 2:5] = 1
    noisy = torch.where(mask > 0, patch, torch.rand(patch.shape, generator=seeded(0)))
    assert float(total_variation(noisy, mask)) == 0
    assert float(non_printability(noisy, mask, torch.tensor([[0.5, 0.5, 0.5]]))) == 0


def test_the_distance_is_that_to_the_nearest_colour():
    patch = torch.tensor([0.3, 0.4, 0.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    distance = non_printability(patch, torch.ones(1, 4, 4), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    assert torch.allclose(distance, torch.tensor([0.5, 0.5]))


def test_gradients_are_right_and_finite_where_there_is_no_slope(seeded):
    patch = torch.rand(2, 3, 4, 4, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    mask, palette = torch.rand(1, 4, 4, generator=seeded(2), dtype=torch.float64), printable_colours().double()
    assert torch.autograd.gradcheck(lambda p: total_variation(p, mask) + non_printability(p, mask, palette), (patch,))
    white = torch.ones(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    (total_variation(white, mask) + non_printability(white, mask, palette)).sum().backward()
    assert torch.equal(white.grad, torch.zeros_like(white))
