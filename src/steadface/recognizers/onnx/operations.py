"""ONNX operations as torch computes them: those with weights or windows, and those that shape.

Each takes the inputs of a node (None for one left out) and its attributes, and returns the output. Meaning and defaults
are those of the ONNX operator specification (https://onnx.ai/onnx/operators). What is not covered raises
`NotConverted`. Windows are two-dimensional: images (B, C, H, W). Shapes and indices are integer tensors that stay on
the CPU.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.backbones.base import conv2d

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]
Operation = Callable[[Inputs, Attributes], Tensor | tuple[Tensor, ...]]


class NotConverted(Exception):
    """A graph that is not converted; the message names the operation."""


def given(inputs: Inputs, index: int) -> Tensor:
    """An input that an operation cannot do without."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise NotConverted(f"an operation without its input {index}")
    return value


def optional(inputs: Inputs, index: int) -> Tensor | None:
    return inputs[index] if index < len(inputs) else None


def numbers(inputs: Inputs, index: int, a: Attributes, name: str) -> list[int] | None:
    """What older versions give as an attribute and newer ones as an input."""
    value = optional(inputs, index)
    found = a.get(name) if value is None else known(index, a) or value.reshape(-1).tolist()
    return None if found is None else [int(one) for one in ([found] if isinstance(found, int) else found)]


def number(inputs: Inputs, index: int, a: Attributes, name: str) -> float | None:
    """As `numbers`, one of them."""
    value = optional(inputs, index)
    if value is None:
        return a.get(name)
    found = known(index, a)
    return found[0] if found else value.item()


KNOWN = 64
"""Numbers of a constant that are known while a graph is traced or compiled, in which no value of a tensor can be."""


def known(index: int, a: Attributes) -> list[Any] | None:
    """The numbers of an input where that is a small constant."""
    found: list[Any] | None = a.get(f"input {index}")
    return found


def conv(inputs: Inputs, a: Attributes) -> Tensor:
    x, weight = given(inputs, 0), given(inputs, 1)
    if x.ndim != 4:
        raise NotConverted(f"Conv in {x.ndim - 2} dimensions")
    strides, dilations = _pair(a, "strides"), _pair(a, "dilations")
    x, padding = _padded(x, _pads(x, (weight.shape[2], weight.shape[3]), strides, dilations, a), 0.0)
    return conv2d(x, weight, optional(inputs, 2), strides, padding, dilations, a.get("group", 1))


def max_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x, kernel, strides, pads = _window(given(inputs, 0), a)
    x, padding = _padded(x, pads, -torch.inf)
    return F.max_pool2d(x, kernel, strides, padding, _pair(a, "dilations"), bool(a.get("ceil_mode", 0)))


def average_pool(inputs: Inputs, a: Attributes) -> Tensor:
    x, kernel, strides, pads = _window(given(inputs, 0), a)
    ceil, whole = bool(a.get("ceil_mode", 0)), bool(a.get("count_include_pad", 0))
    if _pair(a, "dilations") != (1, 1):
        raise NotConverted("AveragePool with dilations")
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
        raise NotConverted("BatchNormalization in training mode, or not per channel")
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
        raise NotConverted(f"{name} in {len(values)} dimensions")
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


def flatten(inputs: Inputs, a: Attributes) -> Tensor:
    x = given(inputs, 0)
    axis = a.get("axis", 1) % (x.ndim + 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)  # not numel(), which would fix the number of images


def reshape(inputs: Inputs, a: Attributes) -> Tensor:
    """A graph made for a fixed batch names it in its shapes; any other batch then takes its place."""
    x, shape = given(inputs, 0), numbers(inputs, 1, a, "shape") or []
    if not a.get("allowzero", 0):
        shape = [x.shape[index] if size == 0 else size for index, size in enumerate(shape)]
    fixed = a.get("fixed batch")
    if fixed is not None and x.is_floating_point() and shape[:1] == [fixed]:
        shape[0] = x.shape[0]  # not len(x), which would fix it when traced
    return x.reshape(shape)


def transpose(inputs: Inputs, a: Attributes) -> Tensor:
    x = given(inputs, 0)
    return x.permute(*a.get("perm", tuple(reversed(range(x.ndim)))))


def squeeze(inputs: Inputs, a: Attributes) -> Tensor:
    x, axes = given(inputs, 0), numbers(inputs, 1, a, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(inputs: Inputs, a: Attributes) -> Tensor:
    x, axes = given(inputs, 0), numbers(inputs, 1, a, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def sliced(inputs: Inputs, a: Attributes) -> Tensor:
    x, starts, ends = given(inputs, 0), numbers(inputs, 1, a, "starts") or [], numbers(inputs, 2, a, "ends") or []
    axes = numbers(inputs, 3, a, "axes") or list(range(len(starts)))
    steps = numbers(inputs, 4, a, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # By index, since torch slices forwards only, and graphs turn RGB into BGR by going backwards.
        places = range(*slice(start, end, step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def gather(inputs: Inputs, a: Attributes) -> Tensor:
    x, indices = given(inputs, 0), given(inputs, 1)
    return x[(slice(None),) * (a.get("axis", 0) % x.ndim) + (indices,)]


def concat(inputs: Inputs, a: Attributes) -> Tensor:
    return torch.cat([one for one in inputs if one is not None], dim=a["axis"])


def split(inputs: Inputs, a: Attributes) -> tuple[Tensor, ...]:
    x, axis, sizes = given(inputs, 0), a.get("axis", 0), numbers(inputs, 1, a, "split")
    each = -(-x.shape[axis] // a["outputs"])
    return torch.split(x, each if sizes is None else sizes, dim=axis)


def pad(inputs: Inputs, a: Attributes) -> Tensor:
    x, pads = given(inputs, 0), numbers(inputs, 1, a, "pads") or []
    axes = [axis % x.ndim for axis in numbers(inputs, 3, a, "axes") or range(x.ndim)]
    ends = {axis: (pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes)}
    # Torch names the last dimension first, and mirrors no more dimensions than it must.
    last = x.ndim if not any(any(pair) for pair in ends.values()) else min(axis for axis in ends if any(ends[axis]))
    amounts = [amount for axis in reversed(range(last, x.ndim)) for amount in ends.get(axis, (0, 0))]
    mode = a.get("mode", "constant")
    if mode != "constant":
        return F.pad(x, amounts, mode="replicate" if mode == "edge" else mode)
    return F.pad(x, amounts, value=float(number(inputs, 2, a, "value") or 0.0))


def expand(inputs: Inputs, a: Attributes) -> Tensor:
    x, shape = given(inputs, 0), numbers(inputs, 1, a, "shape") or []
    return x * torch.ones(shape, dtype=x.dtype, device=x.device)


def shape(inputs: Inputs, a: Attributes) -> Tensor:
    return torch.tensor(given(inputs, 0).shape[a.get("start", 0) : a.get("end")], dtype=torch.int64)


def constant_of_shape(inputs: Inputs, a: Attributes) -> Tensor:
    value = torch.from_numpy(np.array(a.get("value", np.zeros(1, dtype=np.float32))))
    return value.reshape(()).expand(given(inputs, 0).tolist())
