"""Square Attack: Andriushchenko et al., Square Attack: a Query-Efficient Black-Box Adversarial Attack via Random
Search, ECCV 2020 (their algorithms 1 to 3 and eq. 2). It sees scores, never gradients.

    x_{k+1} = x_k + d  if  score(x_k + d) > score(x_k)  else  x_k,   d changes a random square of side sqrt(p H W)

    linf  every channel of the square becomes x + eps or x - eps by chance; the start is vertical stripes of the same
    l2    the square takes over the norm of another one, which becomes zero, and what the ball has left; its direction
          is its own perturbation plus a random sign times two opposite bumps; the start is a tiling of bumps

``p`` is halved after 10, 50, 200, 1000, 2000, 4000, 6000 and 8000 of 10000 queries, rescaled to ``queries``.

Departures: the score is a raw cosine, not a margin of logits; ``p`` is 0.8 at first (in 300 queries under linf the
paper's 0.05 gained half as much on a recogniser's cosines; l2 was not compared); a linf square that would change
nothing takes the opposite signs, since its query would be lost; l2 squares have an odd side, as in the authors' code;
samples that have succeeded are left alone, which changes no outcome.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score
from steadface.attacks.incumbents import Incumbents

HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
"""Of 10000 queries."""

TILES = 5
"""The l2 start has so many tiles along the shorter side."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """``queries`` for each sample at most; the first square covers the share ``p`` of the image."""

    ball: Ball
    queries: int = 1000
    p: float = 0.8

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"queries are at least 1, got {self.queries}")
        if not 0 < self.p <= 1:
            raise ValueError(f"p is a share of the image above 0 and at most 1, got {self.p}")

    def within(self, ball: Ball) -> "Square":
        return replace(self, ball=ball)

    @torch.no_grad()
    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        best, active, total = Incumbents(images), torch.arange(len(images), device=images.device), len(images)
        x = (_stripes if self.ball.norm == "linf" else _tiles)(images, self.ball, generator)
        for query in range(1, self.queries + 1):
            values = score(x)
            best.offer(active, x, values)
            going = (~score.succeeded(values)).nonzero().squeeze(1)
            if query == self.queries or going.numel() == 0:
                break
            active, images, score = active[going], images[going], score.take(going)
            # Drawn for every sample, so that dropping some does not change the luck of the others.
            draws = _uniform((total, 5 + images.shape[1]), images, generator)[active]
            x = self._moved(best.images[active], images, share(self.p, query, self.queries), draws)
        return best.images

    def _moved(self, x: Tensor, images: Tensor, p: float, draws: Tensor) -> Tensor:
        move = _linf_move if self.ball.norm == "linf" else _l2_move
        return move(x, images, self.ball, p, draws)


def share(p: float, query: int, queries: int) -> float:
    """The share of the image that a square covers after ``query`` of ``queries``."""
    return float(p / 2 ** sum(10_000 * query > after * queries for after in HALVINGS))


def bumps(side: int) -> Tensor:
    """Two halves ``(side, side)`` of opposite sign that fall off from their centres, of norm 1 in all (their eq. 2)."""
    halves = [_bump(side, side // 2), -_bump(side, side - side // 2)]
    both = torch.cat(halves, dim=1)
    return both / both.square().sum().sqrt()


def _bump(high: int, wide: int) -> Tensor:
    n = high // 2
    rise = torch.arange(n + 1, 0, -1, dtype=torch.float64).pow(-2).cumsum(0)
    down, across = ((torch.arange(size) - size // 2).abs() for size in (high, wide))
    return rise[n - torch.maximum(down[:, None], across)]


def _linf_move(x: Tensor, images: Tensor, ball: Ball, p: float, draws: Tensor) -> Tensor:
    _, height, width = images[0].shape
    side = min(max(round(math.sqrt(p * height * width)), 1), height, width)
    window, _, _ = _window(draws[:, :2], side, height, width)
    delta = ball.radius * _signs(draws[:, 5:, None, None])
    moved, opposite = (torch.where(window, ball.project(images + d, images), x) for d in (delta, -delta))
    same = (moved == x).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(same, opposite, moved)


def _l2_move(x: Tensor, images: Tensor, ball: Ball, p: float, draws: Tensor) -> Tensor:
    channels, height, width = images[0].shape
    side = min(max(2 * (round(math.sqrt(p * height * width)) // 2) + 1, 3), height, width)
    here, down, across = _window(draws[:, :2], side, height, width)
    there, _, _ = _window(draws[:, 2:4], side, height, width)
    shape, turned = bumps(side).to(images), draws[:, 4].view(-1, 1, 1, 1) < 0.5
    bump = torch.where(turned, shape.mT[down, across], shape[down, across])
    nu, signs = x - images, _signs(draws[:, 5:, None, None])
    unused = (ball.radius**2 - nu.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0)
    available = ((nu * (here | there)).square().sum(dim=(2, 3), keepdim=True) + unused / channels).sqrt()
    direction = _unit(here * (signs * bump + _unit(here * nu)))
    return ball.project(images + torch.where(here | there, available * direction, nu), images)


def _window(draws: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where a square is, ``(n, 1, H, W)`` bool, its corner by uniform ``draws`` ``(n, 2)``; and which of its rows and
    columns each pixel is in (broadcastable; clamped outside).
    """
    down, across = (
        torch.arange(size, device=draws.device)
        - (draw * (size - side + 1)).floor().clamp(max=size - side)[:, None].long()
        for draw, size in zip(draws.T, (height, width), strict=True)
    )
    down, across = down[:, None, :, None], across[:, None, None, :]
    inside = (down >= 0) & (down < side) & (across >= 0) & (across < side)
    return inside, down.clamp(0, side - 1), across.clamp(0, side - 1)


def _stripes(images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """Vertical stripes one pixel wide, each channel of each at a corner of the ball."""
    signs = _signs(_uniform((*images.shape[:2], 1, images.shape[3]), images, generator))
    return ball.project(images + ball.radius * signs, images)


def _tiles(images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """Bumps of random sign in square tiles all over the image, as long as the ball allows."""
    total, channels, height, width = images.shape
    side = max(min(height, width) // TILES, 1)
    down, across = (torch.arange(size, device=images.device) for size in (height, width))
    signs = _signs(_uniform((total, channels, -(-height // side), -(-width // side)), images, generator))
    signs = signs[:, :, down // side][:, :, :, across // side]
    field = signs * bumps(side).to(images)[down % side][:, across % side]
    return ball.project(images + ball.radius * ball.steepest(field), images)


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def _signs(draws: Tensor) -> Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0).to(draws.dtype)


def _unit(field: Tensor) -> Tensor:
    """Each channel of ``(n, C, H, W)`` at norm 1, or 0 where it is zero."""
    norm = field.square().sum(dim=(2, 3), keepdim=True).sqrt()
    return field / norm.clamp_min(torch.finfo(field.dtype).tiny)
