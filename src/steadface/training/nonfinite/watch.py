"""What the layers of a network give, sample by sample, while it embeds them and on the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steadface.training.nonfinite.diagnosis import Origin, Place

CLEAN, ADVERSARIAL, TARGET = "clean image", "adversarial image", "target"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a pass gave at one place: which samples' numbers are not finite `(B,)`, and the largest of each `(B,)`."""

    origin: Origin
    bad: Tensor
    largest: Tensor


@dataclass
class Watch:
    """What is seen of `network` while it embeds `count` samples, forth and back, in the order of computation."""

    network: nn.Module
    count: int
    forth: list[Seen] = field(default_factory=list)
    back: list[Seen] = field(default_factory=list)
    _newest: Tensor | None = None

    @contextmanager
    def over(self, images: str) -> Iterator[None]:
        """Within, passes are those of `images`."""
        handles = [
            part.register_forward_hook(partial(self._look, images, name)) for name, part in self.network.named_modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self, place: Place, images: str, value: Tensor | None, name: str = "") -> None:
        """What goes into a pass, or comes of its embeddings."""
        if value is not None:
            self.forth += self._seen(place, images, name, value)

    def _look(self, images: str, name: str, part: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
            return
        if output is self._newest:  # what a layer within has given already
            return
        self._newest = output
        buffers = () if part.training else part.named_buffers(recurse=False)
        spoilt = tuple(buffer for buffer, kept in buffers if not_finite(kept))
        self.forth += self._seen("layer", images, name, output, spoilt)
        if output.requires_grad:
            output.register_hook(partial(self._look_back, images, name))  # type: ignore[no-untyped-call]

    def largest(self) -> dict[str, Tensor]:
        """The largest number of each sample `(B, L)` that the layers of a pass have given, and gone back."""
        return {name: torch.stack([seen.largest for seen in some], 1) for name, some in self._passes().items()}

    def layers(self) -> dict[str, list[str]]:
        """The names of those layers."""
        return {name: [seen.origin.name for seen in some] for name, some in self._passes().items()}

    def _passes(self) -> dict[str, list[Seen]]:
        passes: dict[str, list[Seen]] = {}
        for which, some in (("forth", self.forth), ("back", self.back)):
            for seen in some:
                if seen.origin.place == "layer":
                    passes.setdefault(f"{which}, {seen.origin.images}", []).append(seen)
        return passes

    def _look_back(self, images: str, name: str, gradient: Tensor) -> None:
        self.back += self._seen("layer", images, name, gradient)

    def _seen(
        self, place: Place, images: str, name: str, value: Tensor, spoilt: tuple[str, ...] = ()
    ) -> Iterator[Seen]:
        value = value.detach()
        rows = len(value) if value.ndim else 1
        # Targets that are pulled home are passed behind the adversarial images.
        has_targets = images == ADVERSARIAL and rows == 2 * self.count
        if rows != self.count and not has_targets:  # whose numbers are which is not known
            value, rows = value.reshape(1, -1).expand(self.count, -1), self.count
        flat = value.reshape(rows, -1)
        bad, largest = ~flat.isfinite().all(1), flat.abs().amax(1).float()
        for kind, own in ((images, slice(0, self.count)), (TARGET, slice(self.count, rows))):
            if own.start < rows:
                origin = Origin(place=place, images=kind, name=name, statistics=spoilt)
                yield Seen(origin=origin, bad=bad[own].cpu(), largest=largest[own].cpu())


def not_finite(value: Tensor) -> bool:
    """Whether any of its numbers is not."""
    return value.is_floating_point() and not bool(value.isfinite().all())
