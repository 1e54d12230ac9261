"""Gaussian noise, which attacks nobody: what a smoothed verifier sees, and so has to be trained on (Cohen, Rosenfeld
and Kolter, Certified Adversarial Robustness via Randomized Smoothing, ICML 2019, section 4).

    x_a = B(x + radius e),    e ~ N(0, I)

where B blurs by a Gaussian of some width, or is left out: averaging over neighbours takes away more of the noise than
of the face. A smoothed verifier may do that as well, since whatever is done to the noisy picture is part of the
function that is smoothed (compare Salman et al., Denoised Smoothing, NeurIPS 2020).

Departures from what an `Attack` is otherwise: the radius of the ball is the standard deviation of every pixel, not a
bound of the length (the length is close to the radius times the root of the number of pixels), and nothing is clipped,
since the smoothed verifier clips nothing.
"""

from dataclasses import dataclass, replace
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.draws import normal
from steadface.attacks.goals import Score

WIDEST_BLUR = 5.0
"""Pixels; the smallest images that networks take have three times as many on a side."""


def blurred(images: Tensor, width: float) -> Tensor:
    """Images (B, 3, H, W) convolved with a Gaussian of standard deviation `width` in pixels, mirrored at their edges;
    themselves where that is 0.

    >>> spot = torch.zeros(1, 3, 16, 16)
    >>> spot[..., 8, 8] = 1
    >>> round(float(blurred(spot, 2.0).square().sum()) / 3, 2)  # 1 / (4 pi width^2): what is left of noise
    0.02
    """
    if not width:
        return images
    reach = ceil(3 * width)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-places.square() / (2 * width**2))
    weights = (weights / weights.sum()).repeat(3, 1, 1, 1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Noise whose standard deviation is the radius of `ball`, blurred by `blur` pixels; the score is not asked."""

    ball: Ball
    blur: float = 0.0

    def within(self, ball: Ball) -> "GaussianNoise":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return blurred(images + self.ball.radius * normal(images.shape, images, generator), self.blur)
