"""Fast minimum-norm attack: Pintor et al., Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints,
NeurIPS 2021 (their algorithm 1).

    eps_k     = min(eps_{k-1} (1 - gamma_k), ||delta*||)   where x + delta_{k-1} reaches the goal
              = eps_{k-1} (1 + gamma_k)                     elsewhere
    delta_k   = project onto eps_k (delta_{k-1} + alpha_k steepest(grad score(x + delta_{k-1})))

One gradient a step serves the search for a success and for a smaller one at once; ``eps`` belongs to each image.

Departures: the goal is a threshold on a raw cosine; the search starts from what an attack inside the largest ball
finds, drawn to the boundary (the paper guesses the first ``eps`` from the margin, which a score need not have), and so
it leaves out what that attack cannot break; ``alpha`` is relative to ``eps`` and the direction steepest in the norm at
hand; the nearest image is drawn to the boundary at the end.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.base import Attack
from steadface.attacks.distances import shortened
from steadface.attacks.goals import Score
from steadface.attacks.gradients import score_and_gradient
from steadface.attacks.minimum_norm import Closest, Nearest


@dataclass(frozen=True, kw_only=True)
class FMN:
    """``steps`` steps that follow the boundary inwards from what ``attack`` finds in its (the largest) ball.

    ``gamma`` is by how much a radius changes and ``alpha`` how long a step is as a fraction of the radius; both decay
    along a cosine, from the first to the last number.
    """

    attack: Attack
    steps: int = 60
    gamma: tuple[float, float] = (0.1, 0.002)
    alpha: tuple[float, float] = (0.5, 0.02)
    refinements: int = 8

    def __post_init__(self) -> None:
        if self.steps < 1 or self.refinements < 0:
            raise ValueError(f"steps are at least 1, got {self.steps}, and refinements 0, got {self.refinements}")

    @property
    def ball(self) -> Ball:
        return self.attack.ball

    def within(self, ball: Ball) -> "FMN":
        return replace(self, attack=self.attack.within(ball))

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.closest(score, images, generator=generator).images

    def closest(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Closest:
        """The nearest successes within the ball of ``attack``; ``score`` must have an end (a threshold)."""
        found = Nearest(score, images, self.ball)
        rows = found.open()
        if rows.numel():  # all are given, so that the luck of a sample does not depend on which of the others are open
            start = self.attack(score, images, generator=generator)
            rows = rows[found.offer(rows, start[rows])]
            found.refine(rows, self.refinements)
        if rows.numel():
            self._follow(found, rows)
            found.refine(rows, self.refinements)
        return found.result()

    def _follow(self, found: Nearest, rows: Tensor) -> None:
        images, score, norm = found.images[rows], found.score.take(rows), self.ball.norm
        x_adv, radii = found.nearest[rows], found.distance[rows]
        for step in range(self.steps):
            values, gradient = score_and_gradient(score, x_adv)
            gamma, alpha = (_annealed(ends, step / self.steps) for ends in (self.gamma, self.alpha))
            succeeded = found.offer(rows, x_adv, values)
            inwards = torch.minimum(radii * (1 - gamma), found.distance[rows])
            radii = torch.where(succeeded, inwards, radii * (1 + gamma)).clamp(max=self.ball.radius)
            stride = (alpha * radii).view(-1, 1, 1, 1)
            delta = x_adv + stride * self.ball.steepest(gradient) - images
            x_adv = (images + shortened(delta, radii, norm)).clamp(0, 1)
        found.offer(rows, x_adv)


def _annealed(ends: tuple[float, float], progress: float) -> float:
    first, last = ends
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
