"""The smallest perturbation that crosses the threshold, by bisection of the radius with any attack inside.

    distance(x) = min ||x_a - x||  over  x_a in [0, 1]  with  score.succeeded(score(x_a))

An attack finds upper bounds of it. What no attack inside the largest ball could break is censored there: all that is
known is that this attack did not find anything nearer.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from steadface.attacks.balls import Ball, Norm
from steadface.attacks.base import Attack
from steadface.attacks.distances import lengths
from steadface.attacks.goals import Score
from steadface.attacks.incumbents import Incumbents

OCTAVES = 8
"""Radii are bisected on a geometric grid from the largest down to its 2^-8th: alike precise for near and far."""

ROUNDING = 1e-4
"""By how much a distance may exceed the radius that it was found at."""


@dataclass(frozen=True, kw_only=True)
class Closest:
    """The nearest images found that reach the goal, unquantised.

    ``distance`` ``(B,)`` is on the pixel range 0..1 (so 1/255 is one grey level under linf); it is 0 where the image
    reaches the goal as it is. Where ``censored`` ``(B,)`` it is the radius searched, and the image is the one that
    came furthest within it.
    """

    images: Tensor
    distance: Tensor
    censored: Tensor


class MinimumNorm(Protocol):
    """An attack that looks for the nearest success; as an `Attack` it returns the images of `closest`."""

    @property
    def ball(self) -> Ball: ...
    def closest(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Closest:
        """The nearest successes within the ball. `score` must have an end (a threshold)."""


def minimum_distance(
    attack: Attack, score: Score, images: Tensor, *, generator: torch.Generator, rounds: int = 8
) -> Closest:
    """The smallest radius at which ``attack`` still succeeds, found by bisection up to ``attack.ball.radius``."""
    return Bisection(attack=attack, rounds=rounds).closest(score, images, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """``rounds`` halvings of a grid of ``2^rounds`` radii; each runs ``attack`` once on the samples that ask for it.

    After every success the image is drawn towards the source as far as the goal holds (``refinements`` halvings of the
    segment, forward passes only), and the bisection goes on below what that reached. The samples of a round share one
    run wherever they ask for the same radius, so the luck of an attack with random starts depends on the batch.
    """

    attack: Attack
    rounds: int = 8
    refinements: int = 4

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.refinements < 0:
            raise ValueError(f"rounds are at least 1, got {self.rounds}, and refinements 0, got {self.refinements}")

    @property
    def ball(self) -> Ball:
        return self.attack.ball

    def within(self, ball: Ball) -> "Bisection":
        return replace(self, attack=self.attack.within(ball))

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.closest(score, images, generator=generator).images

    def closest(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Closest:
        found = Nearest(score, images, self.ball)
        self._attack(found, found.open(), self.ball, generator)
        top, low = 2**self.rounds, torch.zeros_like(found.distance, dtype=torch.int64)
        factors = [2.0 ** (OCTAVES * (index / top - 1)) for index in range(1, top + 1)]
        grid = (1 + ROUNDING) * self.ball.radius * torch.tensor(factors, dtype=torch.float64)
        for _ in range(self.rounds):
            high = torch.searchsorted(grid, found.distance.double().cpu()).to(low.device) + 1  # 1-based; 0 is no radius
            middle = torch.where(found.broken & (high - low > 1), (low + high) // 2, 0)
            for index in sorted(set(middle.tolist()) - {0}):
                rows = (middle == index).nonzero().squeeze(1)
                held = ~self._attack(found, rows, self.ball.scaled(factors[index - 1]), generator)
                low[rows[held]] = index
        return found.result()

    def _attack(self, found: "Nearest", rows: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Run the attack in `ball` on `rows`; which of them it broke, ``(n,)`` bool."""
        if rows.numel() == 0:
            return rows.bool()
        x_adv = self.attack.within(ball)(found.score.take(rows), found.images[rows], generator=generator)
        succeeded = found.offer(rows, x_adv)
        found.refine(rows[succeeded], self.refinements)
        return succeeded


class Nearest:
    """The nearest success of each sample so far, kept with its distance; where there is none, the furthest miss."""

    def __init__(self, score: Score, images: Tensor, ball: Ball) -> None:
        self.score, self.images, self.ball = score, images, ball
        self.nearest, self.misses = images.clone(), Incumbents(images)
        with torch.no_grad():
            values = score(images)
        self.broken = score.succeeded(values)
        self.distance = torch.where(self.broken, 0.0, torch.full_like(values, ball.radius, dtype=images.dtype))
        self.misses.offer(torch.arange(len(images), device=images.device), images, values)

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    def open(self) -> Tensor:
        """Rows that have not succeeded."""
        return (~self.broken).nonzero().squeeze(1)

    def offer(self, rows: Tensor, x_adv: Tensor, values: Tensor | None = None) -> Tensor:
        """Consider images inside the ball, one per entry of ``rows``; returns which succeed, ``(n,)`` bool."""
        if values is None:
            with torch.no_grad():
                values = self.score.take(rows)(x_adv)
        succeeded, length = self.score.take(rows).succeeded(values), lengths(x_adv - self.images[rows], self.norm)
        # The radius may be exceeded by a rounding error, with which nothing is nearer than a first success.
        nearer = succeeded & ((length < self.distance[rows]) | ~self.broken[rows])
        chosen = nearer.nonzero().squeeze(1)
        self.nearest[rows[chosen]] = x_adv[chosen]
        self.distance[rows[chosen]] = length[chosen].clamp(max=self.ball.radius)
        self.broken[rows[chosen]] = True
        self.misses.offer(rows, x_adv, values)
        return succeeded

    def refine(self, rows: Tensor, halvings: int) -> None:
        """Bisect the segment from each image to its nearest success, forward passes only."""
        ends = self.nearest[rows]
        low, high = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        for _ in range(halvings if rows.numel() else 0):
            middle = (low + high) / 2
            succeeded = self.offer(rows, torch.lerp(self.images[rows], ends, middle.view(-1, 1, 1, 1)))
            low, high = torch.where(succeeded, low, middle), torch.where(succeeded, middle, high)

    def result(self) -> Closest:
        pick = self.broken.view(-1, 1, 1, 1)
        return Closest(
            images=torch.where(pick, self.nearest, self.misses.images), distance=self.distance, censored=~self.broken
        )
