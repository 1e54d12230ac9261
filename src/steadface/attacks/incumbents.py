"""The best image of every sample so far, and the restarts that compete for it."""

from collections.abc import Callable

import torch
from torch import Tensor

from steadface.attacks.goals import Score

Search = Callable[[Score, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(score, images, starts) -> (best images, their scores (B,))``: one run of an attack."""


class Incumbents:
    """The best image ``(B, 3, H, W)`` of each sample and its score ``(B,)``; at first the given one at -inf."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.values = torch.full((len(images),), -torch.inf, device=images.device, dtype=images.dtype)

    def offer(self, rows: Tensor, images: Tensor, values: Tensor) -> Tensor:
        """Keep those of ``images`` (one per entry of ``rows``) that score higher; returns which did, ``(n,)`` bool."""
        values = values.to(self.values.dtype)
        better = values > self.values[rows]
        chosen = better.nonzero().squeeze(1)
        self.images[rows[chosen]] = images[chosen]
        self.values[rows[chosen]] = values[chosen]
        return better


def best_of_restarts(
    search: Search, score: Score, images: Tensor, *, restarts: int, start: Callable[[], Tensor]
) -> Tensor:
    """The best that ``restarts`` runs of ``search`` find; a sample that has succeeded is not searched again.

    ``start`` draws starting points ``(B, 3, H, W)`` for every sample each time, so that dropping some does not change
    the luck of the others.
    """
    best = Incumbents(images)
    for _ in range(restarts):
        starts = start()
        active = (~score.succeeded(best.values)).nonzero().squeeze(1)
        if active.numel() == 0:
            break
        best.offer(active, *search(score.take(active), images[active], starts[active]))
    return best.images
