"""How one attack is run on a batch of pairs of one goal, and what it found.

A series goes through rising radii; a search for the smallest perturbation counts at every radius that holds what it
found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.attacks import (
    FMN,
    Attack,
    Ball,
    CarliniWagnerL2,
    Closest,
    CosineScore,
    Counted,
    Evolutionary,
    HopSkipJump,
    Score,
    dodge,
    impersonate,
    on_surrogates,
)
from steadface.attacks.distances import lengths
from steadface.attacks.rounding import towards_source
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.series import Aim, Course, Goal, Outcome, cosines, joined, run_series

Arrays = Mapping[str, NDArray[Any]]
"""What is kept of a piece of work, by name."""

GRADIENT = 3.0
"""What a gradient costs, in forward passes."""

OUTCOME = ("cosine", "cosine_8bit", "own", "images")
OPTIONAL = ("distance", "censored", "queries")


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

    def to_arrays(self) -> Arrays:
        """What is kept of an attack on a batch."""
        arrays = {name: getattr(self.outcome, name) for name in OUTCOME}
        return arrays | {name: value for name in OPTIONAL if (value := getattr(self, name)) is not None}

    @classmethod
    def joined(cls, parts: Sequence[Arrays]) -> "Found":
        """The same from what was kept of every batch, in their order."""
        outcome = joined([Outcome(**{name: part[name] for name in OUTCOME}) for part in parts])
        found = {name: np.concatenate([part[name] for part in parts]) for name in OPTIONAL if name in parts[0]}
        return cls(outcome=outcome, **found)


def run_rising(
    victim: Victim, attacks: Sequence[Attack], counted: bool, aim: Aim, batch: Batch, generator: torch.Generator
) -> Found:
    """An attack inside balls of rising radius; its queries are `counted` where it takes no gradients."""
    used = torch.zeros(len(batch.images), dtype=torch.int64)
    pending: list[tuple[Tensor, Counted]] = []

    def score(rows: Tensor) -> Score:
        own = aim.score(victim.crafts, batch.references[rows])
        if not counted:
            return own
        pending.append((rows.cpu(), Counted.of(own, batch.images[rows])))
        return pending[-1][1]

    outcome = _risen(victim, attacks, aim, batch, generator, score)
    for rows, counter in pending:
        used[rows] += counter.queries.cpu()
    return Found(outcome=outcome, queries=used.numpy() if counted else None)


def _risen(
    victim: Victim,
    attacks: Sequence[Attack],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
    score: Callable[[Tensor], Score],
) -> Outcome:
    return run_series(
        victim.embedder,
        aim,
        attacks,
        images=batch.images,
        references=batch.references,
        clean=batch.clean,
        generator=generator,
        score=score,
    )


def run_transfer(
    victim: Victim,
    surrogates: Sequence[nn.Module],
    attacks: Sequence[Attack],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
) -> Found:
    """An attack crafted on the mean cosine of surrogates, judged by the victim."""

    def score(rows: Tensor) -> Score:
        return on_surrogates(_pursuit(aim.goal), surrogates, [reference[rows] for reference in batch.surrogates])

    outcome = _risen(victim, attacks, aim, batch, generator, score)
    return Found(outcome=outcome)


def _exact_score(victim: Victim, aim: Aim, batch: Batch) -> Score:
    """The score whose end is the threshold itself: what distances are measured to."""
    return _pursuit(aim.goal)(victim.crafts, batch.references, threshold=aim.threshold)


def _pursuit(goal: Goal) -> Callable[..., CosineScore]:
    """What makes a score of a goal."""
    match goal:
        case "dodging":
            return dodge
        case "impersonation":
            return impersonate
        case _:
            assert_never(goal)


def run_closest(
    victim: Victim,
    attack: FMN | CarliniWagnerL2,
    balls: Sequence[Ball],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
) -> Found:
    """A search for the smallest perturbation by gradients."""
    closest = attack.closest(_exact_score(victim, aim, batch), batch.images, generator=generator)
    return Found(
        outcome=_within(victim, aim, batch, closest, balls),
        distance=closest.distance.float().cpu().numpy(),
        censored=closest.censored.cpu().numpy(),
    )


def run_decided(
    victim: Victim,
    attack: HopSkipJump | Evolutionary,
    balls: Sequence[Ball],
    aim: Aim,
    batch: Batch,
    generator: torch.Generator,
) -> Found:
    """An attack that sees decisions only starts from an image that succeeds: to impersonate, the target's own."""
    starts = batch.targets if aim.goal == "impersonation" else None
    score = Counted.of(_exact_score(victim, aim, batch), batch.images)
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
