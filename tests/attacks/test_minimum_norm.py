"""Distances to a threshold that are known: the margin of a linear score over the dual norm of its weights."""

import pytest
import torch

from steadface.attacks import PGD, ball
from steadface.attacks.cw import CarliniWagnerL2
from steadface.attacks.distances import lengths, shortened
from steadface.attacks.fmn import FMN
from steadface.attacks.minimum_norm import Bisection, minimum_distance

RADIUS = {"linf": 0.1, "l2": 1.0}


def pgd(norm, radius=None):
    return PGD(ball=ball(norm, RADIUS[norm] if radius is None else radius), steps=20)


SEARCHES = [
    pytest.param("linf", lambda: Bisection(attack=pgd("linf")), id="bisection-linf"),
    pytest.param("l2", lambda: Bisection(attack=pgd("l2")), id="bisection-l2"),
    pytest.param("linf", lambda: FMN(attack=pgd("linf")), id="fmn-linf"),
    pytest.param("l2", lambda: FMN(attack=pgd("l2")), id="fmn-l2"),
    pytest.param("l2", lambda: CarliniWagnerL2(ball=ball("l2", 1.0), searches=6, steps=120), id="cw-l2"),
]


@pytest.fixture
def weights(grey_images, seeded):
    return torch.randn(grey_images.shape, generator=seeded(1), dtype=torch.float64)


def dual(weights, norm):
    flat = weights.flatten(1)
    return flat.abs().sum(1) if norm == "linf" else flat.norm(dim=1)


@pytest.mark.parametrize(("norm", "make"), SEARCHES)
def test_the_distance_of_a_linear_score_is_margin_over_dual_norm(
    norm, make, grey_images, weights, linear_score, seeded
):
    x = grey_images.double()
    expected = torch.linspace(0.05, 0.5, len(x), dtype=torch.float64) * RADIUS[norm]
    score = linear_score(weights, linear_score(weights)(x) + expected * dual(weights, norm))
    found = make().closest(score, x, generator=seeded(2))
    assert not found.censored.any()
    assert torch.allclose(found.distance, expected, rtol=0.05)
    assert bool((found.distance >= expected * (1 - 1e-9)).all())  # nothing can be nearer
    assert bool(score.succeeded(score(found.images)).all())
    assert torch.allclose(lengths(found.images - x, norm), found.distance)


@pytest.mark.parametrize("search", ["bisection", "fmn"])
def test_the_range_of_pixels_makes_the_way_longer(search, images, linear_score, seeded):
    """Under linf the most that radius r can gain is known also where pixels meet the range."""
    x = images.double()
    weights = torch.randn(x.shape, generator=seeded(3), dtype=torch.float64)
    room = torch.where(weights > 0, 1 - x, x)
    expected = torch.linspace(0.01, 0.09, len(x), dtype=torch.float64)
    gain = (weights.abs() * torch.minimum(room, expected.view(-1, 1, 1, 1))).sum(dim=(1, 2, 3))
    score = linear_score(weights, linear_score(weights)(x) + gain)
    attack = Bisection(attack=pgd("linf")) if search == "bisection" else FMN(attack=pgd("linf"))
    found = attack.closest(score, x, generator=seeded(4))
    assert torch.allclose(found.distance, expected, rtol=0.03)


@pytest.mark.parametrize(("norm", "make"), SEARCHES)
def test_what_holds_in_the_largest_ball_is_censored_and_what_is_over_is_at_zero(
    norm, make, grey_images, weights, linear_score, seeded
):
    x = grey_images.double()
    distance = RADIUS[norm] * torch.tensor([-0.1, 0.3, 1.2, 0.3, 5.0, -0.2], dtype=torch.float64)
    score = linear_score(weights, linear_score(weights)(x) + distance * dual(weights, norm))
    found = make().closest(score, x, generator=seeded(5))
    assert found.censored.tolist() == [False, False, True, False, True, False]
    assert bool((found.distance[found.censored] == RADIUS[norm]).all())
    assert found.distance[[0, 5]].tolist() == [0, 0]
    assert torch.equal(found.images[[0, 5]], x[[0, 5]])
    assert torch.allclose(found.distance[[1, 3]], distance[[1, 3]], rtol=0.05)
    best = 0.5 * RADIUS[norm] * dual(weights, norm)  # the furthest miss is returned, not the source
    assert bool((linear_score(weights)(found.images) - linear_score(weights)(x) > best)[found.censored].all())


def test_each_halving_of_the_radii_makes_the_bracket_smaller(grey_images, weights, linear_score, seeded):
    x = grey_images.double()
    expected = torch.full((len(x),), 0.03, dtype=torch.float64)
    score = linear_score(weights, linear_score(weights)(x) + expected * dual(weights, "linf"))
    excess = [
        Bisection(attack=pgd("linf"), rounds=rounds, refinements=0).closest(score, x, generator=seeded(6)).distance
        / 0.03
        for rounds in (2, 4, 8)
    ]
    for rounds, ratio in zip((2, 4, 8), excess, strict=True):
        assert bool((ratio <= 2 ** (8 / 2**rounds) * 1.001).all())


def test_the_function_is_the_bisection(grey_images, weights, linear_score, seeded):
    x = grey_images.double()
    score = linear_score(weights, linear_score(weights)(x) + 0.02 * dual(weights, "linf"))
    found = minimum_distance(pgd("linf"), score, x, generator=seeded(7), rounds=4)
    same = Bisection(attack=pgd("linf"), rounds=4).closest(score, x, generator=seeded(7))
    assert torch.equal(found.distance, same.distance)
    assert torch.equal(found.images, same.images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_shortening_is_the_projection_onto_each_ball(norm, seeded):
    delta = torch.randn(4, 3, 5, 5, generator=seeded(8), dtype=torch.float64)
    length = lengths(delta, norm)
    inside = shortened(delta, 2 * length, norm)
    assert torch.allclose(inside, delta)
    radii = length * torch.tensor([0.0, 0.1, 0.5, 0.9], dtype=torch.float64)
    for row, x in enumerate(shortened(delta, radii, norm)):
        origin = torch.full_like(x[None], 0.5)  # the ball of a whole batch, far from the ends of the range
        scale = 100 * float(length.max())
        alone = ball(norm, float(radii[row]) / scale).project(origin + delta[row] / scale, origin)
        assert torch.allclose(x, (alone - origin)[0] * scale, atol=1e-9)


def test_impossible_options_are_refused():
    for make in (
        lambda: Bisection(attack=pgd("linf"), rounds=0),
        lambda: FMN(attack=pgd("linf"), steps=0),
        lambda: CarliniWagnerL2(ball=ball("l2", 1.0), searches=0),
    ):
        with pytest.raises(ValueError, match="at least 1"):
            make()
