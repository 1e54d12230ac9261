"""Copies of networks for crafting: evaluation mode for good, the same embeddings, faster forward and backward.

An attack takes hundreds of forward passes and input gradients of a network that does not change meanwhile. A copy can
therefore have every BatchNorm folded into the convolution or the linear layer before it, lie in memory channels last,
and leave out the gradients of its own parameters, which PyTorch's PReLU computes whether they are asked for or not.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from steadface.backbones.folding import Shift, followers
from steadface.backbones.layers import DepthwiseConv2d, PReLU, per_channel


def frozen(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, its parameters without gradients; same outputs, up to rounding. `network` stays.

    BatchNorms are folded within `nn.Sequential`, and where a module's `FOLLOWED_BY` names children of which the second
    is always applied to what the first gives. Only first-order gradients with respect to the input can be taken. What
    is not known stays as it is.
    """
    fast = copy.deepcopy(network).eval().requires_grad_(False)
    for part in fast.modules():
        for before, after in followers(part):
            _fold(part, before, after)
    for part in list(fast.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.PReLU) and type(child) in (nn.PReLU, PReLU):
                setattr(part, name, FrozenPReLU(child.weight, getattr(child, "corner", 0.0)))
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class FrozenPReLU(nn.Module):
    """`max(x, 0) + weight * min(x, 0)`, or with the `corner` rounded as `layers.PReLU` does, for a weight (C,) or (1,)
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
            return _RoundedPReLU.apply(x, weight, self.corner)  # type: ignore[no-untyped-call,no-any-return]
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


class _RoundedPReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, corner: float) -> Tensor:
        slope = per_channel(weight, x)
        ctx.save_for_backward(x)
        ctx.square, ctx.even, ctx.odd = x.new_tensor(corner**2), 0.5 - 0.5 * slope, 0.5 + 0.5 * slope
        # In place from the first pass on, and the root anew on the way back: fresh memory costs more than the passes.
        root = torch.addcmul(ctx.square, x, x).sqrt_().sub_(corner)
        return torch.lerp(x, root, ctx.even, out=root)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        turn = torch.addcmul(ctx.square, x, x).rsqrt_().mul_(x)
        return turn.mul_(ctx.even).add_(ctx.odd).mul_(gradient), None, None


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
    elif isinstance(first, nn.Conv2d) and type(second) is nn.BatchNorm2d and second.track_running_stats:
        part._modules[before] = fuse_conv_bn_eval(first, second)
    elif isinstance(first, nn.Linear) and type(second) is nn.BatchNorm1d and second.track_running_stats:
        part._modules[before] = fuse_linear_bn_eval(first, second)
    else:
        return
    part._modules[after] = nn.Identity()
