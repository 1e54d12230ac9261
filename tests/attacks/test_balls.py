import importlib

import pytest
import torch

from steadface.attacks import L2, Linf, ball

RADII = (0.0, 1 / 255, 4 / 255, 0.3, 2.0)
BALLS = [pytest.param(kind(r), id=f"{kind.__name__}-{r:.3g}") for kind in (Linf, L2) for r in RADII]
PIXEL_ROUNDING = 2.0**-24  # an image in [0, 1] is a float32: x + radius is rounded to the nearest one


def length(delta, norm):
    flat = delta.double().flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def assert_inside(x_adv, x, around):
    assert x_adv.dtype == torch.float32
    assert float(x_adv.min()) >= 0
    assert float(x_adv.max()) <= 1
    slack = PIXEL_ROUNDING * (1 if around.norm == "linf" else x[0].numel() ** 0.5)
    assert float(length(x_adv.double() - x.double(), around.norm).max()) <= around.radius + slack


@pytest.mark.parametrize("around", BALLS)
def test_project_keeps_budget_and_range(around, images, seeded):
    for scale in (1e-3, 0.1, 10.0):
        noisy = images + scale * torch.randn(images.shape, generator=seeded(4))
        assert_inside(around.project(noisy, images), images, around)


@pytest.mark.parametrize("around", BALLS)
def test_project_is_idempotent(around, images, seeded):
    once = around.project(images + torch.randn(images.shape, generator=seeded(5)), images)
    twice = around.project(once, images)
    if around.norm == "linf":
        assert torch.equal(once, twice)
    assert torch.allclose(once, twice, rtol=0, atol=2 * PIXEL_ROUNDING)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_project_inside_on_the_boundary_and_outside(norm, grey_images, seeded):
    around = ball(norm, 0.1)
    direction = around.steepest(torch.randn(grey_images.shape, generator=seeded(6)))
    for distance, expected in ((0.05, 0.05), (0.1, 0.1), (0.4, 0.1)):
        projected = around.project(grey_images + distance * direction, grey_images)
        assert torch.allclose(projected, grey_images + expected * direction, rtol=0, atol=1e-6)


def test_linf_projection_is_the_nearest_feasible_image(images, seeded):
    around, generator = Linf(0.1), seeded(7)
    outside = images + 0.5 * torch.randn(images.shape, generator=generator)
    distance = (around.project(outside, images) - outside).norm()
    for _ in range(50):
        assert distance <= (around.sample(images, generator) - outside).norm()


def test_l2_projection_is_the_nearest_point_of_the_ball(grey_images, seeded):
    around, generator = L2(0.1), seeded(8)
    outside = grey_images + 0.5 * torch.randn(grey_images.shape, generator=generator)
    distance = (around.project(outside, grey_images) - outside).flatten(1).norm(dim=1)
    for _ in range(50):
        other = (around.sample(grey_images, generator) - outside).flatten(1).norm(dim=1)
        assert bool((distance <= other + 1e-6).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_is_the_argmax_over_unit_directions(norm, seeded):
    generator = seeded(9)
    gradient = torch.randn(5, 3, 2, 2, generator=generator, dtype=torch.float64)
    direction = ball(norm, 0.1).steepest(gradient)
    assert torch.allclose(length(direction, norm), torch.ones(5, dtype=torch.float64))
    gain = (gradient * direction).sum(dim=(1, 2, 3))
    dual = gradient.abs().sum(dim=(1, 2, 3)) if norm == "linf" else gradient.flatten(1).norm(dim=1)
    assert torch.allclose(gain, dual)
    for _ in range(100):
        rival = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        rival = rival / length(rival, norm).view(-1, 1, 1, 1)
        assert bool(((gradient * rival).sum(dim=(1, 2, 3)) <= gain).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_is_zero_where_the_gradient_is_zero(norm):
    gradient = torch.zeros(2, 3, 4, 4)
    gradient[1, 0, 0, 0] = -3.0
    direction = ball(norm, 0.1).steepest(gradient)
    assert not direction[0].any()
    assert direction[1, 0, 0, 0] == -1


@pytest.mark.parametrize("around", BALLS)
def test_sample_keeps_budget_and_range(around, images, seeded):
    assert_inside(around.sample(images, seeded(10)), images, around)


def kstest(*asked, **rest):
    """That of scipy.stats, which takes a second to load: not in every process that collects these tests."""
    return importlib.import_module("scipy.stats").kstest(*asked, **rest)


def test_linf_sample_is_uniform_inside_the_ball(seeded):
    centre = torch.full((3000, 3, 1, 1), 0.5)
    delta = (Linf(0.2).sample(centre, seeded(11)) - centre).flatten(1).numpy()
    for channel in delta.T:
        assert kstest(channel, "uniform", args=(-0.2, 0.4)).pvalue > 0.01


def test_l2_sample_is_uniform_inside_the_ball(seeded):
    centre = torch.full((3000, 3, 1, 1), 0.5)
    delta = (L2(0.2).sample(centre, seeded(12)) - centre).flatten(1).numpy()
    radii = (delta**2).sum(axis=1) ** 0.5
    assert kstest((radii / 0.2) ** 3, "uniform").pvalue > 0.01  # the volume within a radius grows with its cube
    for channel in delta.T:  # Archimedes: a coordinate of a uniform direction in three dimensions is uniform
        assert kstest(channel / radii, "uniform", args=(-1, 2)).pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_sample_is_decided_by_the_generator(norm, images, seeded):
    around, state = ball(norm, 0.1), torch.get_rng_state()
    assert torch.equal(around.sample(images, seeded(13)), around.sample(images, seeded(13)))
    assert not torch.equal(around.sample(images, seeded(13)), around.sample(images, seeded(14)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_squash_maps_any_field_smoothly_into_the_ball(norm, seeded):
    around = ball(norm, 0.25)
    field = torch.randn(4, 3, 2, 2, generator=seeded(15), dtype=torch.float64)
    for scale in (0.0, 1e-3, 1.0, 1e4):
        assert bool((length(around.squash(scale * field), norm) <= 0.25).all())
    assert torch.allclose(around.squash(1e-4 * field), 0.25e-4 * field, rtol=1e-5)
    assert torch.autograd.gradcheck(around.squash, (field.requires_grad_(True),))


def test_a_ball_scales_and_refuses_a_negative_radius():
    assert ball("linf", 0.1).scaled(0.5) == Linf(0.05)
    assert ball("l2", 3.0).scaled(2) == L2(6.0)
    for radius in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="radius"):
            ball("l2", radius)
