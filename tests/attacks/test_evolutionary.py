"""The evolution strategy: its updates by hand, what it draws, and where it goes."""

import math

import pytest
import torch

from steadface.attacks import ball
from steadface.attacks.evolutionary import TRIALS, Evolutionary, _Strategy


@pytest.fixture
def grey(seeded):
    """``(4, 3, 8, 8)`` within 0.4 .. 0.6."""
    return 0.4 + 0.2 * torch.rand(4, 3, 8, 8, generator=seeded(1), dtype=torch.float64)


@pytest.fixture
def strategy(grey):
    return _Strategy(grey, (3, 4, 4), 0.01)


def test_a_success_teaches_by_equations_4_and_5_and_a_failure_nothing(strategy, seeded):
    rows, succeeded = torch.tensor([0, 2, 3]), torch.tensor([True, False, True])
    path, variance = torch.zeros(3, 4, 4).double(), torch.ones(3, 4, 4).double()
    for step in range(2):
        z = torch.randn(3, 3, 4, 4, generator=seeded(step), dtype=torch.float64)
        strategy.learn(rows, z, succeeded)
        path = 0.99 * path + math.sqrt(0.01 * 1.99) * z[0]
        variance = 0.999 * variance + 0.001 * path**2
    assert torch.allclose(strategy.path[0], path)
    assert torch.allclose(strategy.variance[0], variance)
    for row in (1, 2):
        assert torch.equal(strategy.path[row], torch.zeros(3, 4, 4).double())
        assert torch.equal(strategy.variance[row], torch.ones(3, 4, 4).double())
    assert not torch.equal(strategy.variance[3], strategy.variance[0])


def test_the_pull_grows_where_more_than_a_fifth_succeeds(strategy):
    strategy.successes = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64) * TRIALS
    strategy.adapt()
    expected = [0.01 * math.exp(share - 0.2) for share in (0, 0.2, 0.5, 1)]
    assert torch.allclose(strategy.mu, torch.tensor(expected, dtype=torch.float64))
    assert strategy.successes.tolist() == [0] * 4


def test_coordinates_are_drawn_by_their_variance(strategy, seeded):
    strategy.variance[:, 0] = 9.0  # a third of the coordinates, nine times the weight
    generator = seeded(2)
    draws = torch.stack([strategy.mutations(1 / 48, generator) for _ in range(400)])
    assert bool(((draws != 0).flatten(2).sum(2) == 1).all())
    share = (draws[:, :, 0] != 0).double().sum() / (draws != 0).double().sum()
    assert abs(float(share) - 9 / 11) < 0.03
    assert abs(float(draws[:, :, 0][draws[:, :, 0] != 0].std()) - 3) < 0.15
    assert bool(((strategy.mutations(0.25, generator) != 0).flatten(1).sum(1) == 12).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_comes_near_to_a_plane_whose_normal_is_smooth(norm, grey, linear_score, seeded):
    smooth = torch.randn(4, 3, 2, 2, generator=seeded(3), dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(smooth, size=(8, 8), mode="bilinear")
    flat = smooth.flatten(1)
    nearest = {"linf": 0.02, "l2": 0.2}[norm]
    dual = flat.abs().sum(1) if norm == "linf" else flat.norm(dim=1)
    score = linear_score(smooth, linear_score(smooth)(grey) + nearest * dual)
    noise = torch.rand(grey.shape, generator=seeded(4), dtype=torch.float64)
    starts = torch.where(noise < 0.3, 1 - (smooth < 0).double(), grey)
    short, long = (
        Evolutionary(ball=ball(norm, 20.0), queries=queries, grid=4)
        .closest(score, grey, generator=seeded(5), starts=starts)
        .distance
        for queries in (20, 1000)
    )
    assert bool((long >= nearest * (1 - 1e-9)).all())
    assert bool((long < 1.1 * nearest).all())
    assert bool((short > 1.5 * nearest).all())


def test_impossible_options_are_refused():
    for options in ({"grid": 0}, {"sigma": 0}, {"mu": 1.0}, {"coordinates": 0}):
        with pytest.raises(ValueError, match="at least 1" if "grid" in options else "mu and coordinates shares"):
            Evolutionary(ball=ball("l2", 1.0), **options)
