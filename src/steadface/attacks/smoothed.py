"""The score of a smoothed verifier, whose gradient is an expectation over its noise: Athalye et al., Synthesizing
Robust Adversarial Examples, ICML 2018; against randomized smoothing Salman et al., Provably Robust Deep Learning via
Adversarially Trained Smoothed Classifiers, NeurIPS 2019.

    value = median of score(x + e_i),    gradient = mean of grad score(x + e_i),    e_i ~ N(0, sigma^2 I), i < draws

The gradient of the median is that of the one draw which happens to be in the middle; that of the mean, where the draws
lie close together, points the same way with far less noise. Noise is drawn anew for every value, so that no image is
found that deceives some draws alone; what was found has to be confirmed with more of them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.goals import Score


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    """`score` under noise of standard deviation `sigma`, on the pixel range 0..1."""

    score: Score
    sigma: float
    draws: int
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        rows = torch.arange(len(images), device=images.device).repeat_interleave(self.draws)
        shape = (len(rows), *images.shape[1:])
        noise = torch.randn(shape, generator=self.generator, device=self.generator.device).to(images)
        values = self.score.take(rows)(images[rows] + self.sigma * noise).view(len(images), self.draws)
        mean = values.mean(1)
        return mean + (values.median(1).values - mean).detach()

    def take(self, indices: Tensor) -> "Smoothed":
        return replace(self, score=self.score.take(indices))

    def succeeded(self, values: Tensor) -> Tensor:
        return self.score.succeeded(values)
