"""What every gradient attack shares: the score's gradient, and a model that crafting leaves as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from steadface.attacks.goals import Score


def score_and_gradient(score: Score, images: Tensor) -> tuple[Tensor, Tensor]:
    """``score(images)`` ``(B,)`` and its gradient with respect to the images ``(B, 3, H, W)``."""
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        values = score(images)
        (gradient,) = torch.autograd.grad(values.sum(), images)
    return values.detach(), gradient


@contextmanager
def crafting(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; train modes and flags as they were afterwards.

    Evaluation mode keeps BatchNorm statistics still; switching parameters off spares the weight gradients,
    half of a backward pass. Neither weights nor their ``.grad`` are touched.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for part, _ in modes:
            part.training = False
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)
