"""Transfer: images crafted on surrogate models, to be judged on a victim whose gradients are not used.

- Ensemble of surrogates: Liu et al., Delving into Transferable Adversarial Examples, ICLR 2017; the mean of cosines.
- Input diversity: Xie et al., Improving Transferability with Input Diversity, CVPR 2019 (their eq. 8).
- Translation invariance: Dong et al., Evading Defenses by Translation-invariant Attacks, CVPR 2019 (their eq. 7-9).
- Scale invariance: Lin et al., Nesterov Accelerated Gradient and Scale Invariance, ICLR 2020 (their eq. 10).

    g = W * 1/m sum_{i<m} grad score(T(x / 2^i))

Departures: these shape the gradient only. Which iterate is best, and whether the goal is reached, is judged on the
image as it is. Resizing and padding are one bilinear sampling, drawn for each image on its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks.balls import Ball
from steadface.attacks.base import Attack
from steadface.attacks.goals import Embed, Score


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The mean of several scores of the same samples.

    It has no end by default: what crosses the threshold of the surrogates need not cross that of the victim, so an
    attack goes as far as it can. ``enough`` ``(B,)`` sets one.
    """

    scores: tuple[Score, ...]
    enough: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError("an ensemble needs at least one score")

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([score(images) for score in self.scores]).mean(0)

    def take(self, indices: Tensor) -> "Ensemble":
        enough = None if self.enough is None else self.enough[indices]
        return Ensemble(scores=tuple(score.take(indices) for score in self.scores), enough=enough)

    def succeeded(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values, dtype=torch.bool) if self.enough is None else values >= self.enough


def on_surrogates(
    goal: Callable[[Embed, Tensor], Score], surrogates: Sequence[Embed], references: Sequence[Tensor]
) -> Ensemble:
    """``goal`` (`dodge`, `impersonate`) on the mean of cosines of ``surrogates``, each with ``references`` ``(B, D)``
    that it embedded itself.
    """
    return Ensemble(scores=tuple(goal(embed, own) for embed, own in zip(surrogates, references, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """What the gradient is taken through.

    ``diversity`` is the share of images that are shrunk to a random size from ``smallest`` of their own up and put at
    a random place on black; ``smoothing`` the (odd) side in pixels of the Gaussian that smooths the gradient, 1 for
    none; ``scales`` how many copies ``x / 2^i`` the gradient is averaged over.
    """

    diversity: float = 0.7
    smallest: float = 0.85
    smoothing: int = 5
    scales: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.diversity <= 1 and 0 < self.smallest <= 1):
            raise ValueError(f"diversity and smallest are shares, got {self.diversity} and {self.smallest}")
        if self.smoothing < 1 or self.smoothing % 2 == 0 or self.scales < 1:
            raise ValueError(f"smoothing is odd and scales at least 1, got {self.smoothing} and {self.scales}")


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """Any gradient ``attack``, its gradients taken through ``transforms``."""

    attack: Attack
    transforms: Transforms = Transforms()

    @property
    def ball(self) -> Ball:
        return self.attack.ball

    def within(self, ball: Ball) -> "Transformed":
        return replace(self, attack=self.attack.within(ball))

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        draws = torch.Generator(generator.device).manual_seed(seed)
        rows = torch.arange(len(images), device=images.device)
        wrapped = TransformedScore(score, self.transforms, draws, len(images), rows)
        return self.attack(wrapped, images, generator=generator)


@dataclass(frozen=True)
class TransformedScore:
    """The value of ``score`` with the gradient of the transformed one.

    Every call that takes a gradient draws for all ``total`` samples and uses those in ``rows``: dropping some does not
    change the luck of the others.
    """

    score: Score
    transforms: Transforms
    generator: torch.Generator
    total: int
    rows: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            values = self.score(images)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return values
        shaped = self._transformed(images)
        return values + (shaped - shaped.detach())

    def take(self, indices: Tensor) -> "TransformedScore":
        return replace(self, score=self.score.take(indices), rows=self.rows[indices])

    def succeeded(self, values: Tensor) -> Tensor:
        return self.score.succeeded(values)

    def _transformed(self, images: Tensor) -> Tensor:
        if self.transforms.smoothing > 1:
            images = images.view_as(images)
            side = self.transforms.smoothing
            images.register_hook(lambda gradient: smoothed(gradient, side))  # type: ignore[no-untyped-call]
        draws = torch.rand(4, self.total, generator=self.generator, device=self.generator.device)
        chosen = draws.to(images)[:, self.rows]
        copies = [
            self.score(diversified(images / 2**i, chosen, self.transforms)) for i in range(self.transforms.scales)
        ]
        return torch.stack(copies).mean(0)


def diversified(images: Tensor, draws: Tensor, transforms: Transforms) -> Tensor:
    """Images ``(B, 3, H, W)`` shrunk and placed at random, by uniform ``draws`` ``(4, B)``; the same size as before."""
    chance, size, across, down = draws
    scale = transforms.smallest + (1 - transforms.smallest) * size
    scale = torch.where(chance < transforms.diversity, scale, 1.0)
    # In coordinates of -1..1 the centre may move by 1 - scale each way before the picture leaves the frame.
    x, y = ((2 * place - 1) * (1 - scale) for place in (across, down))
    zero = torch.zeros_like(scale)
    rows = (torch.stack([1 / scale, zero, -x / scale], 1), torch.stack([zero, 1 / scale, -y / scale], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.where((scale == 1).view(-1, 1, 1, 1), images, moved)


def smoothed(gradient: Tensor, side: int) -> Tensor:
    """Each channel convolved with a Gaussian of ``side`` pixels, ``sigma = k / sqrt(3)`` for ``side = 2 k + 1``."""
    k = side // 2
    line = torch.arange(-k, k + 1, device=gradient.device, dtype=gradient.dtype)
    weights = torch.exp(-line.square() * 3 / (2 * max(k, 1) ** 2))
    weights = weights / weights.sum()
    channels = gradient.shape[1]
    across = F.conv2d(
        gradient, weights.view(1, 1, 1, side).expand(channels, 1, 1, side), padding=(0, k), groups=channels
    )
    return F.conv2d(across, weights.view(1, 1, side, 1).expand(channels, 1, side, 1), padding=(k, 0), groups=channels)
