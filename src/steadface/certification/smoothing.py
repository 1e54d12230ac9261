"""What Gaussian noise certifies: Chiang et al., Detection as Regression: Certified Object Detection with Median
Smoothing, NeurIPS 2020 (their lemma 1), for the cosine that a verifier compares with its threshold.

    H(x) = median of c(x + e),   e ~ N(0, sigma^2 I),   c(y) = cos(f(y), template)
    q_s(x - .) <= H(x + delta) <= q_S(x)      for all ||delta||_2 <= r,   s = Phi(-r / sigma),  S = Phi(r / sigma)

where `q_s` is the s-quantile of `c(x + e)`. At a threshold that is fixed beforehand this is a radius: `H` is on the
right side of it iff at least half of all `c(x + e)` are, and of these a share `p` at x is at x + delta at least

    Phi(Phi^-1(p) - ||delta||_2 / sigma)      so that nothing changes while   ||delta||_2 < R = sigma Phi^-1(p)

(Cohen, Rosenfeld and Kolter, ICML 2019, their theorem 1, for one of two sides). Neither `p` nor a quantile is known.
From n draws, of which k are on the right side, both follow exactly from the binomial distribution, whatever that of
the cosines: `p` by the one-sided bound of Clopper and Pearson, a quantile by an order statistic,

    P(x_(k) > q_s) <= P(Bin(n, s) <= k - 1) <= alpha

The two say the same: the order statistic reaches the threshold iff the radius is r or more (a test).

Legend: `n` draws of a pair, `alpha` the probability that a statement is wrong, radii on the pixel range 0..1.
"""

from math import ceil, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def least_share(right: Any, draws: Any, alpha: float) -> Floats:
    """The share of all draws that are on the right side is at least this, but for a probability of `alpha`.

    >>> least_share(100, 100, 0.05).round(3)
    np.float64(0.97)
    """
    from scipy.special import betaincinv

    right, draws = np.asarray(right), np.asarray(draws)
    found = betaincinv(np.maximum(right, 1), draws - right + 1, alpha)
    return np.where(right > 0, found, 0.0)[()]


def most_share(right: Any, draws: Any, alpha: float) -> Floats:
    """And it is at most this, but for a probability of `alpha`."""
    right, draws = np.asarray(right), np.asarray(draws)
    return 1 - least_share(draws - right, draws, alpha)


def certified_radius(right: Any, draws: Any, *, sigma: float, alpha: float) -> Floats:
    """`R` of pairs of which `right` of `draws` noisy cosines are on the right side; -inf where none is, and below 0
    where half of all may be wrong.
    """
    from scipy.special import ndtri

    return sigma * ndtri(least_share(right, draws, alpha))


def moved_share(share: Any, distance: Any, sigma: float) -> Floats:
    """Of a `share` at an image, what is left at the worst image in `distance`: `Phi(Phi^-1(share) - d / sigma)`.

    >>> moved_share(0.8413447, 0.25, 0.25).round(4)
    np.float64(0.5)
    """
    from scipy.special import ndtr, ndtri

    return np.asarray(ndtr(ndtri(np.asarray(share)) - np.asarray(distance) / sigma))[()]


def lower_rank(draws: int, share: float, alpha: float) -> int:
    """The greatest k of which `x_(k)`, the k-th smallest of `draws`, is at most the quantile of `share`, but for a
    probability of `alpha`; 0 where no order statistic is.

    >>> lower_rank(100, 0.5, 0.05)
    42
    """
    from scipy.special import bdtr

    return int(np.searchsorted(bdtr(np.arange(draws), draws, share), alpha, side="right"))


def cosine_bounds(cosines: NDArray[np.floating[Any]], radius: float, *, sigma: float, alpha: float) -> Floats:
    """(n, 2): between which `H(x + delta)` stays for `||delta||_2 <= radius`, from `cosines` (n, draws); each end holds
    but for a probability of `alpha`, and is that of all cosines where there are too few draws.
    """
    from scipy.special import ndtr

    draws = cosines.shape[1]
    rank = lower_rank(draws, float(ndtr(-radius / sigma)), alpha)
    if not rank:
        return np.tile([-1.0, 1.0], (len(cosines), 1))
    ordered = np.sort(cosines.astype(np.float64), axis=1)
    return np.stack([ordered[:, rank - 1], ordered[:, draws - rank]], axis=1)


def furthest_radius(draws: int, *, sigma: float, alpha: float) -> float:
    """What so many draws certify where all are on the right side: nothing larger can come out."""
    return float(certified_radius(draws, draws, sigma=sigma, alpha=alpha))


def draws_needed(radius: float, *, sigma: float, alpha: float) -> int:
    """The fewest draws that certify a radius, if all are on the right side: `alpha^(1 / n) >= Phi(r / sigma)`.

    >>> draws_needed(0.5, sigma=0.25, alpha=0.001)
    301
    """
    from scipy.special import log_ndtr

    return max(1, ceil(log(alpha) / float(log_ndtr(radius / sigma))))
