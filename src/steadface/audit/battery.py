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
from torch import Tensor, nn

from steadface.attacks import (
    APGD,
    FGSM,
    FMN,
    MIFGSM,
    PGD,
    Attack,
    Ball,
    CarliniWagnerL2,
    Closest,
    Counted,
    Evolutionary,
    HopSkipJump,
    Norm,
    Score,
    Square,
    Transformed,
    Transforms,
    Universal,
    ball,
    dodge,
    impersonate,
    on_surrogates,
)
from steadface.attacks.distances import lengths
from steadface.attacks.rounding import towards_source
from steadface.audit.presets import Preset
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.series import Aim, Course, Outcome, cosines, run_series

GRADIENT = 3.0
"""What a gradient costs, in forward passes."""

LARGEST: dict[Norm, float] = {"linf": 32 / 255, "l2": 12.0}
"""The ball in which the smallest perturbation is looked for, unless four times the largest radius asked is larger."""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """The recogniser under audit: unit embeddings of images; `crafts` is the same network, made fast for gradients."""

    embedder: MirrorEmbedder
    crafts: MirrorEmbedder
    differentiable: bool


@dataclass(frozen=True, kw_only=True)
class Batch:
    """n pairs: `images` (n, 3, H, W) to perturb, unit `references` (n, D), `targets` the images behind them, `clean`
    cosines (n,). `surrogates` are embeddings (n, D') of `targets` by each surrogate.
    """

    images: Tensor
    targets: Tensor
    references: Tensor
    clean: Tensor
    surrogates: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an attack did to n pairs. `distance` (n,) and `censored` (n,) where it looks for the smallest perturbation;
    `queries` (n,) forward passes used where it takes no gradients.
    """

    outcome: Outcome
    distance: NDArray[np.float32] | None = None
    censored: NDArray[np.bool_] | None = None
    queries: NDArray[np.int64] | None = None


Run = Callable[[Aim, Batch, torch.Generator], Found]


@dataclass(frozen=True, kw_only=True)
class Component:
    """`cost` is the most that a pair can take, in forward passes; `worst`: counts in the worst case."""

    name: str
    run: Run
    cost: float
    worst: bool
    gradients: bool


@dataclass(frozen=True, kw_only=True)
class Battery:
    """Components over balls of rising radius of one norm, and the largest ball that distances are looked for in."""

    components: tuple[Component, ...]
    balls: tuple[Ball, ...]
    largest: Ball


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
    balls = tuple(ball(norm, radius) for radius in sorted(eps))
    largest, count = largest_ball(norm, eps), len(balls)
    first = balls[0]
    decisions = HopSkipJump(ball=largest, queries=preset.decision_queries)
    components: list[Component] = []

    def series(name: str, attack: Attack, cost: float, *, worst: bool, gradients: bool = True) -> None:
        run = partial(_series, victim, [attack.within(one) for one in balls], not gradients)
        components.append(Component(name=name, run=run, cost=cost * count, worst=worst, gradients=gradients))

    for name, attack in extra:  # first, so that one that does not fit the model says so before long work
        series(name, attack, 1, worst=False)
    if victim.differentiable:
        start = APGD(ball=largest, steps=preset.fmn_start_steps)
        fmn = FMN(attack=start, steps=preset.fmn_steps)
        steps = preset.apgd_steps * preset.apgd_restarts
        series("FGSM", FGSM(ball=first), GRADIENT + 2, worst=False)
        series(
            "APGD",
            APGD(ball=first, steps=preset.apgd_steps, restarts=preset.apgd_restarts),
            GRADIENT * steps,
            worst=True,
        )
        components.append(
            Component(
                name="FMN",
                run=partial(_closest, victim, fmn, balls),
                cost=GRADIENT * (preset.fmn_start_steps + preset.fmn_steps),
                worst=True,
                gradients=True,
            )
        )
    else:
        components.append(_decision("HopSkipJump", victim, decisions, balls, worst=True))
    if surrogates:
        steps = preset.transfer_steps
        transfer = Transformed(attack=MIFGSM(ball=first, steps=steps, keep_best=False), transforms=Transforms(scales=2))
        components.append(
            Component(
                name="transfer",
                run=partial(_transfer, victim, tuple(surrogates), [transfer.within(one) for one in balls]),
                cost=2 * GRADIENT * steps * len(surrogates) * count,
                worst=True,
                gradients=False,
            )
        )
    series(
        "Square", Square(ball=first, queries=preset.square_queries), preset.square_queries, worst=True, gradients=False
    )
    if detail:
        if victim.differentiable:
            steps = preset.apgd_steps
            series("BIM", PGD(ball=first, steps=steps, random_start=False), GRADIENT * steps, worst=False)
            series("MI-FGSM", MIFGSM(ball=first, steps=steps), GRADIENT * steps, worst=False)
            series("universal", Universal(ball=first), 10 * GRADIENT, worst=False)
            components.append(_decision("HopSkipJump", victim, decisions, balls, worst=False))
            if norm == "l2":
                searches, steps = 6, preset.fmn_steps
                cw = CarliniWagnerL2(ball=largest, searches=searches, steps=steps)
                run = partial(_closest, victim, cw, balls)
                cost = GRADIENT * searches * steps
                components.append(Component(name="C&W", run=run, cost=cost, worst=False, gradients=True))
        evolution = Evolutionary(ball=largest, queries=preset.decision_queries)
        components.append(_decision("evolutionary", victim, evolution, balls, worst=False))
    return Battery(components=tuple(components), balls=balls, largest=largest)


def _decision(
    name: str, victim: Victim, attack: HopSkipJump | Evolutionary, balls: Sequence[Ball], *, worst: bool
) -> Component:
    return Component(
        name=name, run=partial(_decided, victim, attack, balls), cost=attack.queries, worst=worst, gradients=False
    )


def _series(
    victim: Victim, attacks: Sequence[Attack], counted: bool, aim: Aim, batch: Batch, generator: torch.Generator
) -> Found:
    used = torch.zeros(len(batch.images), dtype=torch.int64)
    pending: list[tuple[Tensor, Counted]] = []

    def score(rows: Tensor) -> Score:
        own = aim.score(victim.crafts, batch.references[rows])
        if not counted:
            return own
        pending.append((rows.cpu(), Counted.of(own, batch.images[rows])))
        return pending[-1][1]

    outcome = run_series(
        victim.embedder,
        aim,
        attacks,
        images=batch.images,
        references=batch.references,
        clean=batch.clean,
        generator=generator,
        score=score,
    )
    for rows, counter in pending:
        used[rows] += counter.queries.cpu()
    return Found(outcome=outcome, queries=used.numpy() if counted else None)


def _transfer(
    victim: Victim,
    surrogates: Sequence[nn.Module],
    attacks: Sequence[Attack],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
) -> Found:
    goal = dodge if aim.goal == "dodging" else impersonate

    def score(rows: Tensor) -> Score:
        return on_surrogates(goal, surrogates, [reference[rows] for reference in batch.surrogates])

    outcome = run_series(
        victim.embedder,
        aim,
        attacks,
        images=batch.images,
        references=batch.references,
        clean=batch.clean,
        generator=generator,
        score=score,
    )
    return Found(outcome=outcome)


def exact_score(victim: Victim, aim: Aim, batch: Batch) -> Score:
    """The score whose end is the threshold itself: what distances are measured to."""
    goal = dodge if aim.goal == "dodging" else impersonate
    return goal(victim.crafts, batch.references, threshold=aim.threshold)


def _closest(
    victim: Victim,
    attack: FMN | CarliniWagnerL2,
    balls: Sequence[Ball],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
) -> Found:
    closest = attack.closest(exact_score(victim, aim, batch), batch.images, generator=generator)
    return Found(
        outcome=_within(victim, aim, batch, closest, balls),
        distance=closest.distance.float().cpu().numpy(),
        censored=closest.censored.cpu().numpy(),
    )


def _decided(
    victim: Victim,
    attack: HopSkipJump | Evolutionary,
    balls: Sequence[Ball],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
) -> Found:
    """An attack that sees decisions only starts from an image that succeeds: to impersonate, the target's own."""
    starts = batch.targets if aim.goal == "impersonation" else None
    score = Counted.of(exact_score(victim, aim, batch), batch.images)
    closest = attack.closest(score, batch.images, generator=generator, starts=starts)
    return Found(
        outcome=_within(victim, aim, batch, closest, balls),
        distance=closest.distance.float().cpu().numpy(),
        censored=closest.censored.cpu().numpy(),
        queries=score.queries.cpu().numpy(),
    )


def _within(victim: Victim, aim: Aim, batch: Batch, closest: Closest, balls: Sequence[Ball]) -> Outcome:
    """The nearest successes as an outcome: each counts from the first radius on that holds it."""
    rounded = towards_source(closest.images, batch.images)
    cosine = cosines(victim.embedder, closest.images, batch.references)
    cosine_8bit = cosines(victim.embedder, rounded, batch.references)
    length = lengths(closest.images - batch.images, balls[0].norm)
    course = Course(aim, batch.images, batch.clean)
    for one in balls:
        rows = (length <= one.radius * (1 + 1e-5)).nonzero().squeeze(1)
        course.offer(rows, cosine[rows], cosine_8bit[rows], rounded[rows])
        course.turn()
    return course.outcome()
