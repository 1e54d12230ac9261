"""The attacks of an audit, each as something that can be run on a batch of pairs and priced beforehand.

The standard audit is parameter-free: APGD with restarts, the minimum-norm search, transfer where surrogates are given,
and Square, which uses no gradient; a pair counts as broken where any of them breaks it. Without gradients (a service,
an ONNX graph that does not convert) HopSkipJump takes the minimum-norm part and nothing white-box is run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from steadface.attacks import (
    APGD,
    FGSM,
    FMN,
    MIFGSM,
    PGD,
    Attack,
    Ball,
    CarliniWagnerL2,
    Evolutionary,
    HopSkipJump,
    Norm,
    Square,
    Transformed,
    Transforms,
    Universal,
    ball,
)
from steadface.audit.execution import (
    GRADIENT,
    Arrays,
    Batch,
    Found,
    Victim,
    run_closest,
    run_decided,
    run_rising,
    run_transfer,
)
from steadface.audit.figures import Attacked
from steadface.audit.request import Preset
from steadface.audit.session import Session, Side
from steadface.evaluation.series import Aim

TRANSFER = "transfer"
"""The one attack that is crafted on surrogates."""

SEARCHES = 6
"""Values of the constant that C&W tries."""

LARGEST: dict[Norm, float] = {"linf": 32 / 255, "l2": 12.0}
"""The ball in which the smallest perturbation is looked for, unless four times the largest radius asked is larger."""


Run = Callable[[Aim, Batch, torch.Generator], Found]


@dataclass(frozen=True, kw_only=True)
class Component:
    """`cost` is the most that a pair can take, in forward passes; `worst`: counts in the worst case."""

    name: str
    run: Run
    cost: float
    worst: bool

    def on(self, session: Session, side: Side) -> Found:
        """What it does to every pair of a side, batch by batch, each batch kept once it is done."""

        def make(rows: NDArray[np.int64], generator: torch.Generator) -> Arrays:
            batch = session.batch(side, rows, surrogates=self.name == TRANSFER)
            return self.run(side.aim, batch, generator).to_arrays()

        return Found.joined(session.by_batches(self.name, side, self.cost, make))


@dataclass(frozen=True, kw_only=True)
class Battery:
    """Components over balls of rising radius of one norm, and the largest ball that distances are looked for in."""

    components: tuple[Component, ...]
    balls: tuple[Ball, ...]
    largest: Ball

    @property
    def cost(self) -> float:
        """The most that a pair costs, in forward passes."""
        return sum(component.cost for component in self.components)

    def on(self, session: Session, side: Side) -> Attacked:
        """Every component on every pair of a side."""
        return Attacked(
            aim=side.aim,
            balls=self.balls,
            clean=side.clean,
            found={one.name: one.on(session, side) for one in self.components},
            worst=tuple(one.name for one in self.components if one.worst),
            radius=self.largest.radius,
        )


def largest_ball(norm: Norm, eps: Sequence[float]) -> Ball:
    """Where distances are looked for; what is not broken inside is censored there."""
    return ball(norm, max(LARGEST[norm], 4 * max(eps)))


def standard_battery(
    victim: Victim,
    surrogates: Sequence[nn.Module],
    *,
    norm: Norm,
    eps: Sequence[float],
    preset: Preset,
    detail: bool = False,
    extra: Sequence[tuple[str, Attack]] = (),
) -> Battery:
    """What the preset runs on a victim; with `detail` also single attacks beyond the worst case, and `extra` ones."""
    largest = largest_ball(norm, eps)
    maker = _Maker(victim, tuple(ball(norm, radius) for radius in sorted(eps)), largest, preset)
    # Extra ones first, so that one that does not fit the model says so before long work.
    components = [maker.series(name, attack, 1, worst=False) for name, attack in extra]
    components += maker.white_box() if victim.differentiable else [maker.hopskipjump(worst=True)]
    components += [maker.transfer(tuple(surrogates))] if surrogates else []
    components.append(maker.square())
    components += maker.beyond() if detail else []
    return Battery(components=tuple(components), balls=maker.balls, largest=largest)


@dataclass(frozen=True)
class _Maker:
    """Makes components; costs are in forward passes a pair."""

    victim: Victim
    balls: tuple[Ball, ...]
    largest: Ball
    preset: Preset

    def series(self, name: str, attack: Attack, cost: float, *, worst: bool, gradients: bool = True) -> Component:
        """An attack inside each ball, which costs so much in each."""
        run = partial(run_rising, self.victim, [attack.within(one) for one in self.balls], not gradients)
        return Component(name=name, run=run, cost=cost * len(self.balls), worst=worst)

    def white_box(self) -> list[Component]:
        first, preset = self.balls[0], self.preset
        apgd = APGD(ball=first, steps=preset.apgd_steps, restarts=preset.apgd_restarts)
        fmn = FMN(attack=APGD(ball=self.largest, steps=preset.fmn_start_steps), steps=preset.fmn_steps)
        return [
            self.series("FGSM", FGSM(ball=first), GRADIENT + 2, worst=False),
            self.series("APGD", apgd, GRADIENT * preset.apgd_steps * preset.apgd_restarts, worst=True),
            self.nearest("FMN", fmn, GRADIENT * (preset.fmn_start_steps + preset.fmn_steps), worst=True),
        ]

    def nearest(self, name: str, attack: FMN | CarliniWagnerL2, cost: float, *, worst: bool) -> Component:
        """A search for the smallest perturbation by gradients."""
        run = partial(run_closest, self.victim, attack, self.balls)
        return Component(name=name, run=run, cost=cost, worst=worst)

    def decided(self, name: str, attack: HopSkipJump | Evolutionary, *, worst: bool) -> Component:
        """The same by decisions."""
        run = partial(run_decided, self.victim, attack, self.balls)
        return Component(name=name, run=run, cost=attack.queries, worst=worst)

    def hopskipjump(self, *, worst: bool) -> Component:
        attack = HopSkipJump(ball=self.largest, queries=self.preset.decision_queries)
        return self.decided("HopSkipJump", attack, worst=worst)

    def transfer(self, surrogates: tuple[nn.Module, ...]) -> Component:
        attack = Transformed(
            attack=MIFGSM(ball=self.balls[0], steps=self.preset.transfer_steps, keep_best=False),
            transforms=Transforms(scales=2),
        )
        run = partial(run_transfer, self.victim, surrogates, [attack.within(one) for one in self.balls])
        cost = 2 * GRADIENT * self.preset.transfer_steps * len(surrogates) * len(self.balls)
        return Component(name=TRANSFER, run=run, cost=cost, worst=True)

    def square(self) -> Component:
        queries = self.preset.square_queries
        attack = Square(ball=self.balls[0], queries=queries)
        return self.series("Square", attack, queries, worst=True, gradients=False)

    def beyond(self) -> list[Component]:
        """Attacks that no worst case needs."""
        first, steps = self.balls[0], self.preset.apgd_steps
        evolution = Evolutionary(ball=self.largest, queries=self.preset.decision_queries)
        found = [self.decided("evolutionary", evolution, worst=False)]
        if not self.victim.differentiable:
            return found
        found += [
            self.series("BIM", PGD(ball=first, steps=steps, random_start=False), GRADIENT * steps, worst=False),
            self.series("MI-FGSM", MIFGSM(ball=first, steps=steps), GRADIENT * steps, worst=False),
            self.series("universal", Universal(ball=first), 10 * GRADIENT, worst=False),
            self.hopskipjump(worst=False),
        ]
        if self.largest.norm == "l2":
            attack = CarliniWagnerL2(ball=self.largest, searches=SEARCHES, steps=self.preset.fmn_steps)
            found.append(self.nearest("C&W", attack, GRADIENT * SEARCHES * self.preset.fmn_steps, worst=False))
        return found
