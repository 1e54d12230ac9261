import itertools

import pytest

from steadface.training.recipe.method import Anneal
from steadface.training.recipe.sections import Optimizer, Run
from steadface.training.schedule import Length, learning_rate, relaxation


def options(**given: object) -> Optimizer:
    return Optimizer.model_validate({"rate": 0.4, "warmup": 0.2, **given})


@pytest.mark.parametrize(("progress", "rate"), [(0, 0.004), (0.05, 0.1), (0.1, 0.2), (0.15, 0.3), (0.2, 0.4)])
def test_the_warm_up_is_linear_and_never_zero(progress: float, rate: float) -> None:
    assert learning_rate(progress, options()) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("given", "at"),
    [
        # A quarter, half, three quarters and all of the way down: (1 + cos(pi t)) / 2.
        ({"decay": "cosine"}, [0.4 * 0.8535533905932737, 0.2, 0.4 * 0.14644660940672624, 0.0]),
        ({"decay": "cosine", "final": 0.1}, [0.04 + 0.36 * 0.8535533905932737, 0.22, 0.04 + 0.36 * 0.1464466094, 0.04]),
        ({"decay": "polynomial", "power": 2}, [0.4 * 0.5625, 0.1, 0.4 * 0.0625, 0.0]),
        ({"decay": "polynomial", "power": 1, "final": 0.5}, [0.35, 0.3, 0.25, 0.2]),
        ({"decay": "constant"}, [0.4, 0.4, 0.4, 0.4]),
    ],
)
def test_the_decay_has_its_closed_form(given: dict[str, object], at: list[float]) -> None:
    rates = [learning_rate(progress, options(**given)) for progress in (0.4, 0.6, 0.8, 1.0)]
    assert rates == pytest.approx(at, abs=1e-9)


@pytest.mark.parametrize("decay", ["cosine", "polynomial"])
def test_it_only_falls_after_the_warm_up_and_stays_down(decay: str) -> None:
    rates = [learning_rate(0.2 + 0.8 * n / 100, options(decay=decay, final=0.01)) for n in range(101)]
    assert all(before > after for before, after in itertools.pairwise(rates))
    assert learning_rate(1.7, options(decay=decay, final=0.01)) == pytest.approx(0.004), "minutes may run over"


def test_warm_up_may_be_none_or_all() -> None:
    assert learning_rate(0, options(warmup=0)) == 0.4
    assert learning_rate(1, options(warmup=0)) == pytest.approx(0)
    assert learning_rate(0.5, options(warmup=1)) == pytest.approx(0.2)
    assert learning_rate(1, options(warmup=1)) == pytest.approx(0.4)


def test_how_many_steps_a_run_will_take_is_known_once_a_few_were_timed():
    length = Length(Run(minutes=1), steps_per_epoch=3)
    for seconds in (30.0, 0.5, 0.5, 0.5):
        length.timed(seconds)
    assert length.expected_steps(4, 31.5) is None
    length.timed(0.5)
    assert length.expected_steps(5, 32.0) == pytest.approx(5 + 28 / 0.5), "the first, which compiled, is not typical"


@pytest.mark.parametrize(("given", "done"), [({"steps": 20}, 0.25), ({"epochs": 2}, 5 / 6), ({"minutes": 1}, 0.5)])
def test_a_run_is_as_far_as_its_own_measure_says(given, done):
    assert Length(Run(**given), steps_per_epoch=3).done(5, 30.0) == pytest.approx(done)


@pytest.mark.parametrize(("progress", "times"), [(0.0, 9.0), (0.2, 3.0), (0.4, 1.0), (0.9, 1.0), (1.1, 1.0)])
def test_an_annealing_bound_falls_evenly_in_its_logarithm_and_stays(progress: float, times: float) -> None:
    assert relaxation(progress, Anneal(times=9.0, over=0.4)) == pytest.approx(times)
