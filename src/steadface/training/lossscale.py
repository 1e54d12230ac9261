"""Gradients in fp16, which knows nothing below 6e-8 and nothing above 65504: made larger on the way back.

After Micikevicius et al., "Mixed precision training" (ICLR 2018, section 3.2): what arrives at the embeddings is
multiplied by a scale, and the weights' gradients are divided by it before anybody looks at them. Where they have come
out infinite the update is left out and the scale halved; after a while without, it is doubled.

Departures: losses, heads and images know nothing of it, since the scale is applied where the network ends and taken
back where it begins. Where images alone are asked for (crafting) each sample's gradient is brought to one size, so that
its signs survive where the score is flat. And whether an update can be used is told by the norm that is taken anyway,
which is that of all ranks; torch.amp.GradScaler looks at one process's gradients.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FLOOR, CEILING = 1.0, 2.0**24
GROWTH = 2000
"""Updates in a row that can be used, after which the scale is doubled."""
CRAFTING = 2.0**-8
"""Of the scale: the size of what arrives at an embedding while images are crafted."""


@dataclass(kw_only=True)
class LossScale:
    """The scale, a power of two, how many updates could be used since it last changed, and how many could not in all.

    The state of several ranks is the same.
    """

    value: float = 2.0**16
    good: int = 0
    skipped: int = 0
    spoilt: Tensor | None = None
    """Whether crafting has met what fp16 cannot hold, since an update or a step began; None where there was none."""

    def around(self, network: Callable[[Tensor], Tensor], images: Tensor, *, trains: bool) -> Tensor:
        """`network(images)` (B, D), on whose way back gradients are larger within.

        Outside, in images and embeddings, they are what they are. Those of weights, where the pass `trains` them, stay
        larger until they are `unscaled`.
        """
        factor = torch.ones(())

        def enlarged(gradient: Tensor) -> Tensor:
            nonlocal factor
            factor = gradient.new_tensor(self.value) if trains else self._for_each(gradient)
            return gradient * factor

        def reduced(gradient: Tensor) -> Tensor:
            return gradient / factor if trains else self.usable(gradient / factor.view(-1, *[1] * (gradient.ndim - 1)))

        # Views, since hooks on what is handed in or out would also act on what others do with it.
        images = images.view_as(images)
        if images.requires_grad:
            images.register_hook(reduced)  # type: ignore[no-untyped-call]
        embeddings = network(images)
        if embeddings.requires_grad:
            embeddings.register_hook(enlarged)  # type: ignore[no-untyped-call]
        return embeddings.view_as(embeddings)

    def _for_each(self, gradient: Tensor) -> Tensor:
        """Powers of two (B, 1) that bring the largest of each row's numbers (B, D) to a fixed size, or half of that."""
        exponents = torch.frexp(gradient.abs().amax(dim=1, keepdim=True)).exponent.clamp(-100, 100)
        return self.value * CRAFTING * torch.exp2(-exponents.to(gradient.dtype))

    def usable(self, gradient: Tensor) -> Tensor:
        """Without samples of which something could not be held: the update that was to come of them is left out."""
        finite = gradient.isfinite().flatten(1).all(dim=1)
        spoilt = ~finite.all()
        self.spoilt = spoilt if self.spoilt is None else self.spoilt | spoilt
        return torch.where(finite.view(-1, *[1] * (gradient.ndim - 1)), gradient, 0)

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Makes their gradients what they are; whether the samples that they come of could not all be crafted."""
        if gradients := [parameter.grad for parameter in parameters if parameter.grad is not None]:
            torch._foreach_mul_(gradients, 1 / self.value)
        spoilt, self.spoilt = self.spoilt is not None and bool(self.spoilt), None
        return spoilt

    def lower(self) -> bool:
        """After an update that cannot be used; False where a smaller scale would be no remedy."""
        if self.value <= FLOOR:
            return False
        self.value, self.good, self.skipped = self.value / 2, 0, self.skipped + 1
        return True

    def used(self) -> None:
        """After an update that could be."""
        self.good += 1
        if self.good >= GROWTH:
            self.value, self.good = min(2 * self.value, CEILING), 0
