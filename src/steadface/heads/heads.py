"""Recognition heads, and FR, the recognition loss: what it means to recognise, with identity labels or without.

A head takes embeddings and identity labels to logits, whose cross-entropy is the recognition loss. Legend: B faces,
C identities, D embedding size; s scale; m margin (`margins` holds the mathematics). Where several ranks train together
each has some rows of the head, C' of C, and the loss over all of them is that of `sharded`.
"""

import math
from abc import ABC, abstractmethod
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.errors import InvalidInput
from steadface.heads.margins import adaface, arcface, at_least_float32, cosface, margin_chance_loss
from steadface.heads.sharded import nearest_row, sharded_cross_entropy
from steadface.ranks import ALONE, Ranks


class Head(nn.Module, ABC):
    """Weight rows (C, D), one direction an identity, and the logits they give; of a shard those of `rows` alone.

    Cosines and margins are computed in float32 at least, also under autocast: at s = 64 the 8 bits of bf16 would move
    a logit by a quarter.
    """

    s = 1.0
    rate = 1.0
    """Which share of the identities compete for a sample, where not all do."""
    drawn: Tensor | None = None
    """Which of its rows `(k,)`, ascending, it has for now in place of all of them, `undrawn` (`sharded.DrawnRows`)."""
    undrawn: Tensor | None = None

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        *,
        generator: torch.Generator | None = None,
        rows: slice | None = None,
    ) -> None:
        """Rows drawn from a normal of standard deviation 0.01 by `generator` (None: torch's global one): the same
        numbers whichever `rows` are kept.
        """
        super().__init__()
        if classes < 2:
            raise InvalidInput(f"a head needs at least 2 identities to tell apart, not {classes}; add people")
        self.classes = classes
        self.rows = slice(0, classes) if rows is None else rows
        self.weight = nn.Parameter(_drawn_rows(classes, embedding_size, self.rows, generator))

    @property
    def prototypes(self) -> Tensor:
        """(C', D) unit vectors, the direction that stands for each identity; no gradient."""
        return F.normalize(at_least_float32(self.weight.detach() if self.undrawn is None else self.undrawn))

    @property
    def numbers(self) -> Tensor:
        """The identities (C',) whose logits it gives."""
        own = torch.arange(self.rows.start, self.rows.stop, device=self.weight.device)
        return own if self.drawn is None else own[self.drawn]

    @property
    def competing(self) -> int:
        """How many identities compete for a sample."""
        return max(2, round(self.rate * self.classes))

    def forward(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:
        """Logits (B, C') of raw `embeddings` (B, D) and `labels` (B,) in 0..C-1.

        A head that keeps statistics of the embeddings changes them only in training mode and where `update`: pass
        False for anything but clean training samples.
        """
        plain, quality = self.plain(embeddings), self.quality(embeddings, update=update)
        if plain.shape[1] == self.classes:
            return self.with_margin(plain, labels, quality)
        own, places = self.places(labels)
        mine = self.with_margin(plain[own], places, None if quality is None else quality[own])
        return (self.s * plain).index_copy_(0, own, mine)

    def places(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Which of `labels` (B,) are of these rows `(b,)`, and the columns of their logits."""
        own = ((labels >= self.rows.start) & (labels < self.rows.stop)).nonzero().squeeze(1)
        places = labels[own] - self.rows.start
        return own, places if self.drawn is None else torch.searchsorted(self.drawn, places)

    def plain(self, embeddings: Tensor) -> Tensor:
        """(B, C') logits without margin or scale."""
        return self.cosines(embeddings)

    def quality(self, embeddings: Tensor, *, update: bool) -> Tensor | None:  # noqa: ARG002
        """(B,) what the margin depends on beside the cosine, where it does."""
        return None

    def with_margin(self, plain: Tensor, places: Tensor, quality: Tensor | None) -> Tensor:  # noqa: ARG002
        """Logits (B, C') of `plain` ones, with the margin, where the head has one, at the columns `places` (B,)."""
        return self.s * plain

    def __call__(self, embeddings: Tensor, labels: Tensor, *, update: bool = True) -> Tensor:
        return cast(Tensor, super().__call__(embeddings, labels, update=update))

    @abstractmethod
    def chance_loss(self) -> float:
        """Closed-form mean cross-entropy where no embedding resembles any identity: all cosines 0."""

    def cosines(self, embeddings: Tensor) -> Tensor:
        """(B, C') cosines between `embeddings` (B, D) and all identities, without margin or scale; differentiable."""
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
        """Take over `prototypes` (C', D), for instance the mean embedding of each person, as the weight.

        Raises InvalidInput for another shape, and where a row has no direction.
        """
        if prototypes.shape != self.weight.shape:
            raise InvalidInput(
                f"prototypes of shape {tuple(prototypes.shape)} do not fit a head of shape {tuple(self.weight.shape)}"
            )
        norms = torch.linalg.vector_norm(at_least_float32(prototypes), dim=1)
        unusable = ~(torch.isfinite(norms) & (norms > 0))
        if bool(unusable.any()):
            row = self.rows.start + int(unusable.nonzero()[0])
            length = float(norms[unusable][0])
            raise InvalidInput(f"prototype {row} has length {length}: give every identity a usable face")
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
        rows: slice | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator, rows=rows)
        self.s, self.m = _checked(s, m, math.pi / 2)

    def with_margin(self, plain: Tensor, places: Tensor, quality: Tensor | None) -> Tensor:  # noqa: ARG002
        return arcface(plain, places, s=self.s, m=self.m)

    def chance_loss(self) -> float:
        """log(1 + (C - 1) exp(s sin m)): at a right angle the true logit is s cos(pi/2 + m) = -s sin m."""
        return margin_chance_loss(self.competing, target=-self.s * math.sin(self.m))


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
        rows: slice | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator, rows=rows)
        self.s, self.m = _checked(s, m, 1.0)

    def with_margin(self, plain: Tensor, places: Tensor, quality: Tensor | None) -> Tensor:  # noqa: ARG002
        return cosface(plain, places, s=self.s, m=self.m)

    def chance_loss(self) -> float:
        """log(1 + (C - 1) exp(s m))."""
        return margin_chance_loss(self.competing, target=-self.s * self.m)


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
        rows: slice | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator, rows=rows)
        self.s, self.m = _checked(s, m, 1.0)
        self.h, self.momentum = h, momentum
        # The authors' starting values: wide enough for every face to count as average until statistics have come in.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def quality(self, embeddings: Tensor, *, update: bool) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            norms = torch.linalg.vector_norm(at_least_float32(embeddings.detach()), dim=1).clamp(1e-3, 100.0)
            if update and self.training:
                self.update_statistics(norms)
            quality: Tensor = ((norms - self.norm_mean) / (self.norm_std + 1e-3) * self.h).clamp(-1.0, 1.0)
            return quality

    def with_margin(self, plain: Tensor, places: Tensor, quality: Tensor | None) -> Tensor:
        assert quality is not None
        return adaface(plain, places, quality, s=self.s, m=self.m)

    @torch.no_grad()
    def update_statistics(self, norms: Tensor) -> None:
        """Move the averages towards the mean and deviation of `norms` (B,); a single norm has no deviation."""
        if norms.numel() < 2:
            return
        self.norm_mean.lerp_(norms.mean().to(self.norm_mean.dtype), self.momentum)
        self.norm_std.lerp_(norms.std().to(self.norm_std.dtype), self.momentum)

    def chance_loss(self) -> float:
        """log(1 + (C - 1) exp(s m)), CosFace's: exact at the average norm, an approximation over a spread of them."""
        return margin_chance_loss(self.competing, target=-self.s * self.m)


