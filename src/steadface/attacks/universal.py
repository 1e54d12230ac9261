"""Universal perturbation: one for all images. Moosavi-Dezfooli et al., Universal Adversarial Perturbations, CVPR 2017,
trained by steps over mini-batches as in Shafahi et al., Universal Adversarial Training, AAAI 2020 (their algorithm 2).

    delta <- project(delta + step * steepest(mean over the batch of grad score(x + delta)))

Departures: the score is a raw cosine; images that the perturbation already carries past the threshold add nothing to
the gradient, as in the first paper; the best perturbation of all epochs is kept (most successes, then highest mean
score), the zero perturbation included.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.distances import shortened
from steadface.attacks.goals import Score
from steadface.attacks.gradients import score_and_gradient


@dataclass(frozen=True, kw_only=True)
class FixedPerturbation:
    """Adds one perturbation ``delta`` ``(1, 3, H, W)`` to every image: how a universal one is tried on new faces."""

    ball: Ball
    delta: Tensor

    def within(self, ball: Ball) -> "FixedPerturbation":
        radius = torch.full_like(self.delta[:, 0, 0, 0], ball.radius)
        return FixedPerturbation(ball=ball, delta=shortened(self.delta, radius, ball.norm))

    def __call__(
        self,
        score: Score,  # noqa: ARG002
        images: Tensor,
        *,
        generator: torch.Generator,  # noqa: ARG002
    ) -> Tensor:
        return self.ball.project(images + self.delta.to(images), images)


@dataclass(frozen=True, kw_only=True)
class Universal:
    """``epochs`` passes over the images in shuffled batches; steps of ``step`` (by default ``radius / 4``) that shrink
    linearly to a tenth. As an `Attack` it returns the very images it was trained on, perturbed.
    """

    ball: Ball
    epochs: int = 10
    batch_size: int = 32
    step: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch size are at least 1, got {self.epochs} and {self.batch_size}")

    def within(self, ball: Ball) -> "Universal":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.train(score, images, generator=generator)(score, images, generator=generator)

    def train(self, score: Score, images: Tensor, *, generator: torch.Generator) -> FixedPerturbation:
        """The perturbation that raises ``score`` over all ``images`` ``(B, 3, H, W)``."""
        delta = torch.zeros_like(images[:1])
        best, merit = delta, self._merit(score, images, delta)
        for epoch in range(self.epochs):
            order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
            for rows in torch.split(order, self.batch_size):
                delta = self._moved(score.take(rows), images[rows], delta, 1 - 0.9 * epoch / self.epochs)
            reached = self._merit(score, images, delta)
            if reached > merit:
                best, merit = delta, reached
        return FixedPerturbation(ball=self.ball, delta=best)

    def _moved(self, score: Score, images: Tensor, delta: Tensor, decay: float) -> Tensor:
        values, gradient = score_and_gradient(score, self.ball.project(images + delta, images))
        pending = (~score.succeeded(values)).view(-1, 1, 1, 1)
        mean = (gradient * pending).mean(0, keepdim=True)
        step = decay * (self.ball.radius / 4 if self.step is None else self.step)
        radius = torch.full_like(delta[:, 0, 0, 0], self.ball.radius)
        return shortened(delta + step * self.ball.steepest(mean), radius, self.ball.norm)

    def _merit(self, score: Score, images: Tensor, delta: Tensor) -> tuple[int, float]:
        """Successes and mean score over all images."""
        successes, total = 0, 0.0
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(images), device=images.device), self.batch_size):
                part = score.take(rows)
                values = part(self.ball.project(images[rows] + delta, images[rows]))
                successes += int(part.succeeded(values).sum())
                total += float(values.sum())
        return successes, total / max(len(images), 1)
