"""Exact intervals for error rates: Clopper and Pearson, Biometrika 26 (1934), through the beta quantiles."""

from scipy.stats import beta


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of a proportion that covers it with at least `confidence`.

    Counts are taken as independent trials, so for cross pairs, which share images, the interval is narrower
    than it should be. No trials say nothing: (0, 1). Raises ValueError for counts that cannot be.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: give 0 <= successes <= trials")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def trials_for_width(width: float, *, confidence: float = 0.95) -> int:
    """The fewest trials whose interval is at most `width` wide whatever the proportion (it is widest at one half).

    Raises ValueError unless 0 < width < 1.
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
