"""FR, the recognition loss: what it means to recognise, with identity labels or without."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.heads.heads import Head


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
