"""The gate: open while the recogniser is good enough on the faces it has just been trained on.

A gate hears one performance value per source batch, higher is better, and says whether the regulariser and the
adversarial samples take part, and how far. For the loss form the value is `-l`, so `value > -threshold` is
`l < threshold`. Where the bound comes from a clean level that somebody asks for: `training/constraint.py`.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, assert_never

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How far a gate is open: what the attack's radius and the weights of the adversarial terms are multiplied by."""

    radius: float = 1.0
    weight: float = 1.0


WIDE = Opening()
"""Of a gate that is open or closed, and nothing between."""
Driven = Literal["radius", "weight"]


class Gate(Protocol):
    """Holds the verdict of the last batch; starts closed unless it has no verdict to wait for.

    `opening` counts while the gate is open.
    """

    @property
    def is_open(self) -> bool: ...
    @property
    def opening(self) -> Opening: ...
    def judge(self, performance: float) -> bool:
        """Takes the performance value of the batch just trained on; returns whether the gate is open now."""

    def state_dict(self) -> dict[str, float]: ...
    def load_state_dict(self, state: dict[str, float]) -> None: ...


@dataclass
class BoundedGate(Gate):
    """A gate with a threshold, which may be moved, and is `relaxed` times as large while it anneals."""

    threshold: float
    relaxed: float = field(default=1.0, kw_only=True)

    @property
    def in_effect(self) -> float:
        """The threshold that the next batch is judged by."""
        return self.threshold * self.relaxed


@dataclass
class ThresholdGate(BoundedGate):
    """The literal form: open iff this batch's performance exceeds the threshold. No smoothing."""

    is_open: bool = False
    opening = WIDE

    def judge(self, performance: float) -> bool:
        self.is_open = performance > self.in_effect
        return self.is_open

    def state_dict(self) -> dict[str, float]:
        return {"is_open": float(self.is_open)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.is_open = bool(state["is_open"])


@dataclass
class SmoothedGate(BoundedGate):
    """A bias-corrected moving average of the performance, with hysteresis against chatter.

    Opens once the average exceeds `threshold`; closes once it falls to `threshold - hysteresis * |threshold|`.
    `decay` in `[0, 1)` is the weight of the past (0.9 remembers about ten batches).
    """

    decay: float = 0.9
    hysteresis: float = 0.1
    is_open: bool = False
    average: float = 0.0
    weight: float = 0.0
    opening = WIDE

    def judge(self, performance: float) -> bool:
        self.average = self.decay * self.average + (1 - self.decay) * performance
        self.weight = self.decay * self.weight + (1 - self.decay)
        slack = self.hysteresis * abs(self.in_effect) if self.is_open else 0.0
        self.is_open = self.average / self.weight > self.in_effect - slack
        return self.is_open

    def state_dict(self) -> dict[str, float]:
        return {"is_open": float(self.is_open), "average": self.average, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.is_open, self.average, self.weight = bool(state["is_open"]), state["average"], state["weight"]


@dataclass
class SlackGate(BoundedGate):
    """A controller: the gate opens further while the loss is below its bound, and closes by degrees while it is above.

        u <- clip(u + gain * clip((b - l) / b, -1, 1), 0, most)          l this batch's loss, b = -threshold

    The integral of the relative slack (as the multiplier of a constraint climbs in dual ascent: Platt and Barr,
    "Constrained differential optimization", 1987), so that where the loss cannot be held at its bound u ends at 0 or
    at `most`. `drives` is what u multiplies. Open iff u > 0.
    """

    gain: float = 0.1
    most: float = 1.0
    drives: Driven = "radius"
    strength: float = 0.0

    def judge(self, performance: float) -> bool:
        bound = -self.in_effect
        slack = (bound + performance) / bound if bound > 0 else -1.0
        self.strength = min(self.most, max(0.0, self.strength + self.gain * min(1.0, max(-1.0, slack))))
        return self.is_open

    @property
    def is_open(self) -> bool:
        return self.strength > 0

    @property
    def opening(self) -> Opening:
        match self.drives:
            case "radius":
                return Opening(radius=self.strength)
            case "weight":
                return Opening(weight=self.strength)
            case unknown:
                assert_never(unknown)

    def state_dict(self) -> dict[str, float]:
        return {"strength": self.strength}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.strength = state["strength"]


@dataclass(frozen=True)
class FixedGate:
    """Always open (plain adversarial training) or never (clean training): the ends that a gate is compared with."""

    is_open: bool
    opening = WIDE

    def judge(self, performance: float) -> bool:  # noqa: ARG002 - the verdict is fixed
        return self.is_open

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


@dataclass
class RandomGate:
    """Open with a fixed probability whatever the performance: the control of equal duty cycle."""

    probability: float
    seed: int = 0
    is_open: bool = False
    judged: int = field(default=0)
    opening = WIDE

    def judge(self, performance: float) -> bool:  # noqa: ARG002 - it is a control because it does not listen
        self.is_open = bool(np.random.default_rng([self.seed, self.judged]).random() < self.probability)
        self.judged += 1
        return self.is_open

    def state_dict(self) -> dict[str, float]:
        return {"is_open": float(self.is_open), "judged": float(self.judged)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.is_open, self.judged = bool(state["is_open"]), int(state["judged"])


def loss_threshold(value: float, *, chance_loss: float | None) -> float:
    """The gate's threshold (higher is better) for a loss bound: a number, or a fraction of the chance loss.

    A fixed small number may never be reached: the loss of ArcFace with s = 64 sits near 10 where LFW is at 99 %,
    so `chance_loss` (closed form of the head at its number of identities) gives the bound its scale.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"a loss threshold is positive, got {value}")
    return -(value if chance_loss is None else value * chance_loss)
