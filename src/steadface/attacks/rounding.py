"""Eight bits: what is left of a perturbation once the image is a file.

Rounding to the nearest grey level may leave the ball by half a level; rounding towards the source cannot, since the
source is itself on the grid: every coordinate of the perturbation only shrinks.
"""

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""In grey levels: a step of exactly two levels must not become one because float32 stores it a little short."""


def towards_source(x_adv: Tensor, x: Tensor) -> Tensor:
    """``x_adv`` ``(B, 3, H, W)`` in [0, 1] on the grid of 1/255, each coordinate rounded towards that of ``x``."""
    levels = 255 * x_adv
    lower, upper = (levels + TOLERANCE).floor(), (levels - TOLERANCE).ceil()
    return torch.where(x_adv >= x, lower, upper).clamp(0, 255) / 255


def as_bytes(images: Tensor) -> Tensor:
    """Images on the grid as uint8, alike in shape."""
    return (255 * images).round().to(torch.uint8)
