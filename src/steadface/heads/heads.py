"""Recognition heads, and FR, the recognition loss: what it means to recognise, with identity labels or without.

A head takes embeddings and identity labels to logits, whose cross-entropy is the recognition loss. Legend: B faces,
C identities, D embedding size; s scale; m margin (`margins` holds the mathematics).
"""

import math
from abc import ABC, abstractmethod
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.errors import InvalidInput
from steadface.heads.margins import adaface, arcface, at_least_float32, cosface, margin_chance_loss


class Head(nn.Module, ABC):
    """Weight rows (C, D), one direction an identity, and the logits they give.

    Cosines and margins are computed in float32 at least, also under autocast: at s = 64 the 8 bits of bf16 would move
    a logit by a quarter.
    """

    def __init__(self, classes: int, embedding_size: int, *, generator: torch.Generator | None = None) -> None:
        """Rows drawn from a normal of standard deviation 0.01 by `generator` (None: torch's global one)."""
        super().__init__()
        if classes < 2:
            raise InvalidInput(f"a head needs at least 2 identities to tell apart, not {classes}; add people")
        self.weight = nn.Parameter(torch.empty(classes, embedding_size).normal_(0.0, 0.01, generator=generator))

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    @property
    def prototypes(self) -> Tensor:
        """(C, D) unit vectors, the direction that stands for each identity; no gradient."""
        return F.normalize(at_least_float32(self.weight.detach()))

    @abstractmethod
    def forward(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:
        """Logits (B, C) of raw `embeddings` (B, D) and `labels` (B,) in 0..C-1.

        A head that keeps statistics of the embeddings changes them only in training mode and where `update`: pass
        False for anything but clean training samples.
        """

    def __call__(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:
        return cast(Tensor, super().__call__(embeddings, labels, update=update))

    @abstractmethod
    def chance_loss(self) -> float:
        """Closed-form mean cross-entropy where no embedding resembles any identity: all cosines 0."""

    def cosines(self, embeddings: Tensor) -> Tensor:
        """(B, C) cosines between `embeddings` (B, D) and all identities, without margin or scale; differentiable."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.normalize(at_least_float32(embeddings)) @ F.normalize(at_least_float32(self.weight)).T

    def check_labels(self, labels: Tensor) -> None:
        """Raise InvalidInput where a label is outside 0..C-1; for once before training: it waits for the device."""
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise InvalidInput(
                f"labels run from {low} to {high}, but the head has {self.classes} identities "
                f"(0 to {self.classes - 1}); make the head for the data set, or relabel its people"
            )

    @torch.no_grad()
    def imprint(self, prototypes: Tensor) -> None:
        """Take over `prototypes` (C, D), for instance the mean embedding of each person, as the weight.

        Raises InvalidInput for another shape, and where a row has no direction.
        """
        if prototypes.shape != self.weight.shape:
            raise InvalidInput(
                f"prototypes of shape {tuple(prototypes.shape)} do not fit a head of shape {tuple(self.weight.shape)}"
            )
        norms = torch.linalg.vector_norm(at_least_float32(prototypes), dim=1)
        unusable = ~(torch.isfinite(norms) & (norms > 0))
        if bool(unusable.any()):
            row = int(unusable.nonzero()[0])
            raise InvalidInput(f"prototype {row} has length {float(norms[row])}: give every identity a usable face")
        self.weight.copy_(self._weight_of(prototypes))

    def _weight_of(self, prototypes: Tensor) -> Tensor:
        return F.normalize(at_least_float32(prototypes))


class ArcFace(Head):
    """Additive angular margin (Deng et al., CVPR 2019, eq. 3). `m` in radians, 0 <= m < pi/2."""

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        *,
        s: float = 64.0,
        m: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator)
        self.s, self.m = _checked(s, m, math.pi / 2)

    def forward(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:  # noqa: ARG002
        return arcface(self.cosines(embeddings), labels, s=self.s, m=self.m)

    def chance_loss(self) -> float:
        """log(1 + (C - 1) exp(s sin m)): at a right angle the true logit is s cos(pi/2 + m) = -s sin m."""
        return margin_chance_loss(self.classes, target=-self.s * math.sin(self.m))


class CosFace(Head):
    """Additive cosine margin (Wang et al., CVPR 2018, eq. 4), 0 <= m < 1."""

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        *,
        s: float = 64.0,
        m: float = 0.35,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator)
        self.s, self.m = _checked(s, m, 1.0)

    def forward(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:  # noqa: ARG002
        return cosface(self.cosines(embeddings), labels, s=self.s, m=self.m)

    def chance_loss(self) -> float:
        """log(1 + (C - 1) exp(s m))."""
        return margin_chance_loss(self.classes, target=-self.s * self.m)


class AdaFace(Head):
    """Margin by image quality, for which the embedding's norm stands (Kim et al., CVPR 2022, section 3.3).

    quality = clip((norm - mean) / (deviation / h), -1, 1), with the norm clipped to 1e-3..100 and detached; mean and
    deviation are exponential moving averages of those of clean training batches, with weight `momentum` on the newest.
    """

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        *,
        s: float = 64.0,
        m: float = 0.4,
        h: float = 0.333,
        momentum: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator)
        self.s, self.m = _checked(s, m, 1.0)
        self.h, self.momentum = h, momentum
        # The authors' starting values: wide enough for every face to count as average until statistics have come in.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def forward(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            norms = torch.linalg.vector_norm(at_least_float32(embeddings.detach()), dim=1).clamp(1e-3, 100.0)
            if update and self.training:
                self.update_statistics(norms)
            quality = ((norms - self.norm_mean) / (self.norm_std + 1e-3) * self.h).clamp(-1.0, 1.0)
            return adaface(self.cosines(embeddings), labels, quality, s=self.s, m=self.m)

    @torch.no_grad()
    def update_statistics(self, norms: Tensor) -> None:
        """Move the averages towards the mean and deviation of `norms` (B,); a single norm has no deviation."""
        if norms.numel() < 2:
            return
        self.norm_mean.lerp_(norms.mean().to(self.norm_mean.dtype), self.momentum)
        self.norm_std.lerp_(norms.std().to(self.norm_std.dtype), self.momentum)

    def chance_loss(self) -> float:
        """log(1 + (C - 1) exp(s m)), CosFace's: exact at the average norm, an approximation over a spread of them."""
        return margin_chance_loss(self.classes, target=-self.s * self.m)


class Softmax(Head):
    """Plain linear softmax on raw embeddings: logits = embeddings @ weight.T (+ bias). No margin, no scale."""

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        *,
        bias: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator)
        self.bias = nn.Parameter(torch.zeros(classes)) if bias else None

    def forward(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:  # noqa: ARG002
        with torch.autocast(embeddings.device.type, enabled=False):
            bias = None if self.bias is None else at_least_float32(self.bias)
            return F.linear(at_least_float32(embeddings), at_least_float32(self.weight), bias)

    def chance_loss(self) -> float:
        """log C: equal logits."""
        return math.log(self.classes)

    def _weight_of(self, prototypes: Tensor) -> Tensor:
        """Unit rows times sqrt(2) log(C - 1) / mean norm (and at least 1 / mean norm).

        An embedding of average length then meets its own row with the fixed scale of AdaCos for C identities (Zhang
        et al., CVPR 2019), neither flat nor saturated. So give raw mean embeddings, not unit ones.
        """
        full = at_least_float32(prototypes)
        length = torch.linalg.vector_norm(full, dim=1).mean()
        logit = max(1.0, math.sqrt(2) * math.log(self.classes - 1))
        rows: Tensor = F.normalize(full) * (logit / length)
        return rows

    @torch.no_grad()
    def imprint(self, prototypes: Tensor) -> None:
        """As `Head.imprint`, scaled to a fair logit (see `_weight_of`); a bias is set to zero."""
        super().imprint(prototypes)
        if self.bias is not None:
            self.bias.zero_()


def _checked(s: float, m: float, limit: float) -> tuple[float, float]:
    if not s > 0 or not 0 <= m < limit:
        raise InvalidInput(f"scale s = {s} must be positive and margin m = {m} in [0, {limit:.4g})")
    return s, m


class Objective(Protocol):
    """`FR`: raw embeddings `(B, D)` of samples that are, or should pass as, the people `labels`."""

    @property
    def labelled(self) -> bool:
        """Whether identities are known; without them every image is its own class."""

    def __call__(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None, *, clean: bool) -> Tensor:
        """The mean loss, a scalar. `clean` marks source passes, the only ones that may move statistics."""

    def chance_loss(self) -> float:
        """The loss of a recogniser that tells nobody apart, in closed form."""

    def correct(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:
        """`(B,)` bool: who is recognised, without margin."""

    def prototypes(self) -> Tensor | None:
        """Unit prototypes `(C, D)` of the identities, or None where every image is its own class."""


class MarginObjective(nn.Module):
    """Cross-entropy of a head's logits over the identities (mean over the batch)."""

    labelled = True

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None, *, clean: bool) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(self.head(embeddings, labels, update=clean), labels)

    def chance_loss(self) -> float:
        return self.head.chance_loss()

    @torch.no_grad()
    def correct(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.head.cosines(embeddings).argmax(dim=1) == labels

    def prototypes(self) -> Tensor | None:
        return self.head.prototypes


class SelfReference(nn.Module):
    """Without labels every image is its own class: `mean(1 - cos(z, z_ref))` against a frozen copy's embedding."""

    labelled = False

    def forward(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None, *, clean: bool) -> Tensor:  # noqa: ARG002
        assert reference is not None, "training without labels needs a frozen reference"
        return (1 - (F.normalize(embeddings) * reference).sum(dim=1)).mean()

    def chance_loss(self) -> float:
        return 1.0  # unrelated directions have cosine 0

    @torch.no_grad()
    def correct(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:  # noqa: ARG002
        assert reference is not None
        nearest = (F.normalize(embeddings) @ reference.T).argmax(dim=1)
        return nearest == torch.arange(len(nearest), device=nearest.device)

    def prototypes(self) -> Tensor | None:
        return None
