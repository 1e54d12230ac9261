"""What a backbone has and keeps, counted layer by layer on the network itself, without its numbers.

Autograd is asked what it saves for the way back, in a pass over tensors that have a shape, a type and nothing behind
them. So the count follows the network, and what mixed precision makes of it, and knows no layer by name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from steadface.backbones import Architecture
from steadface.backbones.architecture import with_storage
from steadface.training.planning.workload import Precision
from steadface.training.recompute import blocks_of

FACES = 65_537
"""In the pass: a prime above any number of channels, so that it divides the size of just what grows with the batch."""


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """`fixed + faces * per_face`."""

    fixed: int = 0
    per_face: int = 0

    def __add__(self, other: "Bytes") -> "Bytes":
        return Bytes(fixed=self.fixed + other.fixed, per_face=self.per_face + other.per_face)

    def of(self, faces: int) -> int:
        return self.fixed + faces * self.per_face


@dataclass(frozen=True, kw_only=True)
class Network:
    """A backbone's numbers: weights, those of them that learn, and buffers; and what one training pass keeps.

    `whole` is all of that; `inputs` are what goes into the blocks, `blocks` what each of them keeps beside, `outside`
    what is kept by no block, and `largest` is the largest single map.
    """

    weights: int
    learning: int
    buffers: int
    whole: Bytes
    outside: Bytes
    inputs: Bytes
    blocks: tuple[Bytes, ...]
    largest: Bytes

    def kept(self, faces: int, *, passes: int = 1, recompute: bool = False) -> int:
        """Bytes that the layers keep; with `recompute` the blocks' inputs and, one after the other, what is within."""
        if not recompute:
            return passes * self.whole.of(faces)
        within = max((block.of(faces) for block in self.blocks), default=0)
        return passes * (self.outside + self.inputs).of(faces) + within

    def passing(self, faces: int, *, recompute: bool = False) -> int:
        """Bytes of gradients on their way through a layer; two maps where the layers before it are computed anew."""
        return (2 if recompute else 1) * self.largest.of(faces)


def traced(architecture: Architecture, precision: Precision = "fp32") -> Network:
    """The network of `architecture`, counted; raises InvalidInput where it is too large to be built."""
    network = architecture.skeleton().train()
    parameters = list(network.parameters())
    kept = _Kept(blocks=list(blocks_of(network)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        with_storage(network)
        kept.own = {_number(value) for value in (*network.parameters(), *network.buffers())}
        images = torch.empty(FACES, 3, *architecture.image_size)
        # Sizes are those of fp16 too.
        half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "fp32")
        with kept.watched(), half, torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda value: value):
            network(images)
    inputs = set(kept.inputs)
    return Network(
        weights=sum(value.numel() for value in parameters),
        learning=sum(value.numel() for value in parameters if value.requires_grad),
        buffers=sum(value.numel() for value in network.buffers()),
        whole=sum((size for size, _ in kept.found.values()), Bytes()),
        outside=kept.total(None, inputs),
        inputs=sum(kept.inputs.values(), Bytes()),
        blocks=tuple(kept.total(place, inputs) for place in range(len(kept.blocks))),
        largest=max((size for size, _ in kept.found.values()), key=lambda size: size.per_face, default=Bytes()),
    )


@dataclass(kw_only=True)
class _Kept:
    """What has been kept so far: storage -> its size and the block that it was first kept in."""

    blocks: list[nn.Module]
    own: set[int] = field(default_factory=set)
    found: dict[int, tuple[Bytes, int | None]] = field(default_factory=dict)
    inputs: dict[int, Bytes] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)
    within: int | None = None

    def keep(self, value: Tensor) -> Tensor:
        number = _number(value)
        if number not in self.own and number not in self.found:
            self.found[number] = (_size(value), self.within)
            self.alive.append(value)  # or another might get its number
        return value

    def total(self, place: int | None, without: set[int]) -> Bytes:
        sizes = (size for number, (size, at) in self.found.items() if at == place and number not in without)
        return sum(sizes, Bytes())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within, the block that computes is known, and what went into it."""
        hooks = [block.register_forward_pre_hook(self._entering(place)) for place, block in enumerate(self.blocks)]
        hooks += [block.register_forward_hook(self._left) for block in self.blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _entering(self, place: int) -> Callable[[nn.Module, Any], None]:
        def entering(_: nn.Module, given: Any) -> None:
            self.within = place
            self.inputs[_number(given[0])] = _size(given[0])
            self.alive.append(given[0])

        return entering

    def _left(self, *_: Any) -> None:
        self.within = None


def _number(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def _size(value: Tensor) -> Bytes:
    size = value.untyped_storage().nbytes()
    return Bytes(per_face=size // FACES) if size % FACES == 0 else Bytes(fixed=size)
