"""Square Attack: what the paper's figures and equations say, and one step written out sample by sample."""

import math

import pytest
import torch

from steadface.attacks import ball
from steadface.attacks.square import Square, _l2_move, _linf_move, _stripes, _tiles, bumps, share

RADIUS = {"linf": 0.1, "l2": 1.0}


@pytest.fixture
def grey(seeded):
    """``(6, 3, 14, 11)`` within 0.4 .. 0.6."""
    return 0.4 + 0.2 * torch.rand(6, 3, 14, 11, generator=seeded(1), dtype=torch.float64)


@pytest.fixture
def draws(seeded):
    return torch.rand(6, 8, generator=seeded(2), dtype=torch.float64)


def test_squares_shrink_by_the_published_schedule():
    sizes = [share(0.8, query, 10_000) for query in range(10_000)]
    assert [sizes[k] for k in (0, 10, 11, 50, 51)] == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert sizes[8001] == 0.8 / 256
    assert sorted(set(sizes), reverse=True) == [0.8 / 2**k for k in range(9)]
    for query in range(300):  # the same course in 300 queries
        assert share(0.8, query, 300) == share(0.8, 100 * query, 30_000)


def test_bumps_are_the_published_ones():
    """Their eq. 2 for h = 5: n = 2, and a column is as far from its half's centre as the larger of its distances."""
    low, middle, high = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    left = [[low] * 2, [middle, middle], [middle, high], [middle, middle], [low] * 2]
    right = [[low] * 3, [middle, middle, middle], [middle, high, middle], [middle, middle, middle], [low] * 3]
    expected = torch.tensor([a + [-v for v in b] for a, b in zip(left, right, strict=True)], dtype=torch.float64)
    assert torch.allclose(bumps(5), expected / expected.norm())
    for side in (1, 2, 3, 4, 9, 24):
        assert bumps(side).shape == (side, side)
        assert math.isclose(float(bumps(side).norm()), 1)


def corners(draws, side, height, width):
    return [
        (int(row * (height - side + 1)), int(column * (width - side + 1)))
        for row, column in draws.reshape(-1, 2).tolist()
    ]


@pytest.mark.parametrize("p", [0.01, 0.1, 0.6])
def test_a_linf_move_is_the_square_at_a_corner_of_the_ball(p, grey, draws, seeded):
    b, side = ball("linf", 0.1), max(round(math.sqrt(p * 14 * 11)), 1)
    x = _stripes(grey, b, seeded(3))
    moved = _linf_move(x, grey, b, p, draws)
    for k, (row, column) in enumerate(corners(draws[:, :2], side, 14, 11)):
        expected, signs = x[k].clone(), torch.where(draws[k, 5:] < 0.5, -1.0, 1.0).double().view(3, 1, 1)
        place = (slice(None), slice(row, row + side), slice(column, column + side))
        expected[place] = grey[k][place] + 0.1 * signs
        if torch.equal(expected, x[k]):
            expected[place] = grey[k][place] - 0.1 * signs
        assert torch.allclose(moved[k], expected)
        assert not torch.equal(moved[k], x[k])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.6])
def test_an_l2_move_is_algorithm_3(p, grey, draws):
    b, side = ball("l2", 1.0), max(2 * (round(math.sqrt(p * 14 * 11)) // 2) + 1, 3)
    x = grey + 0.02 * torch.randn(grey.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    moved = _l2_move(x, grey, b, p, draws)
    for k in range(len(x)):
        (r1, s1), (r2, s2) = corners(draws[k, :4], side, 14, 11)
        eta = bumps(side).T if draws[k, 4] < 0.5 else bumps(side)
        nu = x[k] - grey[k]
        unused, new = 1 - float(nu.norm()) ** 2, nu.clone()
        for c in range(3):
            here = (slice(r1, r1 + side), slice(s1, s1 + side))
            both = torch.zeros(14, 11, dtype=torch.bool)
            both[here] = both[r2 : r2 + side, s2 : s2 + side] = True
            rho = 1 if draws[k, 5 + c] >= 0.5 else -1
            temp = rho * eta + nu[c][here] / nu[c][here].norm()
            available = math.sqrt(float(nu[c][both].norm()) ** 2 + unused / 3)
            new[c][r2 : r2 + side, s2 : s2 + side] = 0
            new[c][here] = temp / temp.norm() * available
        assert torch.allclose(moved[k], grey[k] + new)
        assert math.isclose(float(new.norm()), 1)  # the whole ball is used


def test_the_starts_are_stripes_and_tiles_on_the_edge_of_the_ball(grey, seeded):
    delta = _stripes(grey, ball("linf", 0.1), seeded(5)) - grey
    assert torch.allclose(delta.abs(), torch.full_like(delta, 0.1))
    assert torch.allclose(delta, delta[:, :, :1].expand_as(delta))
    assert 0.3 < float((delta > 0).double().mean()) < 0.7
    delta = _tiles(grey, ball("l2", 1.0), seeded(6)) - grey
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(delta[:, :, :2, :2].abs(), delta[:, :, 2:4, 4:6].abs())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_queries_come_nearer_to_the_optimum_of_a_linear_score(norm, grey, linear_score, seeded):
    weights = torch.randn(grey.shape, generator=seeded(7), dtype=torch.float64)
    score, flat = linear_score(weights), weights.flatten(1)
    most = RADIUS[norm] * (flat.abs().sum(1) if norm == "linf" else flat.norm(dim=1))
    reached = [
        (score(Square(ball=ball(norm, RADIUS[norm]), queries=queries)(score, grey, generator=seeded(8))) - score(grey))
        / most
        for queries in (10, 100, 2000)
    ]
    assert bool((reached[0] < reached[1]).all())
    assert bool((reached[1] < reached[2]).all())
    assert bool((reached[2] > (0.75 if norm == "linf" else 0.45)).all())
    assert bool((reached[2] < 1).all())


def test_impossible_options_are_refused():
    for p in (0, 1.1):
        with pytest.raises(ValueError, match="p is a share"):
            Square(ball=ball("linf", 0.1), p=p)
