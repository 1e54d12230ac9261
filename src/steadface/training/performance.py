"""Performance values: how well the recogniser does on the batch it was just trained on. Higher is better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from steadface.heads.heads import Objective
from steadface.ranks import ALONE, Ranks


@dataclass(frozen=True, kw_only=True)
class SourcePass:
    """The forward pass that made the source update: its mean loss over the whole effective batch, and what it saw.

    `embeddings` `(B, D)` are raw and detached, `labels` `(B,)`, `reference` `(B, D)` or None.
    """

    loss: float
    embeddings: Tensor
    labels: Tensor
    reference: Tensor | None = None


class Performance(Protocol):
    """A source pass to one number, higher is better."""

    def __call__(self, source: SourcePass, /) -> float: ...


def negative_loss(source: SourcePass, /) -> float:
    """`-l`: the gate's literal measure."""
    return -source.loss


@dataclass(frozen=True)
class BatchAccuracy:
    """The share of the source batch that is recognised, without margin."""

    objective: Objective
    ranks: Ranks = ALONE

    def __call__(self, source: SourcePass, /) -> float:
        found = self.objective.correct(source.embeddings, source.labels, source.reference)
        if self.ranks.alone:
            return float(found.float().mean())
        right, samples = self.ranks.sums([float(found.sum()), len(found)])
        return right / samples


@dataclass
class HeldOutVerification:
    """The verification rate on people held out, measured every `every` batches and kept in between."""

    measure: Callable[[], float]
    every: int
    judged: int = 0
    value: float = 0.0

    def __call__(self, source: SourcePass, /) -> float:  # noqa: ARG002 - other people are looked at
        if self.judged % self.every == 0:
            self.value = self.measure()
        self.judged += 1
        return self.value
