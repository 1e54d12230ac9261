"""Fast gradient sign method: Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015.

    x_a = x + eps * steepest(grad score(x))                                                  (their section 4)

Departures: the score is a raw cosine; inside an l2 ball the step goes along the normalised gradient (fast gradient
method); an image that scores higher as it was is left as it was. There is no noise, so a face cannot dodge itself:
where the reference is the same picture the gradient vanishes. `NFGSM` is the noisy form.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score
from steadface.attacks.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step of the whole radius from the image itself."""

    ball: Ball

    def within(self, ball: Ball) -> "FGSM":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        single = PGD(ball=self.ball, steps=1, step=self.ball.radius, random_start=False)
        return single(score, images, generator=generator)
