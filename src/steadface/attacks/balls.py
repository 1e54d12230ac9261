"""Balls of pixel perturbations: where a start is drawn, which way is steepest, and how to come back inside.

Legend: ``x`` clean images ``(B, 3, H, W)`` in ``[0, 1]``, ``x_adv`` perturbed images, ``delta = x_adv - x``,
``r`` the radius as a fraction of the pixel range (``4/255``).
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from steadface.attacks.draws import normal, uniform

Norm = Literal["linf", "l2"]


def radius_from(text: str) -> float:
    """`4/255`, `2.5/255` or `0.0157` as a number. Raises ValueError or ZeroDivisionError for what is none.

    >>> radius_from("4/255") == 4 / 255
    True
    """
    numerator, slash, denominator = text.partition("/")
    return float(numerator) / float(denominator) if slash else float(text)


class Ball(Protocol):
    """``{delta : ||delta|| <= radius}``, always intersected with the pixel range ``[0, 1]``."""

    @property
    def radius(self) -> float: ...
    @property
    def norm(self) -> Norm: ...
    def scaled(self, factor: float) -> Self:
        """The ball of ``factor`` times the radius."""

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images drawn uniformly from the ball around ``x``, clipped to ``[0, 1]``."""

    def steepest(self, gradient: Tensor) -> Tensor:
        """``argmax <gradient, d>`` over unit-norm ``d``, per image; zero where the gradient is zero."""

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Feasible images near ``x_adv``: inside the ball around ``x`` and inside ``[0, 1]``."""

    def squash(self, field: Tensor) -> Tensor:
        """A smooth map of an unbounded ``field`` onto perturbations inside the ball (for generators)."""


@dataclass(frozen=True)
class Linf:
    """``max |delta| <= radius``."""

    radius: float
    norm: Literal["linf"] = "linf"

    def scaled(self, factor: float) -> "Linf":
        return replace(self, radius=self.radius * factor)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return (x + (2 * uniform(x.shape, x, generator) - 1) * self.radius).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The exact Euclidean projection: both sets are boxes, so each coordinate is clamped alone.

        >>> Linf(0.25).project(torch.tensor([0.9, 0.4, 0.1]), torch.tensor([0.5, 0.5, 0.0]))
        tensor([0.7500, 0.4000, 0.1000])
        """
        return torch.minimum(torch.maximum(x_adv, x - self.radius), x + self.radius).clamp(0, 1)

    def squash(self, field: Tensor) -> Tensor:
        return self.radius * field.tanh()


@dataclass(frozen=True)
class L2:
    """``sqrt(sum delta^2) <= radius`` over all pixels and channels of an image."""

    radius: float
    norm: Literal["l2"] = "l2"

    def scaled(self, factor: float) -> "L2":
        return replace(self, radius=self.radius * factor)

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        direction = normal(x.shape, x, generator)
        share = uniform((len(x),), x, generator)
        length = share.pow(1 / x[0].numel()).view(-1, 1, 1, 1) * self.radius  # uniform in the volume
        return (x + _unit(direction) * length).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        return _unit(gradient)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Radial projection onto the ball, then the pixel range.

        Clipping moves every coordinate towards ``x``, so the result stays in the ball: feasible and
        idempotent, though not the nearest point of the intersection.

        >>> x = torch.zeros(1, 1, 1, 2)
        >>> L2(0.5).project(torch.tensor([0.6, 0.8]).view(1, 1, 1, 2), x)
        tensor([[[[0.3000, 0.4000]]]])
        """
        delta = x_adv - x
        factor = (self.radius / _length(delta).clamp_min(torch.finfo(x.dtype).tiny)).clamp(max=1)
        return (x + delta * factor).clamp(0, 1)

    def squash(self, field: Tensor) -> Tensor:
        return self.radius * field / (1 + _length(field).square()).sqrt()


def ball(norm: Norm, radius: float) -> Linf | L2:
    """The ball of that norm and radius (a fraction of the pixel range, at least 0)."""
    if not radius >= 0:
        raise ValueError(f"a radius is at least 0, got {radius}")
    return Linf(radius) if norm == "linf" else L2(radius)


def _length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta, dim=(1, 2, 3), keepdim=True)
    return length


def _unit(delta: Tensor) -> Tensor:
    return delta / _length(delta).clamp_min(torch.finfo(delta.dtype).tiny)
