"""Target samples: constructed on the source samples, they carry a designated class that is never the source's own.

Two families. *Another person's face* (`OtherFace`): a face of class `y_t`, or a blend that it dominates; the point
repelled is that sample's own embedding `q_t = sg z_t`. *Constructed on the source itself* (`PerturbedSource`,
`KeptBlend`): the sample is still the source person, so the regulariser pulls it home and repels the prototype
`q_t = sg p_t` of the designated class; repelling `z_t` would punish a model for being robust.

Legend: `y_t` designated labels `(B,)`, `x_t` target samples `(B, 3, H, W)`, `z_s` unit source embeddings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks import Attack
from steadface.attacks.draws import choice
from steadface.errors import InvalidInput

Faces = Callable[[Tensor, torch.Generator], Tensor]
"""Labels `(B,)` to one face of each, `(B, 3, H, W)`: where a designated person need not be in the batch."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source batch as crafting sees it; `embed` runs in evaluation mode and is differentiable in the images.

    `embeddings` are unit `z_s` `(B, D)` without gradient; `prototypes` unit `(C, D)` of all identities, or
    None where every image is its own class, or where the targets do not use them. `ramp` scales the radius of whatever
    is perturbed in this step. Where several ranks share the batch these are the samples of one, `batch` has everybody's
    embeddings and labels, and `gather` makes everybody's images of one's own.
    """

    images: Tensor
    labels: Tensor
    embeddings: Tensor
    embed: Callable[[Tensor], Tensor]
    prototypes: Tensor | None = None
    ramp: float = 1.0
    batch: "Candidates | None" = None
    gather: Callable[[Tensor], Tensor] = lambda images: images


@dataclass(frozen=True, kw_only=True)
class Targets:
    """`x_t`, `y_t` (never `y_s`), the unit points repelled `q_t` `(B, D)`, and who `x_t` still shows.

    `x_t` is None where it is a face of the batch whose embedding is known: nobody looks at it again.
    """

    images: Tensor | None
    labels: Tensor
    repel: Tensor
    keeps_identity: bool


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Whom a sample may be designated: unit embeddings `(M, D)` and their labels `(M,)`."""

    embeddings: Tensor
    labels: Tensor


class Designation(Protocol):
    """Source and candidates to designated labels `y_t` `(B,)`."""

    def __call__(self, source: Source, candidates: Candidates, generator: torch.Generator) -> Tensor: ...


class TargetSampler(Protocol):
    """Source samples to target samples. One that never asks for `Source.prototypes` may say so by a false
    `uses_prototypes`.
    """

    def __call__(self, source: Source, generator: torch.Generator) -> Targets: ...


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The most similar other identity, skipping likely same-person labels.

    Real sets carry a few per cent of wrong labels: the nearest "other" is often the same person. So a label is skipped
    once any of its candidates has a cosine above `same_person`. Where every other label is that close (an untrained
    network), the least similar candidate is taken.
    """

    same_person: float = 0.6

    def __call__(self, source: Source, candidates: Candidates, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        similarity = source.embeddings @ candidates.embeddings.T
        other = _others(source, candidates)
        trusted = other & ~_any_of_label(similarity > self.same_person, candidates.labels)
        nearest = similarity.masked_fill(~trusted, -torch.inf).argmax(dim=1)
        farthest = similarity.masked_fill(~other, torch.inf).argmin(dim=1)
        return candidates.labels[torch.where(trusted.any(dim=1), nearest, farthest)]


@dataclass(frozen=True)
class RandomOther:
    """Another identity, drawn uniformly from the candidates."""

    def __call__(self, source: Source, candidates: Candidates, generator: torch.Generator) -> Tensor:
        return candidates.labels[choice(_others(source, candidates), generator)]


@dataclass(frozen=True)
class Mapped:
    """A map that the user gives: `labels[y_s]` is `y_t`, `(C,)`."""

    labels: Tensor

    def __post_init__(self) -> None:
        own = (self.labels == torch.arange(len(self.labels))).nonzero().flatten().tolist()
        if own:
            raise InvalidInput(
                f"the target map designates {len(own)} identities as their own target (first: {own[0]}); "
                "map each to another identity"
            )

    def __call__(self, source: Source, candidates: Candidates, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        return self.labels.to(source.labels.device)[source.labels]


@dataclass(frozen=True, kw_only=True)
class OtherFace:
    """A face of class `y_t` (`share` 1, free from the batch), or a blend that it dominates (`share` > 0.5).

    `faces` brings designated people who are not in the batch; without it they are chosen from the batch.
    """

    designate: Designation
    share: float = 1.0
    faces: Faces | None = None

    def __post_init__(self) -> None:
        if not 0.5 < self.share <= 1:
            raise InvalidInput(f"targets.share {self.share}: the designated face must dominate, so 0.5 < share <= 1")

    def __call__(self, source: Source, generator: torch.Generator) -> Targets:
        if self.faces is None and self.share == 1:
            labels, chosen = _designated_in_batch(source, self.designate, generator)
            return Targets(images=None, labels=labels, repel=_batch(source).embeddings[chosen], keeps_identity=False)
        labels, images = _designated_faces(source, self.designate, self.faces, generator)
        images = self.share * images + (1 - self.share) * source.images if self.share < 1 else images
        with torch.no_grad():
            repel = F.normalize(source.embed(images))
        return Targets(images=images, labels=labels, repel=repel, keeps_identity=False)

    @property
    def uses_prototypes(self) -> bool:
        return self.faces is not None


@dataclass(frozen=True, kw_only=True)
class KeptBlend:
    """A blend with a face of class `y_t` that keeps the source's identity (`share` of the other < 0.5)."""

    designate: Designation
    share: float = 0.3
    faces: Faces | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 0.5:
            raise InvalidInput(f"targets.share {self.share}: the source must dominate, so 0 < share < 0.5")

    def __call__(self, source: Source, generator: torch.Generator) -> Targets:
        labels, images = _designated_faces(source, self.designate, self.faces, generator)
        images = self.share * images + (1 - self.share) * source.images
        return Targets(images=images, labels=labels, repel=_points(source, labels), keeps_identity=True)


