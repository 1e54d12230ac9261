"""The recognition loss over a head whose rows lie on several ranks.

Each rank has C' rows and all B embeddings, and computes (B, C') logits. Cross-entropy needs three numbers a sample of
the others: the largest logit, the sum of exponentials, and the true logit, which one rank has (Deng et al., ArcFace,
2019, section 3.4; An et al., "Partial FC: training 10 million identities on a single machine", 2021). Values and
gradients are those of the undivided head, up to the order of sums. With `DrawnRows` a step takes some rows alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steadface.ranks import Ranks

if TYPE_CHECKING:
    from steadface.heads.heads import Head


def sharded_cross_entropy(logits: Tensor, own: Tensor, places: Tensor, ranks: Ranks) -> Tensor:
    """Losses (B,) of all samples, the same on every rank, of this rank's `logits` (B, C').

    `own` (b,) are the samples whose true identity is among these rows, and `places` (b,) its columns. Going back, the
    gradient that arrives is taken to be the same on every rank.
    """
    return _CrossEntropy.apply(logits, own, places, ranks)  # type: ignore[no-untyped-call,no-any-return]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, own: Tensor, places: Tensor, ranks: Ranks) -> Tensor:
        rows = logits.shape[1]
        largest = logits.amax(dim=1) if rows else logits.new_full((len(logits),), -torch.inf)
        largest = ranks.maximum(largest)
        exponentials = (logits - largest[:, None]).exp_()
        true = logits.new_zeros(len(logits)).index_copy_(0, own, logits[own, places])
        total, true = ranks.sum(torch.stack([exponentials.sum(dim=1), true])).unbind()
        ctx.save_for_backward(exponentials.div_(total[:, None]), own, places)
        return total.log() + largest - true

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        shares, own, places = ctx.saved_tensors
        onward = shares * gradient[:, None]
        onward[own, places] -= gradient[own]
        return onward, None, None, None


def nearest_row(cosines: Tensor, numbers: Tensor, ranks: Ranks) -> Tensor:
    """The identity (B,) with the largest of all ranks' cosines (B, C'), of this rank's `numbers` (C',)."""
    own = len(numbers) > 0
    value, column = cosines.max(dim=1) if own else (cosines.new_full((len(cosines),), -torch.inf), None)
    largest = ranks.maximum(value)
    # Where several ranks have it, the first of them.
    number = torch.zeros_like(value, dtype=torch.long) if column is None else numbers[column]
    found: Tensor = -ranks.maximum(torch.where(value == largest, -number, torch.iinfo(torch.long).min))
    return found


@dataclass(frozen=True, kw_only=True)
class DrawnRows:
    """Lets a step compete with a share `rate` of a rank's rows (Partial FC: An et al., "Killing two birds with one
    stone", CVPR 2022, section 3.2).

    All identities of the batch are among them, and the others are drawn at random. Logits, gradients and what the
    optimiser keeps are those of the rows drawn; the others stay as they are. Between steps head and optimiser have all.
    """

    head: "Head"
    optimizer: torch.optim.Optimizer
    rate: float

    @contextmanager
    def __call__(self, labels: Tensor, generator: torch.Generator, ranks: Ranks) -> Iterator[None]:
        """Within, the head has rows for the people `labels` (of the whole batch) and some others. `generator`, the same
        on every rank, is drawn from once.
        """
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        chosen, head = self._chosen(labels, seed + ranks.rank), self.head
        whole = head.weight.data
        state = self.optimizer.state.get(head.weight, {})
        kept = {
            name: value for name, value in state.items() if isinstance(value, Tensor) and value.shape == whole.shape
        }
        head.weight.data, head.drawn, head.undrawn = whole[chosen], chosen, whole
        state.update({name: value[chosen] for name, value in kept.items()})
        try:
            yield
        finally:
            part, state = head.weight.data, self.optimizer.state.get(head.weight, {})
            whole[chosen] = part
            head.weight.data, head.drawn, head.undrawn = whole, None, None
            for name, value in list(state.items()):
                if isinstance(value, Tensor) and value.shape == part.shape:
                    # Of rows that were never drawn before there is nothing yet.
                    state[name] = kept.get(name, torch.zeros_like(whole)).index_copy_(0, chosen, value)

    def _chosen(self, labels: Tensor, seed: int) -> Tensor:
        places = torch.unique(self.head.places(labels)[1])
        rows = len(self.head.weight)
        generator = torch.Generator(self.head.weight.device).manual_seed(seed)
        order = torch.rand(rows, generator=generator, device=self.head.weight.device)
        order[places] = 2.0
        return order.topk(max(len(places), round(self.rate * rows))).indices.sort().values