class Softmax(Head):
    """Plain linear softmax on raw embeddings: logits = embeddings @ weight.T (+ bias). No margin, no scale."""

    def __init__(
        self,
        classes: int,
        embedding_size: int,
        *,
        bias: bool = False,
        generator: torch.Generator | None = None,
        rows: slice | None = None,
    ) -> None:
        super().__init__(classes, embedding_size, generator=generator, rows=rows)
        self.bias = nn.Parameter(torch.zeros(len(self.weight))) if bias else None

    def plain(self, embeddings: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            bias = None if self.bias is None else at_least_float32(self.bias)
            return F.linear(at_least_float32(embeddings), at_least_float32(self.weight), bias)

    def with_margin(self, plain: Tensor, places: Tensor, quality: Tensor | None) -> Tensor:  # noqa: ARG002
        return plain

    def chance_loss(self) -> float:
        """log C: equal logits."""
        return math.log(self.competing)

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


BLOCK = 1 << 16
"""Rows drawn at a time where a shard keeps some of them. A multiple of 16, as torch's normal draws come: in blocks they
are then those of one draw, for embeddings of 16 numbers or more."""


def _drawn_rows(classes: int, embedding_size: int, rows: slice, generator: torch.Generator | None) -> Tensor:
    def drawn(count: int) -> Tensor:
        return torch.empty(count, embedding_size).normal_(0.0, 0.01, generator=generator)

    if rows == slice(0, classes):
        return drawn(classes)
    kept = torch.empty(rows.stop - rows.start, embedding_size)
    for first in range(0, classes, BLOCK):
        last = min(first + BLOCK, classes)
        block = drawn(last - first)
        low, high = max(first, rows.start), min(last, rows.stop)
        if low < high:
            kept[low - rows.start : high - rows.start] = block[low - first : high - first]
    return kept


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
    """Cross-entropy of a head's logits over the identities (mean over the batch).

    Where several `ranks` train together, each with rows of the head and samples of the batch, what is returned is this
    rank's share of that mean: shares, and the gradients of each, add up over the ranks to those of the whole.
    """

    labelled = True

    def __init__(self, head: Head, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.head = head
        self.ranks = ranks

    def forward(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None, *, clean: bool) -> Tensor:  # noqa: ARG002
        if self.ranks.alone and self.head.drawn is None:
            return F.cross_entropy(self.head(embeddings, labels, update=clean), labels)
        (whole, known), own = self.ranks.together(embeddings, labels)
        losses = sharded_cross_entropy(self.head(whole, known, update=clean), *self.head.places(known), self.ranks)
        mean, share = losses.mean(), losses.detach()[own].sum() / len(known)
        # The value is this rank's, and the gradient that of all samples through this rank's rows.
        return mean - mean.detach() + share

    @torch.no_grad()
    def losses(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:  # noqa: ARG002
        """`(B,)` of each sample, of which `forward` is the mean; nothing moves statistics."""
        (whole, known), own = self.ranks.together(embeddings, labels)
        logits = self.head(whole, known, update=False)
        return sharded_cross_entropy(logits, *self.head.places(known), self.ranks)[own]

    def chance_loss(self) -> float:
        return self.head.chance_loss()

    @torch.no_grad()
    def correct(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.ranks.alone and self.head.drawn is None:
            return self.head.cosines(embeddings).argmax(dim=1) == labels
        (whole, known), own = self.ranks.together(embeddings, labels)
        return (nearest_row(self.head.cosines(whole), self.head.numbers, self.ranks) == known)[own]

    def prototypes(self) -> Tensor | None:
        return self.ranks.gather_rows(self.head.prototypes, self.head.classes)


class SelfReference(nn.Module):
    """Without labels every image is its own class: `mean(1 - cos(z, z_ref))` against a frozen copy's embedding."""

    labelled = False

    def __init__(self, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.ranks = ranks

    def forward(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None, *, clean: bool) -> Tensor:  # noqa: ARG002
        assert reference is not None, "training without labels needs a frozen reference"
        return (1 - (F.normalize(embeddings) * reference).sum(dim=1)).mean() * self.ranks.share(len(embeddings))

    @torch.no_grad()
    def losses(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:  # noqa: ARG002
        """`(B,)` of each sample, of which `forward` is the mean."""
        assert reference is not None
        return 1 - (F.normalize(embeddings) * reference).sum(dim=1)

    def chance_loss(self) -> float:
        return 1.0  # unrelated directions have cosine 0

    @torch.no_grad()
    def correct(self, embeddings: Tensor, labels: Tensor, reference: Tensor | None) -> Tensor:  # noqa: ARG002
        assert reference is not None
        (whole,), own = self.ranks.together(reference)
        nearest = (F.normalize(embeddings) @ whole.T).argmax(dim=1)
        return nearest == torch.arange(own.start, own.stop, device=nearest.device)

    def prototypes(self) -> Tensor | None:
        return None
