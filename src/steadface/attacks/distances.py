"""How long perturbations are, and shortening each to a length of its own.

A `Ball` has one radius for the whole batch; a search for the smallest perturbation has one for every image.
"""

import torch
from torch import Tensor

from steadface.attacks.balls import Norm


def lengths(delta: Tensor, norm: Norm) -> Tensor:
    """``(B,)`` norms of perturbations ``(B, 3, H, W)``, on the pixel range 0..1."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


def shortened(delta: Tensor, radii: Tensor, norm: Norm) -> Tensor:
    """The Euclidean projection of each perturbation ``(B, 3, H, W)`` onto the ball of its radius ``(B,)``."""
    if norm == "linf":
        bound = radii.view(-1, 1, 1, 1)
        return torch.minimum(torch.maximum(delta, -bound), bound)
    factor = radii / lengths(delta, norm).clamp_min(torch.finfo(delta.dtype).tiny)
    return delta * factor.clamp(max=1).view(-1, 1, 1, 1)
