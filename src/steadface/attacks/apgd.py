"""Auto-PGD: Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks, ICML 2020 (their algorithm 1).

    z_{k+1} = project(x_k + eta_k steepest(grad score(x_k)))
    x_{k+1} = project(x_k + alpha (z_{k+1} - x_k) + (1 - alpha) (x_k - x_{k-1})),   alpha = 0.75,  eta_0 = 2 eps

At the checkpoints ``w_j = ceil(p_j steps)``, ``p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``,
a sample halves its ``eta`` and goes back to its best iterate if, since the checkpoint before,

    1. the score rose in fewer than ``rho = 0.75`` of the steps, or
    2. neither ``eta`` nor the best score has changed.

Departures: the score is a raw cosine, not a cross-entropy or a ratio of logits; as in the authors' code a checkpoint
is judged before the step from ``x_{w_j}``, where algorithm 1 takes that step, scores it and then discards it; samples
that have succeeded are left alone, which changes no outcome.
"""

from dataclasses import dataclass, fields, replace
from itertools import pairwise

import torch
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.goals import Score
from steadface.attacks.gradients import score_and_gradient
from steadface.attacks.incumbents import Incumbents, best_of_restarts

ALPHA = 0.75
RHO = 0.75


def checkpoints(steps: int) -> tuple[int, ...]:
    """The distinct ``w_j <= steps``, ascending from ``w_0 = 0``."""
    hundredths, gap = [0, 22], 22  # whole hundredths: 0.7 * 100 must not round up to 71
    while hundredths[-1] < 100:
        gap = max(gap - 3, 6)
        hundredths.append(hundredths[-1] + gap)
    return tuple(sorted({-(-p * steps // 100) for p in hundredths if p <= 100}))


@dataclass(frozen=True, kw_only=True)
class APGD:
    """``steps`` steps whose size adapts to each sample, from ``restarts`` random starts in the ball."""

    ball: Ball
    steps: int = 100
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts are at least 1, got {self.steps} and {self.restarts}")

    def within(self, ball: Ball) -> "APGD":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        def start() -> Tensor:
            return self.ball.sample(images, generator) if self.random_start else images.clone()

        return best_of_restarts(self._search, score, images, restarts=self.restarts, start=start)

    def _search(self, score: Score, images: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The best iterate of one start and its score; a sample stops at its first success."""
        best, active = Incumbents(x), torch.arange(len(images), device=images.device)
        windows = {after: after - before for before, after in pairwise(checkpoints(self.steps))}
        values, gradient = score_and_gradient(score, x)
        best.offer(active, x, values)
        path = _Path.begin(x, values, gradient, 2 * self.ball.radius)
        for step in range(self.steps):
            going = (~score.succeeded(values)).nonzero().squeeze(1)
            if going.numel() == 0:
                break
            active, images, score, path = active[going], images[going], score.take(going), path.take(going)
            if step in windows:
                path = path.judged(windows[step], best.images[active], best.values[active])
            x = self._move(path, images, momentum=step > 0)
            if step + 1 == self.steps:
                with torch.no_grad():
                    best.offer(active, x, score(x))
                break
            values, gradient = score_and_gradient(score, x)
            path = path.advanced(x, values, gradient, best.offer(active, x, values))
        return best.images, best.values

    def _move(self, path: "_Path", images: Tensor, *, momentum: bool) -> Tensor:
        step = path.step.view(-1, 1, 1, 1) * self.ball.steepest(path.gradient)
        z = self.ball.project(path.x + step, images)
        if not momentum:
            return z
        return self.ball.project(path.x + ALPHA * (z - path.x) + (1 - ALPHA) * (path.x - path.previous), images)


@dataclass(frozen=True)
class _Path:
    """Where each of n samples is, and what its next checkpoint will ask. All tensors have n rows."""

    x: Tensor
    previous: Tensor
    values: Tensor
    gradient: Tensor
    step: Tensor  # eta
    best_gradient: Tensor  # at the best iterate
    rises: Tensor  # steps since the last checkpoint that raised the score
    improved: Tensor  # since the last checkpoint, the best score
    halved: Tensor  # at the last checkpoint, the step

    @classmethod
    def begin(cls, x: Tensor, values: Tensor, gradient: Tensor, step: float) -> "_Path":
        no = torch.zeros_like(values, dtype=torch.bool)
        rises = torch.zeros_like(values, dtype=torch.int64)
        return cls(x, x, values, gradient, torch.full_like(values, step), gradient, rises, no, no)

    def take(self, rows: Tensor) -> "_Path":
        return _Path(*(getattr(self, field.name)[rows] for field in fields(self)))

    def judged(self, window: int, best: Tensor, best_values: Tensor) -> "_Path":
        """At a checkpoint ``window`` steps after the one before: halve ``eta`` and go back to ``best``, or go on."""
        stuck = ~self.improved & ~self.halved
        halve = (self.rises < RHO * window) | stuck
        pick = halve.view(-1, 1, 1, 1)
        return replace(
            self,
            x=torch.where(pick, best, self.x),
            values=torch.where(halve, best_values, self.values),
            gradient=torch.where(pick, self.best_gradient, self.gradient),
            step=torch.where(halve, self.step / 2, self.step),
            rises=torch.zeros_like(self.rises),
            improved=torch.zeros_like(self.improved),
            halved=halve,
        )

    def advanced(self, x: Tensor, values: Tensor, gradient: Tensor, better: Tensor) -> "_Path":
        pick = better.view(-1, 1, 1, 1)
        return replace(
            self,
            x=x,
            previous=self.x,
            values=values,
            gradient=gradient,
            best_gradient=torch.where(pick, gradient, self.best_gradient),
            rises=self.rises + (values > self.values),
            improved=self.improved | better,
        )
