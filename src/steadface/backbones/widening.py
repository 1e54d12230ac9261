"""A wider network that computes what a narrower one does: Net2WiderNet (Chen et al., "Net2Net: Accelerating Learning
via Knowledge Transfer", ICLR 2016, section 2.2), for every layer at once.

Every channel becomes k copies that lie side by side. What makes a channel is repeated; what reads one is spread over
its copies:

    W'[k o + r, k i + s] = W[o, i] a[o, r, i, s]        sum over s of a = 1

The paper breaks the symmetry of the copies by noise on their weights. Here only the shares `a` differ, so that the
function stays the same, and the copies still part, since what reads them weighs them differently.
"""

import torch
from torch import Tensor

from steadface.backbones.architecture import Architecture, with_storage
from steadface.backbones.base import Backbone
from steadface.errors import Unsupported

SPREAD = 0.25
"""Standard deviation of the shares, times their mean."""


def widened(backbone: Backbone, factor: int, generator: torch.Generator | None = None) -> Backbone:
    """`backbone` with the option `width` of its architecture times `factor`, in evaluation mode: the same embeddings,
    up to rounding. Which parts of a network widen with it is the architecture's matter.

    Raises Unsupported for an architecture without a width, and where its layers do not grow by whole factors.
    """
    architecture = backbone.architecture
    assert isinstance(architecture, Architecture)
    if factor < 2 or "width" not in architecture.options:
        raise Unsupported(f"{architecture.name} cannot be widened {factor} times; give a factor of 2 or more")
    wide = Architecture(**{**architecture.model_dump(), "width": factor * architecture.options["width"]})
    skeleton, state, channels = wide.skeleton(), {}, 0
    old = backbone.state_dict()
    for name, like in skeleton.state_dict().items():
        value = old[name]
        state[name] = _grown(name, value, like.shape, channels, generator)
        channels = len(value) if value.ndim == 1 else channels  # of the map that the next layer reads
    return with_storage(skeleton, state).eval()


def _grown(name: str, value: Tensor, shape: torch.Size, channels: int, generator: torch.Generator | None) -> Tensor:
    if any(new % old for new, old in zip(shape, value.shape, strict=True)) or value.shape[2:] != shape[2:]:
        raise Unsupported(f"{name} grows from {tuple(value.shape)} to {tuple(shape)}, which is no whole factor")
    if not value.ndim:
        return value
    value = value.repeat_interleave(shape[0] // len(value), 0)
    if value.shape == shape:
        return value
    copies = shape[1] // value.shape[1]
    # What a linear layer reads may be a flattened map: of each channel all places, and only then the next channel.
    places = max(1, value.shape[1] // channels) if value.ndim == 2 else 1
    read = value.view(len(value), -1, 1, places, *value.shape[2:])
    parts = read.expand(-1, -1, copies, *[-1] * (value.ndim - 1))
    shares = torch.randn(parts.shape[:3], generator=generator) * SPREAD
    shares = (1 + shares - shares.mean(2, keepdim=True)) / copies
    grown: Tensor = (parts * shares.view(*shares.shape, *[1] * (parts.ndim - 3))).flatten(1, 3)
    return grown
