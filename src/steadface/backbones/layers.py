"""Layers of the backbones that compute what PyTorch's own compute, with gradients that cost less on a CPU.

They are told from their parents by nothing but speed (`benchmarks/step_cost.py`), names and values are the same, unless
the corner of a PReLU is rounded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """`values` (C,) or (1,) as they multiply or add to the channels of `x` (B, C, ...)."""
    return values.view(-1, *[1] * (x.dim() - 2))


class PReLU(nn.PReLU):
    """`x` where positive and `w x` elsewhere; compiled, as `(1 + w) / 2 x + (1 - w) / 2 |x|`.

    Where `corner` c is above 0, `sqrt(x^2 + c^2) - c` stands for `|x|`, and the slope changes smoothly over about
    2 c: smooth activations help adversarial training (Xie et al., "Smooth adversarial training", 2020).

    The compiler would keep the sign of every number for the backward pass, and on a CPU it writes those bools one by
    one, which costs more than the convolutions around them.
    """

    corner = 0.0

    def forward(self, x: Tensor) -> Tensor:
        sharp = not self.corner
        if sharp and (not torch.compiler.is_compiling() or torch.compiler.is_exporting() or x.device.type != "cpu"):
            return super().forward(x)
        magnitude = x.abs() if sharp else (x * x + self.corner**2).sqrt() - self.corner
        odd = per_channel(self.weight, x) * 0.5 + 0.5
        return (odd * x - (odd - 1) * magnitude).to(x.dtype)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias, `kernel` odd and padded to it; in bf16 its input gradient is one too.

    oneDNN's own gradient of a strided one takes 15 to 60 times as long in bf16.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1) or x.dtype != torch.bfloat16 or x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        filtered: Tensor = _StridedDepthwise.apply(x, self.weight.to(x.dtype), self.stride[0])  # type: ignore[no-untyped-call]
        return filtered if self.bias is None else filtered + self.bias.to(x.dtype).view(-1, 1, 1)


class _StridedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.stride, weight.shape[-1] // 2, len(weight)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            # Every output spread its gradient over the inputs it had seen: the mirrored filter, on outputs put back
            # where they were taken.
            placed = torch.zeros_like(x)
            placed[:, :, ::stride, ::stride] = gradient
            of_x = F.conv2d(placed, weight.flip(2, 3), None, 1, padding, groups=groups)
        if ctx.needs_input_grad[1]:
            both, all_around = [stride, stride], [padding, padding]
            _, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, both, all_around, [1, 1], False, [0, 0], groups, [False, True, False]
            )
        return of_x, of_weight, None
