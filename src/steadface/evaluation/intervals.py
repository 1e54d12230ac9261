"""Intervals and paired tests of error rates and distances: of counts, of medians, and of what two models differ in.

Of a count the exact one, after Clopper and Pearson (Biometrika 26, 1934), through the beta quantiles. Of a difference
`d` between two models the jackknife that leaves out a group of people at a time, `d_g` without group g of G:

    SE^2 = (G - 1) / G sum_g (d_g - mean d)^2          d +- t_{G-1} SE

(Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981). People, not pairs, are left
out: pairs that share a person are not independent trials, and both models see the same ones.

Of pairs that two models decide, McNemar's exact test on those that only one gets wrong, and the adjusted Wald interval
for paired proportions of Bonett and Price (Journal of Educational and Behavioral Statistics 37, 2012).
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of a proportion that covers it with at least `confidence`.

    Counts are taken as independent trials, so for cross pairs, which share images, the interval is narrower
    than it should be. No trials say nothing: (0, 1). Raises ValueError for counts that cannot be.

    >>> low, high = clopper_pearson(0, 100)
    >>> low, round(high, 3)
    (0.0, 0.036)
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: give 0 <= successes <= trials")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    # Here and below it is loaded where it is needed, which spares recognising, and `scipy.stats` takes much longer.
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = betaincinv(successes, trials - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - tail) if successes < trials else 1.0
    return float(low), float(high)


def central(resampled: NDArray[np.floating[Any]]) -> list[tuple[float, float]]:
    """The central 95 % of each column (R, F) of what R resamples gave; NaN, where one says nothing, is left out."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    return [(float(one), float(other)) for one, other in zip(low, high, strict=True)]


def trials_for_width(width: float, *, confidence: float = 0.95) -> int:
    """The fewest trials whose interval is at most `width` wide whatever the proportion (it is widest at one half).

    Raises ValueError unless 0 < width < 1.

    >>> trials_for_width(0.1)
    402
    """
    if not 0 < width < 1:
        raise ValueError(f"the width of an interval of rates lies between 0 and 1, got {width}")
    low, high = 1, 2
    while _widest(high, confidence) > width:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _widest(middle, confidence) > width else (low, middle)
    return high


def _widest(trials: int, confidence: float) -> float:
    low, high = clopper_pearson(trials // 2, trials, confidence=confidence)
    return high - low


def median_interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a median by order statistics: exact whatever the distribution, and with values at infinity.

    `(x_(l), x_(u))` with `P(l <= Bin(n, 1/2) < u) >= confidence`; (0, inf) where there are too few distances.
    """
    from scipy.special import bdtr

    ordered = np.sort(values)
    n = len(ordered)
    low = int(np.searchsorted(bdtr(np.arange(n + 1), n, 0.5), (1 - confidence) / 2)) - 1
    high = n - 1 - low
    if low < 0:
        return 0.0, float("inf")
    return float(ordered[low]), float(ordered[high])


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of as many discordant pairs either way; 1 where there are none."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(more: int, fewer: int, pairs: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of `(more - fewer) / pairs`, after one half is added to each of the four cells."""
    from scipy.special import ndtri

    up, down, n = (more + 1) / (pairs + 2), (fewer + 1) / (pairs + 2), pairs + 2
    half = float(ndtri((1 + confidence) / 2)) * sqrt((up + down - (up - down) ** 2) / n)
    return max(-1.0, up - down - half), min(1.0, up - down + half)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of some people, and what it is `without` each group of them in turn, (G,) with G >= 2."""

    value: float
    without: tuple[float, ...]


def jackknife_interval(figure: Figure, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a figure by itself, inside [0, 1] as rates are.

    >>> [round(end, 3) for end in jackknife_interval(Figure(value=0.5, without=(0.5, 0.4, 0.6)))]
    [0.003, 0.997]
    """
    found = paired_difference(figure, Figure(value=0.0, without=(0.0,) * len(figure.without)), confidence=confidence)
    return max(0.0, found.low), min(1.0, found.high)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two figures of the same people lie apart: `value`, its standard `error`, and its interval."""

    value: float
    error: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci": [self.low, self.high]}


def paired_difference(first: Figure, second: Figure, *, confidence: float = 0.95) -> Difference:
    """`first` minus `second`. Raises ValueError for figures of other groups, or of fewer than two.

    >>> before = Figure(value=0.5, without=(0.5, 0.4, 0.6))
    >>> after = Figure(value=0.2, without=(0.2, 0.1, 0.3))
    >>> found = paired_difference(before, after)  # all groups agree on it
    >>> round(found.value, 3), round(found.error, 3)
    (0.3, 0.0)
    """
    from scipy.special import stdtrit

    groups = len(first.without)
    if groups != len(second.without) or groups < 2:
        raise ValueError(f"figures of {groups} and {len(second.without)} groups: give the same two or more")
    without = np.subtract(first.without, second.without)
    value = first.value - second.value
    error = float(np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum()))
    margin = float(stdtrit(groups - 1, (1 + confidence) / 2)) * error
    return Difference(value=value, error=error, low=value - margin, high=value + margin)
