"""Evolutionary attack: Dong et al., Efficient Decision-based Black-box Adversarial Attacks on Face Recognition, CVPR
2019 (their algorithm 1). It is told whether an image succeeds, no more.

    z ~ N(0, sigma^2 C) on k coordinates of a coarse grid, drawn without replacement by their c_ii;  z~ = z enlarged
    delta' = delta + z~ - mu delta;   accepted where it succeeds and is nearer, and then
    p_c  = (1 - c_c) p_c + sqrt(c_c (2 - c_c)) z / sigma                                                  (their eq. 4)
    c_ii = (1 - c_cov) c_ii + c_cov p_c,i^2                                                               (their eq. 5)
    mu  <- mu exp(share of successes - 1/5)

Legend: ``delta = x_a - x``, ``C`` diagonal, ``c_c = 0.01``, ``c_cov = 0.001``.

Departures: a candidate is shortened to ``(1 - mu)`` of the distance at hand, so that each is nearer and no query is
lost on one that is not; by this the attack has a form for linf too; ``sigma`` is about the l2 length of ``z~``
relative to that of ``delta`` in both norms, however many coordinates change (the paper's 0.01 for each is 0.4 at 112
pixels a side); the start is drawn to the boundary first; ``mu`` changes once in ten trials.
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

C_C = 0.01
C_COV = 0.001
TRIALS = 10
"""That the share of successes is taken over."""

HALVINGS = 10
"""Of the bisection at the start."""


@dataclass(frozen=True, kw_only=True)
class Evolutionary:
    """The nearest success that ``queries`` for each sample find.

    ``grid`` cells a side, the share ``coordinates`` of which changes at once; ``sigma`` and ``mu`` (at first) are how
    far a trial goes aside and inwards, as fractions of the distance.
    """

    ball: Ball
    queries: int = 1000
    grid: int = 45
    coordinates: float = 0.05
    sigma: float = 0.1
    mu: float = 0.01

    def __post_init__(self) -> None:
        if self.queries < 1 or self.grid < 1:
            raise ValueError(f"queries and grid are at least 1, got {self.queries} and {self.grid}")
        if not (self.sigma > 0 and 0 < self.mu < 1 and 0 < self.coordinates <= 1):
            raise ValueError(
                f"sigma is positive, mu and coordinates shares, got {self.sigma}, {self.mu} and {self.coordinates}"
            )

    def within(self, ball: Ball) -> "Evolutionary":
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
        strategy, trial = _Strategy(images, coarse(images, self.grid), self.mu), 0
        while (rows := found.going(1)).numel():
            z = strategy.mutations(self.coordinates, generator)[rows]
            succeeded = found.offer(rows, self._candidates(found, rows, z, strategy.mu[rows]))
            strategy.learn(rows, z, succeeded)
            trial += 1
            if trial % TRIALS == 0:
                strategy.adapt()
        return found.closest()

    def _candidates(self, found: Decisions, rows: Tensor, z: Tensor, mu: Tensor) -> Tensor:
        delta = found.nearest[rows] - found.images[rows]
        sigma = self.sigma * delta.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        changed = math.ceil(self.coordinates * z[0].numel()) * delta[0].numel() / z[0].numel()  # pixels
        aside = sigma * enlarged(z, delta) / math.sqrt(changed)
        ends = found.images[rows] + (1 - mu.view(-1, 1, 1, 1)) * delta + aside
        return found.at(rows, ends, (1 - mu) * found.distance[rows])


class _Strategy:
    """How each of B samples mutates: the diagonal of C and the path ``(B, C, h, w)``, ``mu`` ``(B,)``."""

    def __init__(self, images: Tensor, shape: tuple[int, int, int], mu: float) -> None:
        self.variance = torch.ones(len(images), *shape, device=images.device, dtype=images.dtype)
        self.path = torch.zeros_like(self.variance)
        self.mu = torch.full_like(images[:, 0, 0, 0], mu)
        self.successes = torch.zeros_like(self.mu)

    def mutations(self, share: float, generator: torch.Generator) -> Tensor:
        """``z / sigma``, drawn for every sample, so that one that stops does not change the luck of others."""
        z = normal(self.variance.shape, self.variance, generator) * self.variance.sqrt()
        # The k first of exponential clocks that tick at rate c_ii are k draws by weight without replacement.
        clocks = -torch.log1p(-uniform(self.variance.shape, self.variance, generator)) / self.variance
        chosen = clocks.flatten(1).topk(math.ceil(share * z[0].numel()), dim=1, largest=False).indices
        return torch.zeros_like(z).flatten(1).scatter(1, chosen, z.flatten(1).gather(1, chosen)).view_as(z)

    def learn(self, rows: Tensor, z: Tensor, succeeded: Tensor) -> None:
        """The path and the variances of those whose trial succeeded."""
        self.successes[rows] += succeeded
        rows, z = rows[succeeded], z[succeeded]
        self.path[rows] = (1 - C_C) * self.path[rows] + math.sqrt(C_C * (2 - C_C)) * z
        self.variance[rows] = (1 - C_COV) * self.variance[rows] + C_COV * self.path[rows].square()

    def adapt(self) -> None:
        """``mu``, so that a fifth of the trials succeeds."""
        self.mu = (self.mu * torch.exp(self.successes / TRIALS - 0.2)).clamp(max=0.5)
        self.successes = torch.zeros_like(self.successes)
