"""A cosine in the clothes of a classifier, and another library's attack in those of ours.

Libraries attack logits. Here they get two, ``(2, 2 + score - enough)``, and class 0 to leave, so that all they make of
logits is the raw cosine: the cross-entropy of class 0 rises with the score of a sample (its gradient points the same
way), the margin between the classes is ``score - enough``, and the decision turns where the goal is reached. 2 keeps
logits positive, which torchattacks' C&W takes for granted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from steadface.attacks.balls import Ball
from steadface.attacks.distances import lengths
from steadface.attacks.goals import CosineScore, Score

SHIFT = 2.0


class Counting(nn.Module):
    """``network``, and how many images it was shown: ``gradients`` that were differentiated, ``forwards`` that were
    not."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.gradients, self.forwards = 0, 0

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.gradients += len(images)
        else:
            self.forwards += len(images)
        embeddings: Tensor = self.network(images)
        return embeddings


class ExhaustedError(Exception):
    """All queries are spent."""


class TwoLogits(nn.Module):
    """Logits ``(n, 2)`` of images ``(n, 3, H, W)``: class 1 where the goal of the sample that they show is reached.

    A library may leave out samples that are finished without saying which. Fewer images than ``sources`` belong to
    those that they are nearest to, so no two sources may be the same picture. With ``queries`` the nearest success
    among so many first images of every sample is kept in ``nearest``, and whoever goes on asking is stopped.
    """

    def __init__(self, score: Score, sources: Tensor, ball: Ball, queries: int | None = None) -> None:
        super().__init__()
        assert isinstance(score, CosineScore)
        self.network = score.embed if isinstance(score.embed, nn.Module) else nn.Identity()
        self.score, self.sources, self.ball, self.queries = score, sources, ball, queries
        self.asked = torch.zeros(len(sources), dtype=torch.int64, device=sources.device)
        self.distance = torch.full((len(sources),), torch.inf, device=sources.device)
        self.nearest = sources.clone()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        images = images.to(self.sources.dtype)  # some hand on float64
        rows = self._rows(images.detach())
        score = self.score.take(rows)
        values: Tensor = score(images)
        margin = values if score.enough is None else values - score.enough
        if self.queries is not None:
            self._count(rows, images.detach(), score.succeeded(values.detach()), self.queries)
        return torch.stack([torch.full_like(margin, SHIFT), SHIFT + margin], dim=1)

    def of(self, row: int) -> "TwoLogits":
        """The logits of one sample alone, however many images of it are asked for."""
        rows = torch.tensor([row], device=self.sources.device)
        return TwoLogits(self.score.take(rows), self.sources[rows], self.ball, self.queries)

    def _rows(self, images: Tensor) -> Tensor:
        if len(images) == len(self.sources):
            return torch.arange(len(images), device=images.device)
        return torch.cdist(images.flatten(1), self.sources.flatten(1)).argmin(1)

    def _count(self, rows: Tensor, images: Tensor, succeeded: Tensor, queries: int) -> None:
        """One sample may come several times in a batch; they count in their order."""
        before = self.asked.clone()
        for place, row in enumerate(rows.tolist()):
            self.asked[row] += 1
            length = lengths(images[place : place + 1] - self.sources[row], self.ball.norm)[0]
            if succeeded[place] and self.asked[row] <= queries and length < self.distance[row]:
                self.distance[row], self.nearest[row] = length, images[place]
        if (before[rows] >= queries).all():
            raise ExhaustedError


Run = Callable[[TwoLogits, Tensor, Ball], Tensor]
"""``(model, images, ball) -> adversarial images``: a library's attack that leaves class 0 of ``model``."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """``run`` as an `Attack`. With ``queries`` its images are the nearest successes among so many first queries."""

    run: Run
    ball: Ball
    queries: int | None = None

    def within(self, ball: Ball) -> "Peer":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**31, (1,), generator=generator))
        torch.manual_seed(seed)  # the libraries draw from the global states
        np.random.seed(seed)  # noqa: NPY002
        model = TwoLogits(score, images, self.ball, self.queries)
        try:
            found = self.run(model, images, self.ball)
        except ExhaustedError:
            return model.nearest
        return found if self.queries is None else model.nearest


def each_alone(run: Callable[[TwoLogits, Tensor, Ball, int], Tensor]) -> Run:
    """``run``, which is told the row too, on one sample at a time: for attacks that ask for one many times at once."""

    def run_each(model: TwoLogits, images: Tensor, ball: Ball) -> Tensor:
        for row in range(len(images)):
            alone = model.of(row)
            try:
                found = run(alone, images[row : row + 1], ball, row)
            except ExhaustedError:
                found = alone.nearest
            model.nearest[row] = (found if model.queries is None else alone.nearest)[0]
        return model.nearest

    return run_each
