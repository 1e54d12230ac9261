"""N-FGSM, one step from strong noise: de Jorge et al., Make Some Noise, NeurIPS 2022 (their algorithm 1).

    x_0 = x + eta,   eta ~ uniform in the ball of radius noise * eps
    x_a = x_0 + eps * steepest(grad score(x_0))

Departure: the paper leaves ``x_a`` outside the ball (up to ``(1 + noise) eps``). A budget means what it says here,
so the sample is projected by default; ``project=False`` is the paper's form and clips to the pixel range alone.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score
from steadface.attacks.gradients import score_and_gradient


@dataclass(frozen=True, kw_only=True)
class NFGSM:
    """One gradient step of ``step`` radii after uniform noise of ``noise`` radii."""

    ball: Ball
    noise: float = 2.0
    step: float = 1.0
    project: bool = True

    def within(self, ball: Ball) -> "NFGSM":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        start = self.ball.scaled(self.noise).sample(images, generator)
        direction = self.ball.steepest(score_and_gradient(score, start)[1])
        x_adv = start + self.step * self.ball.radius * direction
        return self.ball.project(x_adv, images) if self.project else x_adv.clamp(0, 1)
