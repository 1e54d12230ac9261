"""Projected gradient descent: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018.

    x_0     ~ uniform in the ball around x
    x_{k+1} = project(x_k + step * steepest(grad score(x_k)))                                       (their eq. 4)

Departures: the score is a raw cosine rather than a cross-entropy; the best iterate of all restarts is returned
rather than the last (``keep_best``); samples that have succeeded are left alone, which changes no outcome.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score
from steadface.attacks.gradients import score_and_gradient


@dataclass(frozen=True, kw_only=True)
class PGD:
    """``steps`` projected steps of ``step`` (by default ``2.5 radius / steps``), from ``restarts`` starts.

    ``keep_best=False`` returns the last iterate and spares the forward pass that scores it: what training
    wants. It does so with a single restart only.
    """

    ball: Ball
    steps: int = 10
    step: float | None = None
    restarts: int = 1
    random_start: bool = True
    keep_best: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts are at least 1, got {self.steps} and {self.restarts}")
        if not self.keep_best and self.restarts > 1:
            raise ValueError("restarts are compared by their best iterate: keep_best must be true")

    def within(self, ball: Ball) -> "PGD":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        best = images.clone()
        best_value = torch.full((len(images),), -torch.inf, device=images.device, dtype=images.dtype)
        for _ in range(self.restarts):
            # Starts are drawn for every sample, so that dropping some does not change the luck of the others.
            start = self.ball.sample(images, generator) if self.random_start else images.clone()
            if not self.keep_best:
                return self._climb(score, images, start)
            active = (~score.succeeded(best_value)).nonzero().squeeze(1)
            if active.numel() == 0:
                break
            found, value = self._search(score.take(active), images[active], start[active])
            better = (value > best_value[active]).nonzero().squeeze(1)
            best[active[better]] = found[better]
            best_value[active[better]] = value[better]
        return best

    def _climb(self, score: Score, images: Tensor, x_adv: Tensor) -> Tensor:
        for _ in range(self.steps):
            x_adv = self._move(x_adv, score_and_gradient(score, x_adv)[1], images)
        return x_adv

    def _search(self, score: Score, images: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """The best iterate of one restart and its score; a sample stops at its first success."""
        best, best_value = x_adv.clone(), torch.full_like(x_adv[:, 0, 0, 0], -torch.inf)
        active = torch.arange(len(images), device=images.device)
        for step in range(self.steps + 1):
            if step < self.steps:
                value, gradient = score_and_gradient(score, x_adv)
            else:
                with torch.no_grad():
                    value = score(x_adv)
            better = (value > best_value[active]).nonzero().squeeze(1)
            best[active[better]] = x_adv[better]
            best_value[active[better]] = value[better]
            going = (~score.succeeded(value)).nonzero().squeeze(1)
            if step == self.steps or going.numel() == 0:
                break
            active, images, score = active[going], images[going], score.take(going)
            x_adv = self._move(x_adv[going], gradient[going], images)
        return best, best_value

    def _move(self, x_adv: Tensor, gradient: Tensor, images: Tensor) -> Tensor:
        step = 2.5 * self.ball.radius / self.steps if self.step is None else self.step
        return self.ball.project(x_adv + step * self.ball.steepest(gradient), images)
