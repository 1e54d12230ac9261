"""Activations that are computed anew on the way back in place of being kept: less memory for a third more time.

After Chen et al., "Training deep nets with sublinear memory cost" (2016): what lies within a block, or a stretch of a
graph, is forgotten once it is passed. Values and gradients are the same bitwise.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from steadface.errors import Unsupported
from steadface.training.networks import Network


def recomputing(network: Network) -> None:
    """Lets `network`, in place, keep nothing but what goes into each of its blocks.

    Raises Unsupported for a network in which no blocks are found: those are what follows each other in `nn.Sequential`
    or `nn.ModuleList`, and the stretches of a graph.
    """
    stretched = [part for part in network.modules() if hasattr(part, "stretches")]
    blocks = list(_blocks(network))
    for part in stretched:
        part.stretches = True  # type: ignore[assignment]
    for block in blocks:
        block.forward = partial(_again, block.forward)
    if not stretched and not blocks:
        raise Unsupported(
            f"{type(network).__name__} has no blocks of layers that follow each other, so that run.recompute would "
            "save nothing: leave it off, and take smaller parts of a batch (optimizer.accumulate)"
        )


def _again(forward: Any, *inputs: Tensor) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False)


def _blocks(part: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of sequences that have layers of their own."""
    for child in part.children():
        if isinstance(part, nn.Sequential | nn.ModuleList) and any(True for _ in child.children()):
            yield child
        else:
            yield from _blocks(child)
