"""Momentum iterative FGSM: Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018.

    g_{k+1} = decay * g_k + grad score(x_k) / ||grad score(x_k)||_1                             (their eq. 6)
    x_{k+1} = project(x_k + step * steepest(g_{k+1}))                                           (their eq. 7, 9)

Momentum keeps the path from following what is peculiar to one network, hence its use in transfer attacks.

Departures: the score is a raw cosine; the best iterate is returned (``keep_best``) rather than the last; samples that
have succeeded are left alone.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score
from steadface.attacks.gradients import score_and_gradient
from steadface.attacks.incumbents import Incumbents


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """``steps`` steps of ``step`` (by default ``radius / steps``) along gradients accumulated with ``decay``.

    ``keep_best=False`` returns the last iterate: the score of a surrogate is not the score that a transferred image is
    judged by, so that its best iterate means less. Samples that have succeeded still stop.
    """

    ball: Ball
    steps: int = 10
    step: float | None = None
    decay: float = 1.0
    random_start: bool = False
    keep_best: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps are at least 1, got {self.steps}")
        if not self.decay >= 0:
            raise ValueError(f"a decay is at least 0, got {self.decay}")

    def within(self, ball: Ball) -> "MIFGSM":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        x_adv = self.ball.sample(images, generator) if self.random_start else images.clone()
        best, last = Incumbents(images), x_adv.clone()
        active, momentum = torch.arange(len(images), device=images.device), torch.zeros_like(images)
        step = self.ball.radius / self.steps if self.step is None else self.step
        for _ in range(self.steps):
            values, gradient = score_and_gradient(score, x_adv)
            best.offer(active, x_adv, values)
            going = (~score.succeeded(values)).nonzero().squeeze(1)
            active, images, score = active[going], images[going], score.take(going)
            if active.numel() == 0:
                break
            momentum = self.decay * momentum[going] + _unit_l1(gradient[going])
            x_adv = self.ball.project(x_adv[going] + step * self.ball.steepest(momentum), images)
            last[active] = x_adv
        if not self.keep_best:
            return last
        if active.numel():
            with torch.no_grad():
                best.offer(active, x_adv, score(x_adv))
        return best.images


def _unit_l1(gradient: Tensor) -> Tensor:
    size = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
