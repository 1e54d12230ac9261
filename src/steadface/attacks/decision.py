"""What attacks that see decisions only share: asking within a budget, a first success, and the way to the boundary.

    phi(x_a) = score.succeeded(score(x_a)),   minimise ||x_a - x||  with  phi(x_a)

Of the score nothing else is used. An image is shortened to a radius by blending it with the source under l2 and by
clipping under linf, which are the projections that HopSkipJump's binary search is made of.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks.balls import Ball, Norm
from steadface.attacks.distances import lengths, shortened
from steadface.attacks.draws import uniform
from steadface.attacks.goals import Score
from steadface.attacks.minimum_norm import Closest

ATTEMPTS = 12
"""Random images that are tried for a first success."""

BLENDS = 4
"""They are pure noise, then noise blended with the source by 1/2, 1/4, 1/8, and so on again."""

ROUNDING = 1e-6
"""By how much a success may lie outside the ball and count as in it, relative to the radius."""


class Decisions:
    """The nearest success of each of B samples, found with ``queries`` questions for each at most.

    Samples without a success are at ``distance`` infinity; ``left`` ``(B,)`` int64 is how often each may still ask.
    """

    def __init__(self, score: Score, images: Tensor, ball: Ball, queries: int) -> None:
        self.score, self.images, self.ball, self.nearest = score, images, ball, images.clone()
        self.distance = torch.full_like(images[:, 0, 0, 0], torch.inf)
        self.left = torch.full_like(self.distance, queries, dtype=torch.int64)

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    def going(self, least: int) -> Tensor:
        """Rows that have a success which could be nearer, and at least ``least`` queries left."""
        return (self.distance.isfinite() & (self.distance > 0) & (self.left >= least)).nonzero().squeeze(1)

    def ask(self, rows: Tensor, x_adv: Tensor) -> Tensor:
        """``phi`` ``(n,)`` bool of images, one query each; a row may stand several times in ``rows``."""
        self.left.index_add_(0, rows, -torch.ones_like(rows))
        assert int(self.left.min()) >= 0
        score = self.score.take(rows)
        return score.succeeded(score(x_adv))

    def offer(self, rows: Tensor, x_adv: Tensor) -> Tensor:
        """``phi`` ``(n,)`` of one image for each of ``rows``, kept where nearest; false where no query is left."""
        succeeded = torch.zeros_like(rows, dtype=torch.bool)
        able = (self.left[rows] > 0).nonzero().squeeze(1)
        if able.numel() == 0:
            return succeeded
        succeeded[able] = self.ask(rows[able], x_adv[able])
        length = lengths(x_adv - self.images[rows], self.norm)
        chosen = (succeeded & (length < self.distance[rows])).nonzero().squeeze(1)
        self.nearest[rows[chosen]] = x_adv[chosen]
        self.distance[rows[chosen]] = length[chosen]
        return succeeded

    def begin(self, starts: Tensor | None, generator: torch.Generator) -> None:
        """A first success of each: the source itself, its start ``(B, 3, H, W)`` if there are any, else noise."""
        rows = torch.arange(len(self.images), device=self.images.device)
        self.offer(rows, self.images)
        for attempt in range(-1, ATTEMPTS):
            rows = rows[self.distance[rows].isinf()]
            if attempt < 0 and starts is not None:
                self.offer(rows, starts[rows].to(self.images))
            elif attempt >= 0:
                noise = uniform(self.images.shape, self.images, generator)
                self.offer(rows, torch.lerp(self.images[rows], noise[rows], 2.0 ** -(attempt % BLENDS)))

    def at(self, rows: Tensor, ends: Tensor, radii: Tensor) -> Tensor:
        """``ends`` ``(n, 3, H, W)`` shortened to ``radii`` ``(n,)``, inside the range."""
        source = self.images[rows]
        return (source + shortened(ends - source, radii, self.norm)).clamp(0, 1)

    def approach(self, rows: Tensor, halvings: int) -> None:
        """Bisect the way from each source to its nearest success: to ``2^-halvings`` of the distance at hand."""
        ends, low, high = self.nearest[rows], torch.zeros_like(self.distance[rows]), self.distance[rows]
        for _ in range(halvings if rows.numel() else 0):
            middle = (low + high) / 2
            succeeded = self.offer(rows, self.at(rows, ends, middle))
            low, high = torch.where(succeeded, low, middle), torch.where(succeeded, middle, high)

    def closest(self) -> Closest:
        """What was found inside the ball; where nothing was, the nearest success (else the source), projected."""
        inside = self.distance <= self.ball.radius * (1 + ROUNDING)
        return Closest(
            images=self.ball.project(self.nearest, self.images),
            distance=self.distance.clamp(max=self.ball.radius),
            censored=~inside,
        )


def coarse(images: Tensor, grid: int | None) -> tuple[int, int, int]:
    """``(C, h, w)`` of a field for ``images`` with at most ``grid`` cells a side (None: as many as pixels)."""
    channels, height, width = images[0].shape
    return (channels, height, width) if grid is None else (channels, min(grid, height), min(grid, width))


def enlarged(field: Tensor, images: Tensor) -> Tensor:
    """``field`` ``(n, C, h, w)`` at the size of ``images``, bilinearly."""
    size = list(images.shape[2:])
    return field if list(field.shape[2:]) == size else F.interpolate(field, size=size, mode="bilinear")
