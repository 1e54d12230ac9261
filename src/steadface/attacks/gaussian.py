"""Gaussian noise, which attacks nobody: what a smoothed verifier sees, and so has to be trained on (Cohen, Rosenfeld
and Kolter, Certified Adversarial Robustness via Randomized Smoothing, ICML 2019, section 4).

    x_a = x + radius e,    e ~ N(0, I)

Departures from what an `Attack` is otherwise: the radius of the ball is the standard deviation of every pixel, not a
bound of the length (the length is close to the radius times the root of the number of pixels), and nothing is clipped,
since the smoothed verifier clips nothing.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Noise whose standard deviation is the radius of `ball`; the score is not asked."""

    ball: Ball

    def within(self, ball: Ball) -> "GaussianNoise":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        noise = torch.randn(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
        return images + self.ball.radius * noise.to(images.device)