@dataclass(frozen=True, kw_only=True)
class PerturbedSource:
    """`x_s` perturbed inside its ball by `attack` until the head takes it for `y_t`.

    An attack that keeps its best iterate stops each sample at its first success.
    """

    designate: Designation
    attack: Attack

    def __call__(self, source: Source, generator: torch.Generator) -> Targets:
        candidates = _identities(source)
        labels = self.designate(source, candidates, generator)
        _check_known(labels, candidates.labels)
        wanted = (labels[:, None] == candidates.labels).to(torch.uint8).argmax(dim=1)
        score = TakenFor(embed=source.embed, prototypes=candidates.embeddings, wanted=wanted)
        attack = self.attack.within(self.attack.ball.scaled(source.ramp))
        images = attack(score, source.images, generator=generator)
        return Targets(images=images, labels=labels, repel=candidates.embeddings[wanted], keeps_identity=True)


@dataclass(frozen=True, kw_only=True)
class TakenFor:
    """`cos(z, p_t) - max_{c != t} cos(z, p_c)`: positive once the head takes the sample for `y_t`."""

    embed: Callable[[Tensor], Tensor]
    prototypes: Tensor
    wanted: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        cosines = F.normalize(self.embed(images)) @ self.prototypes.T
        target = cosines.gather(1, self.wanted[:, None])
        rival = cosines.scatter(1, self.wanted[:, None], -torch.inf).amax(dim=1)
        return target.squeeze(1) - rival

    def take(self, indices: Tensor) -> "TakenFor":
        return TakenFor(embed=self.embed, prototypes=self.prototypes, wanted=self.wanted[indices])

    def succeeded(self, values: Tensor) -> Tensor:
        return values > 0


def _any_of_label(hits: Tensor, labels: Tensor) -> Tensor:
    """`hits` `(B, M)` spread over labels `(M,)`: true wherever any candidate of the same label is hit."""
    known, column = torch.unique(labels, return_inverse=True)
    per_label = torch.zeros(len(hits), len(known), device=hits.device).index_add_(1, column, hits.float())
    return per_label[:, column] > 0


def _check_known(labels: Tensor, known: Tensor) -> None:
    absent = labels[~torch.isin(labels, known)]
    if len(absent):
        raise InvalidInput(
            f"{len(absent)} samples are designated people of whom nothing is at hand (first: label {int(absent[0])}); "
            "train with a head over the identities, or designate nearest or random people of the batch"
        )


def _others(source: Source, candidates: Candidates) -> Tensor:
    other = source.labels[:, None] != candidates.labels[None]
    if not bool(other.any(dim=1).all()):
        raise InvalidInput(
            "a batch holds a single identity, so no other can be designated: raise data.batch or use balanced sampling"
        )
    return other


def _batch(source: Source) -> Candidates:
    return source.batch or Candidates(embeddings=source.embeddings, labels=source.labels)


def _identities(source: Source) -> Candidates:
    if source.prototypes is None:
        return _batch(source)
    return Candidates(
        embeddings=source.prototypes, labels=torch.arange(len(source.prototypes), device=source.labels.device)
    )


def _points(source: Source, labels: Tensor) -> Tensor:
    """The prototypes of `labels`: head weights, or the mean clean embedding of each in the batch."""
    if source.prototypes is not None:
        return source.prototypes[labels]
    batch = _batch(source)
    _check_known(labels, batch.labels)
    same = (labels[:, None] == batch.labels[None]).to(batch.embeddings.dtype)
    return F.normalize(same @ batch.embeddings)


def _designated_faces(
    source: Source, designate: Designation, faces: Faces | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`y_t`, and a face of each."""
    if faces is not None:
        labels = designate(source, _identities(source), generator)
        return labels, faces(labels, generator)
    labels, chosen = _designated_in_batch(source, designate, generator)
    return labels, source.gather(source.images)[chosen]


def _designated_in_batch(source: Source, designate: Designation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`y_t`, and where in the batch a face of each is."""
    batch = _batch(source)
    labels = designate(source, batch, generator)
    _check_known(labels, batch.labels)
    # Of the several faces of y_t in a batch, the one most like the source: nearest designation found it so.
    alike = (source.embeddings @ batch.embeddings.T).masked_fill(labels[:, None] != batch.labels[None], -torch.inf)
    return labels, alike.argmax(dim=1)
