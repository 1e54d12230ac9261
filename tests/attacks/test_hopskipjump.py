"""HopSkipJump: the normal of a boundary from decisions, and the distance that is known of a plane."""

import math

import pytest
import torch

from steadface.attacks import ball
from steadface.attacks.decision import Decisions
from steadface.attacks.hopskipjump import HopSkipJump


@pytest.fixture
def grey(seeded):
    """``(4, 3, 8, 8)`` within 0.4 .. 0.6."""
    return 0.4 + 0.2 * torch.rand(4, 3, 8, 8, generator=seeded(1), dtype=torch.float64)


@pytest.fixture
def plane(grey, linear_score, seeded):
    """A linear score, and images at its threshold, 0.3 away from ``grey`` at the nearest."""
    weights = torch.randn(grey.shape, generator=seeded(2), dtype=torch.float64)
    unit = weights / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    images = grey + 0.3 * unit
    return linear_score(unit, linear_score(unit)(images)), images


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_votes_point_along_the_normal_as_well_as_chance_allows(norm, grey, plane, seeded):
    score, images = plane
    attack = HopSkipJump(ball=ball(norm, 9.0), queries=10_000, grid=None)
    cosines = []
    for count in (20, 500, 2000):
        found = Decisions(score, grey, attack.ball, 10_000)
        found.offer(torch.arange(4), images + 1e-9 * score.weights)
        asked = torch.full((4,), count)
        votes = attack._votes(found, torch.arange(4), asked, count, seeded(3))
        cosines.append(torch.cosine_similarity(votes.flatten(1), score.weights.flatten(1)))
        assert (found.left == 10_000 - 1 - count).all()
        # Signs of n random projections: the mean vote is sqrt(2 / pi d) long, its noise 1 / sqrt(n).
        signal = math.sqrt(2 / (math.pi * grey[0].numel()))
        expected = signal / math.sqrt(signal**2 + (1 - signal**2) / count)
        assert abs(float(cosines[-1].mean()) - expected) < 0.12
    assert bool((cosines[0] < cosines[1]).all())
    assert bool((cosines[1] < cosines[2]).all())


def test_votes_are_equation_16_and_count_no_more_than_was_asked(grey, plane, seeded):
    score, images = plane
    attack = HopSkipJump(ball=ball("l2", 9.0), grid=None)
    found = Decisions(score, grey, attack.ball, 1000)
    found.offer(torch.arange(4), images + 1e-3 * score.weights)
    asked = torch.tensor([30, 7, 50, 2])
    votes = attack._votes(found, torch.arange(4), asked, 50, seeded(4))
    assert (1000 - 1 - found.left).tolist() == asked.tolist()
    generator = seeded(4)
    draws = torch.cat([attack._directions(grey, min(16, 50 - first), generator) for first in range(0, 50, 16)], dim=1)
    for k in range(4):
        x, u = found.nearest[k], draws[k, : asked[k]]
        u = u / u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        trials = (x + 0.1 * (x - grey[k]).norm() * u).clamp(0, 1)
        phi = torch.tensor(
            [1.0 if float((score.weights[k] * t).sum()) >= float(score.enough[k]) else -1 for t in trials]
        )
        weight = phi.double() if phi.abs().mean() == phi.mean().abs() else (phi - phi.mean()).double()
        assert torch.allclose(votes[k], (weight.view(-1, 1, 1, 1) * u).sum(0), atol=1e-6)


@pytest.mark.parametrize(("norm", "excess"), [("l2", 1.15), ("linf", 1.5)])
def test_the_distance_to_a_plane_is_found(norm, excess, grey, plane, seeded):
    score, _ = plane
    weights = score.weights.flatten(1)
    nearest = 0.3 / (weights.abs().sum(1) if norm == "linf" else weights.norm(dim=1))
    attack = HopSkipJump(ball=ball(norm, 9.0), queries=6000, grid=None)
    starts = (grey + 0.4 * score.weights.sign() * (score.weights.abs() > 0.05)).clamp(0, 1)
    found = attack.closest(score, grey, generator=seeded(5), starts=starts)
    assert not found.censored.any()
    assert bool((found.distance >= nearest * (1 - 1e-9)).all())
    assert bool((found.distance <= nearest * excess).all())


def test_a_coarse_grid_helps_where_the_normal_is_smooth(grey, linear_score, seeded):
    smooth = torch.randn(4, 3, 2, 2, generator=seeded(6), dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(smooth, size=(8, 8), mode="bilinear")
    score = linear_score(smooth, linear_score(smooth)(grey) + 0.2 * smooth.flatten(1).norm(dim=1))
    starts = (grey + 0.4 * smooth.sign()).clamp(0, 1)
    fine, coarse = (
        HopSkipJump(ball=ball("l2", 9.0), queries=300, grid=grid)
        .closest(score, grey, generator=seeded(7), starts=starts)
        .distance
        for grid in (None, 2)
    )
    assert float((coarse < fine).double().mean()) >= 0.75
    assert float(coarse.mean()) < float(fine.mean())


def test_impossible_options_are_refused():
    for options in ({"probes": 1}, {"probe": 0}, {"carry": 1.5}):
        with pytest.raises(ValueError, match="probes 2" if "probes" in options else "probe is positive"):
            HopSkipJump(ball=ball("l2", 1.0), **options)
