"""Rounding towards the source: on the grid, never further away, never out of the ball."""

import torch

from steadface.attacks.rounding import as_bytes, towards_source


def grid_images(seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (8, 3, 6, 5), generator=torch.Generator().manual_seed(seed)).float() / 255


def test_every_pixel_is_on_the_grid_and_no_further_from_the_source() -> None:
    x = grid_images(1)
    x_adv = (x + 0.04 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    rounded = towards_source(x_adv, x)
    assert torch.allclose(255 * rounded, (255 * rounded).round(), atol=1e-4)
    assert bool(((rounded - x).abs() <= (x_adv - x).abs() + 1e-5).all())
    assert bool(((rounded - x) * (x_adv - x) >= 0).all())
    assert bool(((x_adv - rounded).abs() < 1 / 255 + 1e-6).all())


def test_whole_levels_stay_and_the_source_stays() -> None:
    x = grid_images(3)
    for levels in (1, 2, 8):
        moved = (x + levels / 255).clamp(max=1)
        assert torch.allclose(towards_source(moved, x), moved, atol=1e-6)
        moved = (x - levels / 255).clamp(min=0)
        assert torch.allclose(towards_source(moved, x), moved, atol=1e-6)
    assert torch.allclose(towards_source(x, x), x, atol=1e-7)


def test_nearest_rounding_would_leave_an_l2_ball_and_this_does_not() -> None:
    x = grid_images(4).clamp(0.2, 0.8)
    x = (255 * x).round() / 255
    x_adv = x + 0.6 / 255
    nearest = (255 * x_adv).round() / 255
    assert float((nearest - x).norm()) > float((x_adv - x).norm())
    assert float((towards_source(x_adv, x) - x).norm()) <= float((x_adv - x).norm())


def test_bytes_are_the_grid() -> None:
    x = grid_images(5)
    assert as_bytes(x).dtype == torch.uint8
    assert torch.equal(as_bytes(x).float() / 255, x)
