"""BatchNorms folded into the layers before them, in a network that is trained on: only their shift is still learnt.

    BN(W x + b) = g (W x + b - mu) / sigma + beta = W' x + b' + shift
    W' = W g / sigma      b' = b g / sigma      shift = beta - mu g / sigma      sigma^2 = running variance + eps

With frozen statistics a BatchNorm is a line, and its scale says nothing that the weights before it do not say. Folded
it costs a sum in place of a normalisation, forwards and backwards. Names, shapes and meaning of the state dict stay:
what is left reads as a BatchNorm of mean 0, variance 1 - eps and weight 1, so that the plain network loads it and
computes the same.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from steadface.backbones.layers import per_channel

Norm = nn.BatchNorm1d | nn.BatchNorm2d


class Shift(nn.Module):
    """`x + bias`, channel by channel, under the names of a BatchNorm."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, bias: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones_like(bias), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone())
        self.register_buffer("running_mean", torch.zeros_like(bias))
        self.register_buffer("running_var", torch.full_like(bias, 1 - eps))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=bias.device))

    def forward(self, x: Tensor) -> Tensor:
        return x + per_channel(self.bias.to(x.dtype), x)


def followers(part: nn.Module) -> Iterable[tuple[str, str]]:
    """Names of children of which the second is always applied to what the first gives: neighbours within
    `nn.Sequential`, and what a module says in its `FOLLOWED_BY`.
    """
    known: Iterable[tuple[str, str]] = getattr(part, "FOLLOWED_BY", ())
    return pairwise(list(part._modules)) if isinstance(part, nn.Sequential) else known


def fold_norms(network: nn.Module) -> None:
    """Folds, in place, every BatchNorm that directly follows a convolution or linear layer (`followers`); others stay.

    Computes the same as in evaluation mode, up to rounding.
    """
    for part in list(network.modules()):
        for before, after in followers(part):
            layer, norm = part._modules[before], part._modules[after]
            if isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(norm, Norm) and norm.running_var is not None:
                part._modules[after] = _folded(layer, norm)


@torch.no_grad()
def fold_map(network: nn.Module, matrix: Tensor) -> None:
    """Folds, in place, a linear map (D, D) of what `network` gives into its last linear layer and the BatchNorm there.

    Every other BatchNorm is folded too, see `fold_norms`. Raises ValueError where no such layer has D outputs.
    """
    fold_norms(network)
    pairs = [(part._modules[a], part._modules[b]) for part in network.modules() for a, b in followers(part)]
    lasts = [(a, b) for a, b in pairs if isinstance(a, nn.Linear) and isinstance(b, Shift)]
    if not lasts or lasts[-1][0].out_features != len(matrix):
        raise ValueError(f"{type(network).__name__} does not end in a linear layer of {len(matrix)} outputs")
    layer, shift = lasts[-1]
    matrix = matrix.to(layer.weight)
    layer.weight.copy_(matrix @ layer.weight)
    for bias in (layer.bias, shift.bias):
        if bias is not None:
            bias.copy_(matrix @ bias)


@torch.no_grad()
def _folded(layer: nn.Conv2d | nn.Linear, norm: Norm) -> Shift:
    """Scales the layer's weights; what is left of the BatchNorm."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight
    shift = -norm.running_mean * gain
    if norm.bias is not None:
        shift = shift + norm.bias
    layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.dim() - 1)))
    if layer.bias is not None:
        layer.bias.mul_(gain)
    return Shift(shift, norm.eps)
