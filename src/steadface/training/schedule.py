"""How far a run has come, and the learning rate and an annealing bound as pure functions of that."""

import math
import statistics
from collections import deque
from typing import assert_never

from steadface.training.recipe.method import Anneal
from steadface.training.recipe.sections import Optimizer, Run

TIMED_STEPS = 5
"""Steps of a process after which it is known how long one takes."""


def learning_rate(progress: float, options: Optimizer) -> float:
    """The rate at `progress` in [0, 1]: linear warm-up, then cosine, polynomial or no decay to `final`."""
    if progress < options.warmup:
        # Never zero: the first step of a run should move the weights.
        return options.rate * max(progress / options.warmup, 0.01)
    left = 1 - min(1.0, (progress - options.warmup) / max(1 - options.warmup, 1e-12))
    return options.rate * (options.final + (1 - options.final) * _shape(left, options))


def _shape(left: float, options: Optimizer) -> float:
    match options.decay:
        case "cosine":
            return (1 - math.cos(math.pi * left)) / 2
        case "polynomial":
            return float(left**options.power)
        case "constant":
            return 1.0
        case unknown:
            assert_never(unknown)


def relaxation(progress: float, options: Anneal) -> float:
    """How many times as large a bound is at `progress` in [0, 1]: from `times` down to 1, evenly in its logarithm."""
    return float(options.times ** max(0.0, 1 - progress / options.over))


class Length:
    """How much of a run is done, by whichever of steps, epochs and minutes of training its recipe gives."""

    def __init__(self, run: Run, *, steps_per_epoch: int) -> None:
        self._run = run
        self._steps_per_epoch = steps_per_epoch
        self._step_seconds: deque[float] = deque(maxlen=4 * TIMED_STEPS)

    def timed(self, seconds: float) -> None:
        """Takes down how long a step of this process took."""
        self._step_seconds.append(seconds)

    def done(self, step: int, seconds: float) -> float:
        """The share of the run that is done after so many steps and seconds: 1 or more at its end."""
        run = self._run
        if run.steps is not None:
            return step / run.steps
        if run.epochs is not None:
            return step / (run.epochs * self._steps_per_epoch)
        assert run.minutes is not None
        return seconds / (60 * run.minutes)

    def expected_steps(self, step: int, seconds: float) -> float | None:
        """How many steps the run will take, as it goes now; None where that cannot be told yet."""
        if self._run.minutes is None:
            return step / self.done(step, seconds) if step else None
        # The median: the first steps of a process take long where they are compiled.
        if len(self._step_seconds) < TIMED_STEPS:
            return None
        return step + max(0.0, 60 * self._run.minutes - seconds) / statistics.median(self._step_seconds)
