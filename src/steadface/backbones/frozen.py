"""Copies of networks for crafting: evaluation mode for good, the same embeddings, faster forward and backward.

An attack takes hundreds of forward passes and input gradients of a network that does not change meanwhile. A copy can
therefore have every BatchNorm folded into the convolution or the linear layer before it, lie in memory channels last,
have zeros for weights too small to count, and leave out the gradients of its own parameters, which PyTorch's PReLU
computes whether they are asked for or not.

BatchNorms can also be folded in a network that is trained on: only their shift is still learnt.

    BN(W x + b) = g (W x + b - mu) / sigma + beta = W' x + b' + shift
    W' = W g / sigma      b' = b g / sigma      shift = beta - mu g / sigma      sigma^2 = running variance + eps

With frozen statistics a BatchNorm is a line, and its scale says nothing that the weights before it do not say. Folded
it costs a sum in place of a normalisation, forwards and backwards. Names, shapes and meaning of the state dict stay:
what is left reads as a BatchNorm of mean 0, variance 1 - eps and weight 1, so that the plain network loads it and
computes the same.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from steadface.backbones.base import DepthwiseConv2d, PReLU, per_channel, rounded_prelu
from steadface.backbones.soundness import noise_for

NEGLIGIBLE = torch.finfo(torch.float32).tiny ** 0.5
"""1.1e-19: the product of two numbers below it is denormal."""

PARITY = 1e-4
"""How far unit embeddings of a fast copy may be from the network's own, in any of their numbers."""

Module = TypeVar("Module", bound=nn.Module)


def copied(network: Module) -> Module:
    """`copy.deepcopy(network)` in less time: every module has a dozen collections of hooks, nearly all of them empty,
    and those that are need no going through.
    """
    held = (value for part in network.modules() for value in vars(part).values())
    empty = {id(value): type(value)() for value in held if type(value) in (dict, OrderedDict, set) and not value}
    return copy.deepcopy(network, empty)


def frozen(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, its parameters without gradients; same outputs, up to rounding. `network` stays.

    BatchNorms are folded within `nn.Sequential`, and where a module's `FOLLOWED_BY` names children of which the second
    is always applied to what the first gives. Only first-order gradients with respect to the input can be taken. What
    is not known stays as it is.
    """
    fast = copied(network).eval().requires_grad_(False)
    zero_negligible(fast.parameters())
    for part in fast.modules():
        for before, after in followers(part):
            _fold(part, before, after)
    for part in list(fast.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.PReLU) and type(child) in (nn.PReLU, PReLU):
                setattr(part, name, FrozenPReLU(child.weight, getattr(child, "corner", 0.0)))
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def zero_negligible(weights: Iterable[Tensor]) -> None:
    """Makes what is below `NEGLIGIBLE` zero, in place; a tensor of one number stays: it may be what keeps a division
    from dividing by zero.

    Weight decay takes the weights of channels that died to 1e-20 and less. No embedding shows it, but products of them
    are denormal numbers, on each of which some processors spend a hundred times what a normal one takes
    (`docs/performance.md`).
    """
    for weight in weights:
        if weight.is_floating_point():
            weight.masked_fill_(negligible(weight), 0)


def negligible(weight: Tensor) -> Tensor:
    """Which numbers `zero_negligible` makes zero."""
    return weight.abs() < (NEGLIGIBLE if weight.numel() > 1 else 0)


def frozen_where_alike(network: nn.Module) -> nn.Module:
    """`frozen`, where that embeds noise as `network` does, which is in evaluation mode; else the network itself.

    For modules of any origin, of which nobody knows what they apply to what: hooks, an `nn.Sequential` with a `forward`
    of its own, weights that are computed anew in each pass.
    """
    noise = noise_for(network)
    try:
        fast = frozen(network)
        with torch.no_grad():
            difference = (F.normalize(network(noise).float()) - F.normalize(fast(noise).float())).abs().max()
    except Exception:  # whatever somebody's module raises when it is copied, changed or run
        return network
    return fast if difference <= PARITY else network


class FrozenPReLU(nn.Module):
    """`max(x, 0) + weight * min(x, 0)`, or with the `corner` rounded as `base.PReLU` does, for a weight (C,) or (1,)
    that takes no gradient.
    """

    def __init__(self, weight: Tensor, corner: float = 0.0) -> None:
        super().__init__()
        self.corner = corner
        self.register_buffer("weight", weight.detach().clone())
        self.weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.corner:
            return rounded_prelu(x, weight, self.corner)
        return _PReLU.apply(x, weight)  # type: ignore[no-untyped-call,no-any-return]


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.prelu(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, weight = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(gradient, x, 0.0)
        # From the gradient where x > 0 towards all of it, by the slope: in place, since fresh memory costs as much.
        return positive.lerp_(gradient, per_channel(weight, x).expand_as(gradient)), None


def _fold(part: nn.Module, before: str, after: str) -> None:
    """Fold child `after` into `before` where they are a convolution or linear layer and a BatchNorm with statistics, or
    what `fold_norms` left of one.
    """
    first, second = part._modules[before], part._modules[after]
    if type(first) not in (nn.Conv2d, DepthwiseConv2d, nn.Linear):
        return
    assert isinstance(first, nn.Conv2d | nn.Linear)
    if isinstance(second, Shift) and first.bias is None:
        first.bias = nn.Parameter(second.bias.detach().clone(), requires_grad=False)
    elif isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d) and _is_line(second):
        part._modules[before] = fuse_conv_bn_eval(first, second)
    elif isinstance(first, nn.Linear) and isinstance(second, nn.BatchNorm1d) and _is_line(second):
        part._modules[before] = fuse_linear_bn_eval(first, second)
    else:
        return
    part._modules[after] = nn.Identity()


Norm = nn.BatchNorm1d | nn.BatchNorm2d


def _is_line(norm: Norm) -> bool:
    """Whether it is one in evaluation mode: a BatchNorm of PyTorch's, or of a kind that says it evaluates like one."""
    known = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d) or getattr(norm, "evaluates_as_batchnorm", False)
    return known and norm.track_running_stats


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
