"""Activations that are computed anew on the way back in place of being kept: less memory for a third more time.

After Chen et al., "Training deep nets with sublinear memory cost" (2016): what lies within a block, or a stretch of a
graph, is forgotten once it is passed. Values, gradients and the statistics of BatchNorms are the same bitwise.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from steadface.errors import Unsupported
from steadface.training.networks import Network


def recomputing(network: Network) -> None:
    """Lets `network`, in place, keep nothing but what goes into each of its blocks.

    Raises Unsupported for a network in which no blocks are found: those are what follows each other in `nn.Sequential`
    or `nn.ModuleList`, and the stretches of a graph.
    """
    stretched = [part for part in network.modules() if hasattr(part, "stretches")]
    blocks = list(blocks_of(network))
    for part in stretched:
        part.stretches = True  # type: ignore[assignment]
    for block in blocks:
        block.forward = partial(
            _again, block.forward, [part for part in block.modules() if isinstance(part, _BatchNorm)]
        )
    if not stretched and not blocks:
        raise Unsupported(
            f"{type(network).__name__} has no blocks of layers that follow each other, so that run.recompute would "
            "save nothing: leave it off, and take smaller parts of a batch (optimizer.accumulate)"
        )


def _again(forward: Any, norms: list[_BatchNorm], *inputs: Tensor) -> Any:
    modes = [norm.training for norm in norms]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _once_more(norms, modes)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _once_more(norms: list[_BatchNorm], modes: list[bool]) -> Iterator[None]:
    """Within, BatchNorms normalise as they did in these `modes`, and what has moved their statistics does not again.

    By the time of the way back the passes of `batchnorm.BatchNormPasses` are over, and with them their modes.
    """
    before = [(norm.training, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, mode in zip(norms, modes, strict=True):
        counted = norm.num_batches_tracked
        norm.training, norm.momentum = mode, 0.0
        norm.num_batches_tracked = None if counted is None else counted.clone()
    try:
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm.training, norm.momentum, norm.num_batches_tracked = own


def blocks_of(part: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of sequences that have layers of their own."""
    for child in part.children():
        if isinstance(part, nn.Sequential | nn.ModuleList) and any(True for _ in child.children()):
            yield child
        else:
            yield from blocks_of(child)
