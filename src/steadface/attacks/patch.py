"""Adversarial patches: Brown et al., Adversarial Patch, 2017; on a spectacle frame, Sharif et al., Accessorize to a
Crime, CCS 2016.

    x_adv = (1 - mask) x + mask patch                                       inside [0, 1]; outside the mask x itself
    patch = argmax  E_view score(x with the patch as seen in that view) - w_tv TV(patch) - w_nps NPS(patch)
    TV(p)  = mean over pixels inside of sqrt((p_{i,j} - p_{i+1,j})^2 + (p_{i,j} - p_{i,j+1})^2)        (Sharif, eq. 7)
    NPS(p) = mean over pixels inside of min over printable colours c of |p_{i,j} - c|                  (Sharif, eq. 8)

A view moves the patch a little over the face and changes its light: the wearer's inexact fit and the camera. The steps
are signs of a gradient accumulated with ``DECAY``, in size from ``step`` down to its tenth.

Departures: the score is a raw cosine; NPS takes the nearest colour where Sharif et al. multiply the distances to all
of them, which vanishes with many colours, and both terms are means, so that weights do not depend on the mask's size;
the best iterate is returned, judged without penalties.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks.balls import Ball, Linf
from steadface.attacks.goals import Score
from steadface.attacks.incumbents import Incumbents, best_of_restarts
from steadface.attacks.printing import non_printability, printable_colours, total_variation
from steadface.errors import InvalidInput

DECAY = 0.9
ANYTHING = Linf(1.0)


@dataclass(frozen=True)
class View:
    """How a patch is seen once: moved to the ``right`` and ``down`` by shares of the picture's sides, ``scale`` times
    as large about the middle of its mask, its colours ``contrast`` (times, about mid-grey) and ``brightness`` (added).
    """

    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Wear:
    """What views are drawn from, uniformly: shifts up to ``shift`` either way, scale ``1 +- scale``, contrast
    ``1 +- contrast``, brightness ``+- brightness``. The default allows 2 pixels of 112 and a tenth in light.
    """

    shift: float = 0.02
    scale: float = 0.05
    contrast: float = 0.1
    brightness: float = 0.1

    def __post_init__(self) -> None:
        if not all(0 <= bound < 1 for bound in (self.shift, self.scale, self.contrast, self.brightness)):
            raise ValueError(f"the bounds of a view are at least 0 and below 1, got {self}")

    def draw(self, count: int, generator: torch.Generator) -> list[View]:
        draws = 2 * torch.rand(count, 5, generator=generator, device=generator.device, dtype=torch.float64) - 1
        return [
            View(a * self.shift, b * self.shift, 1 + c * self.scale, 1 + d * self.contrast, e * self.brightness)
            for a, b, c, d, e in draws.tolist()
        ]


def paste(images: Tensor, patch: Tensor, mask: Tensor) -> Tensor:
    """``(1 - mask) images + mask patch``: images ``(B, 3, H, W)``, patch ``(B or 1, 3, H, W)``, mask ``(1, H, W)``."""
    return torch.lerp(images, patch.to(images), mask.to(images)).clamp(0, 1)


def seen(images: Tensor, patch: Tensor, mask: Tensor, view: View) -> Tensor:
    """`paste` with patch and mask moved and recoloured as in that view; differentiable in the patch."""
    mask = mask.to(patch)
    grid = _grid(mask, view)
    moved = F.grid_sample(patch, grid.expand(len(patch), -1, -1, -1), padding_mode="border", align_corners=False)
    where = F.grid_sample(mask.unsqueeze(0), grid, align_corners=False)
    return paste(images, (0.5 + view.contrast * (moved - 0.5) + view.brightness).clamp(0, 1), where[0])


def _grid(mask: Tensor, view: View) -> Tensor:
    """Where each pixel of the view is read from, ``(1, H, W, 2)`` in -1..1."""
    height, width = mask.shape[-2:]
    weight = mask[0] / mask.sum()
    rows, columns = ((2 * torch.arange(n, device=mask.device) + 1) / n - 1 for n in (height, width))
    x, y = float((weight.sum(0) * columns).sum()), float((weight.sum(1) * rows).sum())
    by = 1 / view.scale
    right, down = x - by * (x + 2 * view.right), y - by * (y + 2 * view.down)
    theta = torch.tensor([[[by, 0, right], [0, by, down]]], device=mask.device, dtype=mask.dtype)
    return F.affine_grid(theta, [1, 1, height, width], align_corners=False)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch inside ``mask`` ``(1, H, W)`` (``[0, 1]``; in between along edges): one for each image, or with
    ``shared`` one for all images of the call, which then are held in memory together.

    A patch is bounded in where, not in how much: the default ``ball`` is the whole range of pixels. A smaller one
    bounds the change inside the mask as well. ``wear=None`` optimises for a patch that sits exactly; otherwise every
    step averages ``draws`` views, the same for all samples. A patch is judged as it sits exactly and, with ``trials``,
    by the lowest score over that many further views, which stay the same from the first step to the last.
    ``smoothness`` and ``printability`` are the weights of TV and NPS in units of the score; NPS measures against
    ``palette`` ``(P, 3)`` in ``[0, 1]``, by default `printable_colours`. Raises `InvalidInput` for a mask that is
    empty, outside ``[0, 1]``, or not of the images' size.
    """

    mask: Tensor
    ball: Ball = ANYTHING
    shared: bool = False
    steps: int = 150
    step: float = 0.1
    restarts: int = 1
    wear: Wear | None = Wear()
    draws: int = 1
    trials: int = 0
    smoothness: float = 0.05
    printability: float = 0.0
    palette: Tensor | None = None

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.draws) < 1 or self.trials < 0:
            given = f"{self.steps}, {self.restarts}, {self.draws} and {self.trials}"
            raise ValueError(f"steps, restarts and draws are at least 1 and trials 0, got {given}")
        if self.trials and self.wear is None:
            raise ValueError("trials are views drawn from wear: it must not be None")
        if not (self.step > 0 and self.smoothness >= 0 and self.printability >= 0):
            raise ValueError("a step is above 0, and weights of penalties are at least 0")
        if self.mask.ndim != 3 or len(self.mask) != 1 or not 0 <= self.mask.min() <= self.mask.max() <= 1:
            raise InvalidInput(f"a mask is (1, H, W) within 0..1, got shape {tuple(self.mask.shape)}")
        if not self.mask.any():
            raise InvalidInput("a mask that is 0 everywhere leaves no room for a patch; give one with an inside")

    def within(self, ball: Ball) -> "Patch":
        return replace(self, ball=ball)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        if self.shared:
            return self._worn(images, self.train(score, images, generator=generator))

        def search(score: Score, images: Tensor, patch: Tensor) -> tuple[Tensor, Tensor]:
            return self._search(score, images, patch, *self._views(generator))

        self._check(images)
        start = lambda: self.ball.project(_start(images, generator), images)  # noqa: E731
        return best_of_restarts(search, score, images, restarts=self.restarts, start=start)

    def train(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """One patch ``(1, 3, H, W)`` for all ``images`` ``(B, 3, H, W)``: of all iterates the one with which most
        samples succeed, then the one of the highest mean score. `paste` puts it on other faces.
        """
        self._check(images)
        patches = []
        for _ in range(self.restarts):
            start = _start(images[:1], generator)
            patches.append(self._search_shared(score, images, start, *self._views(generator)))
        return max(patches, key=lambda found: found[1])[0]

    def _search(
        self, score: Score, images: Tensor, patch: Tensor, views: list[list[View]], trials: list[View]
    ) -> tuple[Tensor, Tensor]:
        """The best images of one start and their scores; a sample stops at its first success."""
        best, momentum = Incumbents(images), torch.zeros_like(patch)
        active = torch.arange(len(images), device=images.device)
        for step in range(self.steps + 1):
            values = self._judged(score, images, patch, trials)
            best.offer(active, self._worn(images, patch), values)
            going = (~score.succeeded(values)).nonzero().squeeze(1)
            if step == self.steps or going.numel() == 0:
                break
            active, images, score = active[going], images[going], score.take(going)
            momentum = DECAY * momentum[going] + self._gradient(score, images, patch[going], views[step])
            patch = self.ball.project(patch[going] + self._rate(step) * momentum.sign(), images)
        return best.images, best.values

    def _search_shared(
        self, score: Score, images: Tensor, patch: Tensor, views: list[list[View]], trials: list[View]
    ) -> tuple[Tensor, tuple[int, float]]:
        """The best patch of one start, its successes and mean score; samples that it carries past add no gradient."""
        best, merit, momentum = patch, (-1, -torch.inf), torch.zeros_like(patch)
        for step in range(self.steps + 1):
            values = self._judged(score, images, patch, trials)
            succeeded = score.succeeded(values)
            reached = int(succeeded.sum()), float(values.mean())
            if reached > merit:
                best, merit = patch, reached
            pending = (~succeeded).nonzero().squeeze(1)
            if step == self.steps or pending.numel() == 0:
                break
            momentum = DECAY * momentum + self._gradient(score.take(pending), images[pending], patch, views[step])
            patch = (patch + self._rate(step) * momentum.sign()).clamp(0, 1)
        return best, merit

    def _judged(self, score: Score, images: Tensor, patch: Tensor, trials: Sequence[View]) -> Tensor:
        with torch.no_grad():
            values = score(self._worn(images, patch))
            for view in trials:
                values = torch.minimum(values, score(seen(images, patch, self.mask, view)))
        return values

    def _gradient(self, score: Score, images: Tensor, patch: Tensor, views: Sequence[View]) -> Tensor:
        """Of the mean score over ``views`` less the penalties, with a mean magnitude of 1 for each patch."""
        with torch.enable_grad():
            patch = patch.detach().requires_grad_(True)
            pasted = [seen(images, patch, self.mask, view) for view in views] or [self._worn(images, patch)]
            values = torch.stack([score(x_adv) for x_adv in pasted]).mean(0)
            wish = values.sum() * (len(patch) / len(values)) - self._penalty(patch).sum()
            (gradient,) = torch.autograd.grad(wish, patch)
        return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)

    def _penalty(self, patch: Tensor) -> Tensor:
        penalty = self.smoothness * total_variation(patch, self.mask.to(patch))
        if self.printability:
            palette = printable_colours() if self.palette is None else self.palette
            penalty = penalty + self.printability * non_printability(patch, self.mask.to(patch), palette.to(patch))
        return penalty

    def _worn(self, images: Tensor, patch: Tensor) -> Tensor:
        return self.ball.project(paste(images, patch, self.mask), images)

    def _rate(self, step: int) -> float:
        return self.step * (1 - 0.9 * step / self.steps)

    def _views(self, generator: torch.Generator) -> tuple[list[list[View]], list[View]]:
        """The views of every step, and those of the judgement; drawn beforehand: no outcome changes their luck."""
        if self.wear is None:
            return [[] for _ in range(self.steps)], []
        views = [self.wear.draw(self.draws, generator) for _ in range(self.steps)]
        return views, self.wear.draw(self.trials, generator)

    def _check(self, images: Tensor) -> None:
        if images.shape[-2:] != self.mask.shape[-2:]:
            sizes = "images of {} x {} under a mask of {} x {}".format(*images.shape[-2:], *self.mask.shape[-2:])
            raise InvalidInput(f"{sizes}; draw the mask at the size of the images")


def _start(images: Tensor, generator: torch.Generator) -> Tensor:
    """One uniform random colour for each image, with a little noise that breaks ties."""
    shape, device, dtype = images.shape, generator.device, images.dtype
    colour = torch.rand(*shape[:2], 1, 1, generator=generator, device=device, dtype=dtype)
    noise = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    return (0.9 * colour + 0.1 * noise).to(images.device)
