import pytest
from scipy.stats import binom

from steadface.evaluation.intervals import clopper_pearson, trials_for_width


def test_no_error_in_n_trials_has_the_closed_form() -> None:
    low, high = clopper_pearson(0, 300)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 300), abs=1e-12)
    assert clopper_pearson(300, 300) == pytest.approx((1 - high, 1), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(1, 10), (7, 20), (995, 1000)])
def test_ends_are_where_the_binomial_tails_hold_half_of_the_rest(successes: int, trials: int) -> None:
    low, high = clopper_pearson(successes, trials, confidence=0.9)
    assert binom.sf(successes - 1, trials, low) == pytest.approx(0.05)
    assert binom.cdf(successes, trials, high) == pytest.approx(0.05)
    assert low < successes / trials < high


def test_no_trials_say_nothing() -> None:
    assert clopper_pearson(0, 0) == (0, 1)


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_counts_are_refused(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"give 0 <=|between 0 and 1"):
        clopper_pearson(successes, trials, confidence=confidence)


@pytest.mark.parametrize("width", [0.3, 0.1, 0.05])
def test_trials_for_a_width_are_the_fewest_that_reach_it(width: float) -> None:
    def widest(trials: int) -> float:
        return max(high - low for low, high in (clopper_pearson(hits, trials) for hits in range(trials + 1)))

    trials = trials_for_width(width)
    assert widest(trials) <= width < widest(trials - 2)  # odd and even numbers of trials differ a little


def test_a_width_that_is_none_is_refused() -> None:
    for width in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="width"):
            trials_for_width(width)
