"""ONNX operations with weights or windows, as torch computes them: convolution, pooling, normalisation, products.

Each takes the inputs of a node (None for one left out) and its attributes, and returns the output. Meaning and defaults
are those of the ONNX operator specification (https://onnx.ai/onnx/operators); what is not covered raises `Unsupported`.
Windows are two-dimensional: images (B, C, H, W).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]
Operation = Callable[[Inputs, Attributes], Tensor | tuple[Tensor, ...]]


class Unsupported(Exception):
    """A graph that is not converted; the message names the operation."""


def given(inputs: Inputs, index: int) -> Tensor:
    """An input that an operation cannot do without."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise Unsupported(f"an operation without its input {index}")
    return value


def optional(inputs: Inputs, index: int) -> Tensor | None:
    return inputs[index] if index < len(inputs) else None


def conv(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight = given(inputs, 0), given(inputs, 1)
    if x.ndim != 4:
        raise Unsupported(f"Conv in {x.ndim - 2} dimensions")
    strides, dilations = _pair(a, "strides"), _pair(a, "dilations")
    x, padding = _padded(x, _pads(x, (weight.shape[2], weight.shape[3]), strides, dilations, a), 0.0)
    return F.conv2d(x, weight, optional(inputs, 2), strides, padding, dilations, a.get("group", 1))


def max_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x, kernel, strides, pads = _window(given(inputs, 0), a)
    x, padding = _padded(x, pads, -torch.inf)
    return F.max_pool2d(x, kernel, strides, padding, _pair(a, "dilations"), bool(a.get("ceil_mode", 0)))


def average_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x, kernel, strides, pads = _window(given(inputs, 0), a)
    ceil, whole = bool(a.get("ceil_mode", 0)), bool(a.get("count_include_pad", 0))
    if _pair(a, "dilations") != (1, 1):
        raise Unsupported("AveragePool with dilations")
    padded, padding = _padded(x, pads, 0.0)
    if padded is x or whole:
        return F.avg_pool2d(padded, kernel, strides, padding, ceil, whole)
    counted = _padded(torch.ones_like(x[:1, :1]), pads, 0.0)[0]
    return F.avg_pool2d(padded, kernel, strides, 0, ceil) / F.avg_pool2d(counted, kernel, strides, 0, ceil)


def global_average_pool(inputs: Inputs, _: Attributes) -> Tensor:
    x = given(inputs, 0)
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(inputs: Inputs, _: Attributes) -> Tensor:
    x = given(inputs, 0)
    return x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)


def batch_normalization(inputs: Inputs, a: Attributes) -> Tensor:
    if a.get("training_mode", 0) or not a.get("spatial", 1):
        raise Unsupported("BatchNormalization in training mode, or not per channel")
    x, scale, bias, mean, variance = (given(inputs, index) for index in range(5))
    return F.batch_norm(x, mean, variance, scale, bias, training=False, eps=a.get("epsilon", 1e-5))


def layer_normalization(inputs: Inputs, a: Attributes) -> Tensor:
    x, axis = given(inputs, 0), a.get("axis", -1)
    shape = x.shape[axis % x.ndim :]
    return F.layer_norm(x, shape, given(inputs, 1), optional(inputs, 2), a.get("epsilon", 1e-5))


def lp_normalization(inputs: Inputs, a: Attributes) -> Tensor:
    return F.normalize(given(inputs, 0), p=a.get("p", 2), dim=a.get("axis", -1))


def gemm(inputs: Inputs, a: Attributes) -> Tensor:
    left = given(inputs, 0).T if a.get("transA", 0) else given(inputs, 0)
    right = given(inputs, 1).T if a.get("transB", 0) else given(inputs, 1)
    product, added = a.get("alpha", 1.0) * (left @ right), optional(inputs, 2)
    summed: Tensor = product if added is None else product + a.get("beta", 1.0) * added
    return summed


def prelu(inputs: Inputs, _: Attributes) -> Tensor:
    x, slope = given(inputs, 0), given(inputs, 1)
    channels = (*x.shape[1:2], *[1] * (x.ndim - 2))
    if slope.numel() == 1 or tuple(slope.shape[-len(channels) :]) == channels == tuple(slope.squeeze(0).shape):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, slope * x)


def _pair(a: Attributes, name: str) -> tuple[int, int]:
    values = tuple(a.get(name, (1, 1)))
    if len(values) != 2:
        raise Unsupported(f"{name} in {len(values)} dimensions")
    return int(values[0]), int(values[1])


Pads = tuple[int, int, int, int]
"""Top, left, bottom, right, as ONNX orders them."""


def _window(x: Tensor, a: Attributes) -> tuple[Tensor, tuple[int, int], tuple[int, int], Pads]:
    kernel, strides = _pair(a, "kernel_shape"), _pair(a, "strides")
    return x, kernel, strides, _pads(x, kernel, strides, _pair(a, "dilations"), a)


def _pads(
    x: Tensor, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], a: Attributes
) -> Pads:
    how = a.get("auto_pad", "NOTSET")
    if how in ("NOTSET", "VALID"):
        top, left, bottom, right = a.get("pads", (0, 0, 0, 0)) if how == "NOTSET" else (0, 0, 0, 0)
        return int(top), int(left), int(bottom), int(right)
    ends = []
    for length, size, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length, 0)
        ends.append((total // 2, total - total // 2) if how == "SAME_UPPER" else (total - total // 2, total // 2))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def _padded(x: Tensor, pads: Pads, value: float) -> tuple[Tensor, tuple[int, int]]:
    """(x, padding left to torch): torch pads both ends alike, anything else is padded here."""
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)
