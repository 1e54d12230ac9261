"""What an attack without gradients pays: how often each sample was shown to the recogniser."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steadface.attacks.goals import Score


@dataclass(frozen=True)
class Counted:
    """A score that counts its forward passes: ``queries`` ``(B,)`` int64, one entry for each sample of the first batch.

    Begin with `Counted.of`. All that `take` gives count into the same tensor, in whose rows ``rows`` ``(n,)`` their
    samples are; one that is taken several times is counted each time. Gradients are not counted apart.
    """

    score: Score
    queries: Tensor
    rows: Tensor

    @classmethod
    def of(cls, score: Score, images: Tensor) -> "Counted":
        """``score`` of ``images`` ``(B, 3, H, W)`` with nothing counted yet."""
        rows = torch.arange(len(images), device=images.device)
        return cls(score, torch.zeros_like(rows), rows)

    def __call__(self, images: Tensor) -> Tensor:
        self.queries.index_add_(0, self.rows, torch.ones_like(self.rows))
        return self.score(images)

    def take(self, indices: Tensor) -> "Counted":
        return Counted(self.score.take(indices), self.queries, self.rows[indices])

    def succeeded(self, values: Tensor) -> Tensor:
        return self.score.succeeded(values)
