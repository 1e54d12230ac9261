"""The statistics of smoothing: against sums of binomial terms, by simulation, and that its two forms say the same."""

from math import comb

import numpy as np
import pytest
from scipy.special import ndtr

from steadface.certification.smoothing import (
    certified_radius,
    cosine_bounds,
    draws_needed,
    furthest_radius,
    least_share,
    lower_rank,
    most_share,
    moved_share,
)

SIGMA, ALPHA = 0.25, 0.01


def at_most(k, n, p):
    """P(Bin(n, p) <= k), term by term."""
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize("draws", [1, 7, 40])
@pytest.mark.parametrize("share", [0.02, 0.16, 0.5, 0.9])
@pytest.mark.parametrize("alpha", [0.2, 1e-3])
def test_order_statistics_are_those_of_the_sums(draws, share, alpha):
    safe = [k for k in range(1, draws + 1) if at_most(k - 1, draws, share) <= alpha]
    assert lower_rank(draws, share, alpha) == max(safe, default=0)


@pytest.mark.parametrize("right", [0, 1, 13, 39, 40])
def test_shares_solve_the_sums(right):
    low, high = (float(one(right, 40, ALPHA)) for one in (least_share, most_share))
    if right:
        assert 1 - at_most(right - 1, 40, low) == pytest.approx(ALPHA)
    if right < 40:
        assert at_most(right, 40, high) == pytest.approx(ALPHA)
    assert (low == 0) == (right == 0)
    assert (high == 1) == (right == 40)


def test_bounds_hold_as_often_as_they_say_and_not_much_more_often():
    """5,000 pairs of 60 draws of a distribution whose quantiles are known, with a mass at a point."""
    rng, alpha, radius = np.random.default_rng(0), 0.05, 0.1
    drawn = np.round(rng.normal(size=(5000, 60)), 1)  # many equal ones, as few levels of a cosine would give
    low, high = cosine_bounds(drawn / 10, radius, sigma=SIGMA, alpha=alpha).T * 10
    grid = np.round(np.arange(-60, 61) / 10, 1)
    below = ndtr(grid - 0.05)  # P(drawn < grid)
    lowest = grid[below <= ndtr(-radius / SIGMA)].max()  # what H falls to at most, and rises to
    highest = grid[1 - ndtr(grid + 0.05) <= ndtr(-radius / SIGMA)].min()
    missed = [(low > lowest).mean(), (high < highest).mean()]
    share = least_share((drawn < 1).sum(1), 60, alpha)
    missed.append((share > ndtr(0.95)).mean())
    spread = 5 * np.sqrt(alpha * (1 - alpha) / 5000)
    assert max(missed) <= alpha + spread
    assert missed[2] >= alpha / 4
    assert lowest < 0 < highest


def test_a_bound_reaches_the_threshold_where_the_radius_is_large_enough():
    rng, threshold = np.random.default_rng(1), 0.3
    cosines = rng.normal(rng.uniform(0.2, 0.5, (200, 1)), 0.1, (200, 150))
    held = certified_radius((cosines >= threshold).sum(1), 150, sigma=SIGMA, alpha=ALPHA)
    for radius in (0.01, 0.1, 0.2, 0.35):
        low = cosine_bounds(cosines, radius, sigma=SIGMA, alpha=ALPHA)[:, 0]
        assert np.array_equal(low >= threshold, held >= radius)
    assert 20 < (held > 0).sum() < 190


def test_no_draw_certifies_more_than_all_of_them_can():
    needed = draws_needed(0.4, sigma=SIGMA, alpha=ALPHA)
    assert (
        furthest_radius(needed, sigma=SIGMA, alpha=ALPHA) >= 0.4 > furthest_radius(needed - 1, sigma=SIGMA, alpha=ALPHA)
    )
    assert (cosine_bounds(np.zeros((1, needed)), 0.4, sigma=SIGMA, alpha=ALPHA) == 0).all()
    assert cosine_bounds(np.zeros((1, needed - 1)), 0.4, sigma=SIGMA, alpha=ALPHA).tolist() == [[-1, 1]]


def test_what_is_left_of_a_share_is_half_at_its_radius():
    radius = certified_radius(90, 100, sigma=SIGMA, alpha=ALPHA)
    assert moved_share(least_share(90, 100, ALPHA), radius, SIGMA) == pytest.approx(0.5)
    assert certified_radius(0, 100, sigma=SIGMA, alpha=ALPHA) == -np.inf
