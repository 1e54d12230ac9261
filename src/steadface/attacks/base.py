"""The one signature that all attacks share."""

from typing import Protocol, Self

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score


class Attack(Protocol):
    """Raises the score of each image inside a ball around it."""

    @property
    def ball(self) -> Ball: ...
    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """Adversarial images ``(B, 3, H, W)`` in ``[0, 1]`` and inside the ball around ``images``."""

    def within(self, ball: Ball) -> Self:
        """The same attack inside another ball (training ramps the radius)."""
