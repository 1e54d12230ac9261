"""The regulariser: a term from source, adversarial and target samples, added to the loss while the gate is open.

    R =        max(0, m + cos(z_a, q_t) - cos(z_a, sg z_s))        triplet
        + b *  (1 - cos(z_a, sg z_s))                              pull
        + c *  (1 - cos(z_t, sg z_s))                              pull of targets that are still the source person
        + n_a * (1 - cos(z_a, z_ref)) + n_s * (1 - cos(z_s, z_ref))   reference

Legend: `z` unit embeddings of source `s`, adversarial `a` and target `t` samples; `q_t` the point repelled;
`z_ref` the embedding of the source under a frozen copy, so that enrolled templates stay valid; `sg` stop-gradient.
Compare TLA (Mao et al., 2019), TRADES (Zhang et al., 2019), AGKD-BML (Wang et al., 2021) and FARE (Schlarmann et
al., 2024).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What a regulariser may use: unit embeddings `(B, D)`; None where a recipe makes no such samples.

    `source` and `adversarial` carry gradients, and so does `target` where `keeps_identity` says that the
    target samples are still the source people. `repel` and `reference` carry none.
    """

    source: Tensor
    adversarial: Tensor
    target: Tensor | None = None
    repel: Tensor | None = None
    reference: Tensor | None = None
    keeps_identity: bool = False


class Regularizer(Protocol):
    """Embeddings to a scalar; a function of the user's own fits as it is."""

    def __call__(self, embeddings: Embeddings, /) -> Tensor: ...


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise cosine `(B,)` of unit embeddings `(B, D)`."""
    return (a * b).sum(dim=1)


def triplet(e: Embeddings, *, margin: float) -> Tensor:
    """`mean max(0, m + cos(z_a, sg q_t) - cos(z_a, sg z_s))`.

    Zero at perfect invariance (`z_a = z_s`) wherever `cos(z_s, q_t) <= 1 - m`: a robust model is not punished.

    >>> z, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    >>> triplet(Embeddings(source=z, adversarial=z, repel=q), margin=0.2)  # 0.2 + 0.6 - 1 is below 0
    tensor(0.)
    >>> triplet(Embeddings(source=z, adversarial=q, repel=q), margin=0.2)
    tensor(0.6000)
    """
    assert e.repel is not None, "the triplet term needs target samples"
    apart = cosine(e.adversarial, e.repel.detach()) - cosine(e.adversarial, e.source.detach())
    return (margin + apart).clamp_min(0).mean()


def pull(samples: Tensor, home: Tensor) -> Tensor:
    """`mean (1 - cos(samples, sg home))`.

    >>> pull(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.4000)
    """
    return (1 - cosine(samples, home.detach())).mean()


@dataclass(frozen=True, kw_only=True)
class PullRepel:
    """The regulariser above with every term weighted; a term of weight 0 is not computed."""

    margin: float = 0.2
    triplet: float = 1.0
    pull: float = 1.0
    target_pull: float = 0.0
    reference_adversarial: float = 0.0
    reference_source: float = 0.0

    @property
    def uses_target(self) -> bool:
        """Whether target samples that keep their identity have to be embedded."""
        return self.target_pull > 0

    def __call__(self, e: Embeddings, /) -> Tensor:
        total = torch.zeros((), device=e.source.device)
        if self.triplet and e.repel is not None:
            total = total + self.triplet * triplet(e, margin=self.margin)
        if self.pull:
            total = total + self.pull * pull(e.adversarial, e.source)
        if self.target_pull and e.target is not None and e.keeps_identity:
            total = total + self.target_pull * pull(e.target, e.source)
        if e.reference is not None:
            if self.reference_adversarial:
                total = total + self.reference_adversarial * pull(e.adversarial, e.reference)
            if self.reference_source:
                total = total + self.reference_source * pull(e.source, e.reference)
        return total
