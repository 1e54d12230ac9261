"""What an attacker wants, as a score of the images that it maximises: raw cosines, never the margin.

A margin head multiplies by a large scale and flattens where the class is already won, which hides gradients;
the cosine that a verifier compares with its threshold does not.

Legend: ``embed`` maps images to embeddings ``(B, D)`` (normalised here), ``anchors`` are unit reference
embeddings ``(B, D)``, ``signs`` are -1 where a sample dodges its anchor and +1 where it approaches it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

Embed = Callable[[Tensor], Tensor]


class Score(Protocol):
    """Images ``(B, 3, H, W)`` to ``(B,)``; the attacker maximises each entry on its own."""

    def __call__(self, images: Tensor) -> Tensor: ...
    def take(self, indices: Tensor) -> Self:
        """The score of only those samples, so that an attack can drop the ones that already succeeded."""

    def succeeded(self, values: Tensor) -> Tensor:
        """``(B,)`` bool: where ``values`` reach what the attacker wants; all false where no end is set."""


@dataclass(frozen=True, kw_only=True)
class CosineScore:
    """``signs * cos(embed(images), anchors)``; a sample has succeeded once its score reaches ``enough``."""

    embed: Embed
    anchors: Tensor
    signs: Tensor
    enough: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        return self.signs * (F.normalize(self.embed(images)) * self.anchors).sum(1)

    def take(self, indices: Tensor) -> "CosineScore":
        enough = None if self.enough is None else self.enough[indices]
        return CosineScore(embed=self.embed, anchors=self.anchors[indices], signs=self.signs[indices], enough=enough)

    def succeeded(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values, dtype=torch.bool) if self.enough is None else values >= self.enough


def template(references: Tensor) -> Tensor:
    """The one reference ``(..., D)`` that enrolling several ``(..., T, D)`` of a person makes: the normalised mean of
    the unit embeddings. `dodge` and `impersonate` take it like the embedding of a single image.

    >>> template(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([0.7071, 0.7071])
    """
    return F.normalize(F.normalize(references, dim=-1).mean(-2), dim=-1)


def dodge(embed: Embed, references: Tensor, *, threshold: float | None = None) -> CosineScore:
    """Look unlike ``references``: maximise ``-cos``; success is a cosine below the verifier's threshold."""
    enough = None
    if threshold is not None:  # the verifier accepts at exactly the threshold, so dodging must go below it
        bound = torch.full_like(references[:, 0], threshold)
        enough = -torch.nextafter(bound, torch.full_like(bound, -torch.inf))
    anchors = F.normalize(references)
    return CosineScore(embed=embed, anchors=anchors, signs=-torch.ones_like(anchors[:, 0]), enough=enough)


def impersonate(embed: Embed, references: Tensor, *, threshold: float | None = None) -> CosineScore:
    """Look like ``references``: maximise ``cos``; success is a cosine at or above the threshold."""
    enough = None if threshold is None else torch.full_like(references[:, 0], threshold)
    anchors = F.normalize(references)
    return CosineScore(embed=embed, anchors=anchors, signs=torch.ones_like(anchors[:, 0]), enough=enough)


def dodge_or_impersonate(embed: Embed, own: Tensor, other: Tensor, dodges: Tensor) -> CosineScore:
    """Dodge ``own`` ``(B, D)`` where ``dodges`` ``(B,)`` is true, impersonate ``other`` ``(B, D)`` elsewhere."""
    anchors = F.normalize(torch.where(dodges[:, None], own, other))
    return CosineScore(embed=embed, anchors=anchors, signs=1 - 2 * dodges.to(anchors.dtype))
