"""HopSkipJump: Chen, Jordan and Wainwright, HopSkipJumpAttack: a Query-Efficient Decision-Based Attack, S&P 2020 (their
algorithm 2). It is told whether an image succeeds, no more.

    v_t = sum_b (phi_b - mean phi) u_b,   phi_b = +-1 at x_t + delta_t u_b,   b = 1 .. B_0 sqrt(t)    (their eq. 16)
    x_{t+1} = shortened onto the boundary (x_t + xi_t steepest(v_t)),   xi_t = ||x_t - x|| / sqrt(t), halved as needed

Departures:

- ``v`` is carried over: ``carry`` times the sum before is added, since the boundary's normal turns little in a step;
  all of it where no step was made.
- ``u`` may be drawn on a coarse grid and enlarged (as in QEBA: Li et al., CVPR 2020), where the gradients of
  recognisers have most of their energy; ``grid=None`` draws every pixel as published.
- ``delta_t`` is ``probe ||x_t - x||_2`` and the bisection ends at ``2^-halvings`` of the distance. The paper's are 10^4
  times finer at the size of a face, below what float32 resolves.
- A step counts once it is nearer than ``x_t``: one query, where a bisection that ends further away costs ten. Under
  linf a second one is tried, which leaves alone what would come back from far out: most of it was right.
- What is left of the budget at the end goes into a last, shorter estimate.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.decision import Decisions, coarse, enlarged
from steadface.attacks.draws import normal, uniform
from steadface.attacks.goals import Score
from steadface.attacks.minimum_norm import Closest

CHUNK = 64
"""About so many probes are in memory at once."""

HALVINGS = 10
"""Of a bisection."""

STEPS = 6
"""Sizes of a step that are tried, each half of the one before."""

NEARER = 1e-3
"""The least share of the distance that a step has to win."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """The nearest success that ``queries`` for each sample find; ``probes`` is ``B_0``."""

    ball: Ball
    queries: int = 1000
    probes: int = 50
    probe: float = 0.1
    carry: float = 0.7
    grid: int | None = 28

    def __post_init__(self) -> None:
        if self.queries < 1 or self.probes < 2:
            raise ValueError(f"queries are at least 1, got {self.queries}, and probes 2, got {self.probes}")
        if not (self.probe > 0 and 0 <= self.carry <= 1):
            raise ValueError(f"probe is positive, got {self.probe}, and carry in 0 .. 1, got {self.carry}")

    def within(self, ball: Ball) -> "HopSkipJump":
        return replace(self, ball=ball)

    def __call__(
        self, score: Score, images: Tensor, *, generator: torch.Generator, starts: Tensor | None = None
    ) -> Tensor:
        return self.closest(score, images, generator=generator, starts=starts).images

    @torch.no_grad()
    def closest(
        self, score: Score, images: Tensor, *, generator: torch.Generator, starts: Tensor | None = None
    ) -> Closest:
        """The nearest successes within the ball; ``score`` must have an end (a threshold).

        ``starts`` ``(B, 3, H, W)`` should succeed as they are: for impersonation images of the target. Where they do
        not, and without them, random images are tried.
        """
        found = Decisions(score, images, self.ball, self.queries)
        found.begin(starts, generator)
        found.approach(found.going(1), HALVINGS)
        votes, carried, t = torch.zeros_like(images), torch.ones_like(images[:, :1, :1, :1]), 1
        while (rows := found.going(HALVINGS + 3)).numel():
            count = round(self.probes * math.sqrt(t))
            asked = found.left[rows].sub(HALVINGS + 1).clamp(max=count)
            votes[rows] = carried[rows] * votes[rows] + self._votes(found, rows, asked, count, generator)
            carried.fill_(1)[self._step(found, rows, votes, t)] = self.carry
            t += 1
        return found.closest()

    def _votes(self, found: Decisions, rows: Tensor, asked: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """``v`` ``(n, 3, H, W)`` from the first ``asked`` ``(n,)`` of ``count`` directions."""
        x, size = found.nearest[rows], max(CHUNK // len(found.images), 1)
        delta = self.probe * (x - found.images[rows]).square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        plain, signed, phis = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(delta)
        for first in range(0, int(asked.max()), size):  # whoever goes on later asks all, so the draws stay in step
            draws = self._directions(found.images, min(size, count - first), generator)[rows]
            ranks = torch.arange(first, first + draws.shape[1], device=x.device)
            which, column = (ranks < asked[:, None]).nonzero(as_tuple=True)
            u = enlarged(draws[which, column], x)
            u = u / u.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
            phi = found.ask(rows[which], (x[which] + delta[which] * u).clamp(0, 1)).to(x.dtype).view(-1, 1, 1, 1)
            phi = 2 * phi - 1
            plain.index_add_(0, which, u)
            signed.index_add_(0, which, phi * u)
            phis.index_add_(0, which, phi)
        mean = phis / asked.view(-1, 1, 1, 1)
        return torch.where(mean.abs() == 1, signed, signed - mean * plain)

    def _directions(self, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """``(B, count, C, h, w)``, drawn for every sample, so that one that stops changes no one else's luck."""
        shape = (len(images), count, *coarse(images, self.grid))
        if self.ball.norm == "linf":
            return 2 * uniform(shape, images, generator) - 1
        return normal(shape, images, generator)

    def _step(self, found: Decisions, rows: Tensor, votes: Tensor, t: int) -> Tensor:
        """Go along the votes as far as it still comes nearer, then to the boundary; the rows that moved."""
        moved = []
        for halved in range(STEPS):
            for hold in (False, True) if self.ball.norm == "linf" else (False,):
                way = self._way(found, rows, votes[rows], hold=hold)
                ends = found.nearest[rows] + (found.distance[rows] / math.sqrt(t) / 2**halved).view(-1, 1, 1, 1) * way
                nearer = found.offer(rows, found.at(rows, ends, (1 - NEARER) * found.distance[rows]))
                moved.append(rows[nearer])
                rows = rows[~nearer]
        ahead = torch.cat(moved)
        found.approach(ahead, HALVINGS)
        return ahead

    def _way(self, found: Decisions, rows: Tensor, votes: Tensor, *, hold: bool) -> Tensor:
        """The steepest direction; with ``hold`` none for pixels that are far out and would come back."""
        way, delta = self.ball.steepest(votes), found.nearest[rows] - found.images[rows]
        back = (delta * way < 0) & (delta.abs() > found.distance[rows].view(-1, 1, 1, 1) / 2)
        return torch.where(back, 0.0, way) if hold else way
