import importlib

import numpy as np
import pytest

from steadface.evaluation.intervals import (
    Figure,
    clopper_pearson,
    mcnemar,
    median_interval,
    paired_difference,
    paired_interval,
    trials_for_width,
)


def stats():
    """Loaded by the process that runs these tests, not by each one that collects them: it takes a second."""
    return importlib.import_module("scipy.stats")


def test_no_error_in_n_trials_has_the_closed_form() -> None:
    low, high = clopper_pearson(0, 300)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 300), abs=1e-12)
    assert clopper_pearson(300, 300) == pytest.approx((1 - high, 1), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(1, 10), (7, 20), (995, 1000)])
def test_ends_are_where_the_binomial_tails_hold_half_of_the_rest(successes: int, trials: int) -> None:
    low, high = clopper_pearson(successes, trials, confidence=0.9)
    binom = stats().binom
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


def mean_figure(values: np.ndarray) -> Figure:
    """The mean, and without each value in turn."""
    return Figure(
        value=float(values.mean()),
        without=tuple(float(np.delete(values, index).mean()) for index in range(len(values))),
    )


def test_of_means_the_interval_is_that_of_the_paired_t_test() -> None:
    random = np.random.default_rng(0)
    people = random.normal(size=20)
    first, second = (people + 0.1 * random.normal(size=20) + shift for shift in (0.05, 0.0))
    found = paired_difference(mean_figure(first), mean_figure(second))
    expected = stats().ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == pytest.approx(float((first - second).mean()), abs=1e-12)
    assert found.error == pytest.approx(float((first - second).std(ddof=1)) / 20**0.5, abs=1e-12)


def test_it_covers_what_it_should() -> None:
    random = np.random.default_rng(1)
    covered = [
        (found := paired_difference(mean_figure(random.normal(0.3, 1, 15)), mean_figure(random.normal(0, 1, 15)))).low
        < 0.3
        < found.high
        for _ in range(400)
    ]
    low, high = clopper_pearson(sum(covered), len(covered), confidence=0.999)
    assert low < 0.95 < high


def test_figures_of_other_people_are_no_pair() -> None:
    with pytest.raises(ValueError, match="of 3 and 4 groups"):
        paired_difference(mean_figure(np.arange(3.0)), mean_figure(np.arange(4.0)))


def test_mcnemar_is_the_sign_test_on_discordant_pairs() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == pytest.approx(1.0)
    assert mcnemar(9, 1) == pytest.approx(2 * stats().binom.cdf(1, 10, 0.5))
    assert mcnemar(9, 1) == mcnemar(1, 9)


def test_the_interval_holds_the_difference_and_flips_with_it() -> None:
    low, high = paired_interval(12, 3, 100)
    assert low < 0.09 < high
    assert paired_interval(3, 12, 100) == pytest.approx((-high, -low))
    wide = paired_interval(6, 1, 10)
    assert wide[1] - wide[0] > high - low


def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        low, high = median_interval(rng.exponential(size=25))
        inside += low <= np.log(2) <= high
    assert 0.945 <= inside / 2000 <= 0.99  # exact, so never below, and discrete, so a little above
    assert median_interval(np.array([1.0, 2.0])) == (0.0, np.inf)
