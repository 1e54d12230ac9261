"""How far apart two ways of computing the same numbers may lie: what the tolerances of the tests follow from.

Another processor, number of threads or batch size adds up in another order. Whatever the order, a sum of n products is
off by less than lambda sqrt(n) u sum|x y|, u being half of the type's eps, but for a chance of 2 exp(-lambda^2 / 2)
(Higham and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4); lambda is 4 here, and
two orders differ by twice that.
"""

import math

import torch
from torch import nn


def rounding(terms: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """The absolute tolerance of sums of ``terms`` products whose magnitudes add up to ``scale``.

    The magnitudes of a cosine in n dimensions add up to 1 at most. In a chain of sums, such as a network, terms add up.
    """
    return 4 * math.sqrt(terms) * torch.finfo(dtype).eps * scale


def terms(network: nn.Module) -> int:
    """The lengths of the sums on the way through all layers of ``network``, added up."""
    return sum(parameter[0].numel() for parameter in network.parameters() if parameter.ndim > 1)
