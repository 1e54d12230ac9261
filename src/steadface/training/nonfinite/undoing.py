"""Putting back what a step moves before its update: statistics, the network that attacks, and the ramp."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steadface.attacks import GenerativeAttack

if TYPE_CHECKING:
    from steadface.training.step import Trainer


def statistics(trainer: "Trainer") -> list[Tensor]:
    """What passes alone move: the running statistics of BatchNorms and of the head."""
    modules = [part for part in (trainer.backbone, trainer.objective) if isinstance(part, nn.Module)]
    return [*(buffer for part in modules for buffer in part.buffers()), *trainer.batchnorm.state_dict().values()]


@contextmanager
def unmoved(tensors: Sequence[Tensor]) -> Iterator[None]:
    """They are afterwards as they were."""
    back = _copied(tensors)
    try:
        yield
    finally:
        back()


def undoing(trainer: "Trainer") -> Callable[[], None]:
    """What puts back all that an update of `trainer` moves before the weights."""
    attack, open_steps = trainer.attack, trainer.ramp.open_steps
    proposer = attack if isinstance(attack, GenerativeAttack) else None
    learnt = [] if proposer is None else [*proposer.network.parameters(), *proposer.network.buffers()]
    back = _copied([*statistics(trainer), *learnt])
    kept = None if proposer is None else copy.deepcopy(proposer.optimizer.state_dict())

    def undo() -> None:
        back()
        trainer.ramp.open_steps = open_steps
        if proposer is not None and kept is not None:
            proposer.optimizer.load_state_dict(kept)

    return undo


def _copied(tensors: Sequence[Tensor]) -> Callable[[], None]:
    kept = [value.detach().clone() for value in tensors]

    def back() -> None:
        for value, before in zip(tensors, kept, strict=True):
            value.data.copy_(before)  # `data`: a graph that holds them does not hear of it

    return back
