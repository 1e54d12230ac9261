"""The gate as a constraint: a clean level that somebody asks for becomes the bound on the batch loss.

Two loops. The inner one is the method's: a gate judges every source batch by its loss `l` against a bound `b`. The
outer one is slow: after every `every` batches it looks at people held out, and moves `b` by what it sees. With `e` the
clean EER seen, `e*` the one asked for (1 - level), and `L` the mean source loss since the look before,

    b_new = L clip(e* / e, 1/2, 2)^2          the loss at which `e*` should be met
    b <- sqrt(b b_new)                        at the first look  b <- b_new

The loss that was just trained at is the measure, not the old bound: where the gate is shut and recognition not good
enough yet, `b` keeps close below the loss, and does not run away from it (the wind-up of an integral controller). Where
the loss is held at the bound and `e` is proportional to `l^q`, log b moves to its place by the factor 1 - q a look: it
comes to rest for 0 < q < 2. Until the first look the gate stays closed. While the gate anneals `e*` is so many times as
large, since it is the end of a run that shall meet the level.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steadface.data.faces import FaceSource
from steadface.errors import SteadfaceError
from steadface.evaluation.intervals import jackknife_interval
from steadface.evaluation.labelled import ValidationMetrics, check_supported, validation_metrics
from steadface.training.gate import BoundedGate, Gate, Opening
from steadface.training.networks import Network, judged
from steadface.training.recipe import Recipe

FURTHEST = 2.0
"""How far, as a factor, an error may seem from the one asked for in one look."""
POWER = 2.0
GUESSING = 0.5
"""The error of who has learnt nothing."""
LEAST_LOSS = 1e-9
"""A bound is positive, and its logarithm finite."""
PAIRS = 1000
"""Genuine pairs of a look, at most."""


class LevelMissed(SteadfaceError):
    """A run that has ended below the clean level that was asked for: the model is there, and is not what was wished."""

    exit_code = 3


def bound_for(level: float, seen: float, loss: float, *, finest: float = 0.0) -> float:
    """The loss bound at which a clean `level` (1 - EER) should be met, where a mean `loss` gives the level `seen`.

    An error is at least `finest`, the smallest that can be told from none.

    >>> round(bound_for(0.95, 0.9, 2.0), 6)  # half the error: a quarter of the loss
    0.5
    """
    asked, now = max(1 - level, finest, LEAST_LOSS), max(1 - seen, finest, LEAST_LOSS)
    ratio = min(FURTHEST, max(1 / FURTHEST, asked / now))
    return max(LEAST_LOSS, loss * float(ratio**POWER))


@dataclass
class SteeredGate:
    """`inner`, closed until the first look; its bound follows the clean level seen after every `every` batches.

    `measure` gives 1 - EER of the weights as they are, and the smallest error that it can tell from none. The error
    asked for is `relaxed` times as large while the gate anneals.
    """

    inner: BoundedGate
    level: float
    measure: Callable[[], tuple[float, float]]
    every: int
    relaxed: float = 1.0
    judged: int = 0
    losses: float = 0.0
    clean: float = 0.0

    def __post_init__(self) -> None:
        self.inner.threshold = 0.0

    @property
    def is_open(self) -> bool:
        return self.inner.is_open

    @property
    def opening(self) -> Opening:
        return self.inner.opening

    def judge(self, performance: float) -> bool:
        self.losses -= performance
        self.judged += 1
        if self.judged % self.every == 0:
            self._look()
        return self.inner.judge(performance)

    def _look(self) -> None:
        self.clean, finest = self.measure()
        level = 1 - min(GUESSING, self.relaxed * (1 - self.level))
        wanted = bound_for(level, self.clean, self.losses / self.every, finest=finest)
        before = -self.inner.threshold
        self.inner.threshold = -(math.sqrt(before * wanted) if before else wanted)
        self.losses = 0.0

    def state_dict(self) -> dict[str, float]:
        own = {"judged": float(self.judged), "losses": self.losses, "clean": self.clean}
        return {**self.inner.state_dict(), **own, "bound": -self.inner.threshold}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.inner.load_state_dict(state)
        self.inner.threshold = -state["bound"]
        self.judged, self.losses, self.clean = int(state["judged"]), state["losses"], state["clean"]


def annealing(gate: Gate) -> "SteeredGate | BoundedGate | None":
    """What of the gate is relaxed while it anneals: the level asked for where there is one, else the bound."""
    return gate if isinstance(gate, SteeredGate | BoundedGate) else None


def bounded(gate: Gate) -> BoundedGate | None:
    """The gate that has the bound, if any has."""
    inner = gate.inner if isinstance(gate, SteeredGate) else gate
    return inner if isinstance(inner, BoundedGate) else None


def look(recipe: Recipe, backbone: Network, faces: FaceSource, *, compared: bool = False) -> ValidationMetrics:
    """The clean figures of `backbone` on people held out that a level is asked of: mirror and FMR are the evaluation's.

    Its randomness is its own, so that looking changes nothing that is trained.
    """
    options = recipe.evaluation
    return validation_metrics(
        judged(backbone),
        faces,
        fmr=options.fmr,
        max_pairs=PAIRS,
        mirror=options.mirror,
        compared=compared,
        seed=recipe.run.seed,
    )


def check_look(recipe: Recipe, faces: FaceSource) -> None:
    """Raises SteadfaceError, before anything is trained, where `faces` are too few to be looked at."""
    check_supported(faces, fmr=recipe.evaluation.fmr, max_pairs=PAIRS, seed=recipe.run.seed)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The clean level (1 - EER, people held out) that was `asked` for, and the one reached with its 95 % interval."""

    asked: float
    clean: float
    low: float
    high: float

    @classmethod
    def by(cls, backbone: Network, recipe: Recipe, faces: FaceSource) -> "Reached":
        """What the model of a run has come to whose recipe asks for a level."""
        options = recipe.method.gate.clean
        assert options is not None
        seen = look(recipe, backbone, faces, compared=True)
        assert seen.clean is not None
        low, high = jackknife_interval(seen.clean)
        return cls(asked=options.level, clean=1 - seen.eer, low=1 - high, high=1 - low)

    @property
    def missed(self) -> bool:
        """Whether the people held out show that it is not what was asked for."""
        return self.high < self.asked

    def to_json(self) -> dict[str, Any]:
        return {"asked": self.asked, "clean": self.clean, "ci": [self.low, self.high], "missed": self.missed}
