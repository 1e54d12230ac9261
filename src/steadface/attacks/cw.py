"""C&W-l2: Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, S&P 2017 (their section VI.A).

    minimise  ||x_a - x||_2^2 + c f(x_a),   x_a = (tanh(w) + 1) / 2,   f = max(threshold - score(x_a), 0)

by Adam over ``w``, where ``c`` is searched for each image: ten times as large until the goal is reached, then bisected
for the smallest that reaches it. The change of variables keeps pixels in the range without clipping gradients.

Departures: ``score`` is the raw cosine that the verifier compares with its threshold, in place of logits; there is no
``kappa``, since a stricter threshold says the same; Adam runs all its steps (no early abort on a slow loss); what is
found beyond the ball is projected onto it, once per value of ``c``.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.distances import lengths
from steadface.attacks.goals import Score
from steadface.attacks.minimum_norm import Closest, Nearest

BETAS = (0.9, 0.999)
INNER = 1 - 1e-6
"""Keeps arctanh finite for black and white pixels."""


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2:
    """``searches`` values of ``c`` from ``constant`` on, ``steps`` steps of Adam at rate ``rate`` for each.

    ``ball`` is the largest l2 ball in which something counts as found. The score must have an end; one without is
    raised as far as the ball allows.
    """

    ball: Ball
    searches: int = 6
    steps: int = 100
    rate: float = 0.01
    constant: float = 10.0

    def __post_init__(self) -> None:
        if self.ball.norm != "l2":
            raise ValueError(f"C&W-l2 minimises the l2 norm; it has no form for {self.ball.norm}")
        if self.searches < 1 or self.steps < 1:
            raise ValueError(f"searches and steps are at least 1, got {self.searches} and {self.steps}")
        if not (self.rate > 0 and self.constant > 0):
            raise ValueError(f"rate and constant are positive, got {self.rate} and {self.constant}")

    def within(self, ball: Ball) -> "CarliniWagnerL2":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.closest(score, images, generator=generator).images

    def closest(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Closest:  # noqa: ARG002
        """The nearest successes within the ball. The attack is deterministic; ``generator`` is not drawn from."""
        found = Nearest(score, images, self.ball)
        rows = found.open()
        constant = torch.full_like(found.distance[rows], self.constant)
        low, high = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        for _ in range(self.searches if rows.numel() else 0):
            reached = self._descend(found, rows, constant)
            low, high = torch.where(reached, low, constant), torch.where(reached, constant, high)
            constant = torch.where(high.isinf(), 10 * constant, (low + high) / 2)
        return found.result()

    def _descend(self, found: Nearest, rows: Tensor, constant: Tensor) -> Tensor:
        """Adam for one ``constant`` ``(n,)`` each; where the goal was reached, at whatever distance, ``(n,)``."""
        images, score = found.images[rows], found.score.take(rows)
        w = torch.atanh((2 * images - 1) * INNER)
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        reached = torch.zeros_like(constant, dtype=torch.bool)
        for step in range(1, self.steps + 1):
            x_adv, values, gradient = _objective(score, w, images, constant)
            reached |= score.succeeded(values)
            inside = (lengths(x_adv - images, "l2") <= self.ball.radius).nonzero().squeeze(1)
            found.offer(rows[inside], x_adv[inside], values[inside])
            mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
            square = BETAS[1] * square + (1 - BETAS[1]) * gradient.square()
            scale = (square / (1 - BETAS[1] ** step)).sqrt() + 1e-8
            w = w - self.rate * mean / (1 - BETAS[0] ** step) / scale
        found.offer(rows, self.ball.project((w.tanh() + 1) / 2, images))
        return reached


def _objective(score: Score, w: Tensor, images: Tensor, constant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The images ``(n, 3, H, W)`` of ``w``, their scores ``(n,)``, and the objective's gradient in ``w``.

    A hinge at the threshold has the gradient of ``-score`` before the threshold and none behind it.
    """
    with torch.enable_grad():
        w = w.detach().requires_grad_(True)
        x_adv = (w.tanh() + 1) / 2
        values = score(x_adv)
        hinge = torch.where(score.succeeded(values.detach()), 0.0, -values)
        loss = (x_adv - images).square().sum(dim=(1, 2, 3)) + constant * hinge
        (gradient,) = torch.autograd.grad(loss.sum(), w)
    return x_adv.detach(), values.detach(), gradient
