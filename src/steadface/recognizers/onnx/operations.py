"""ONNX operations without weights, and the table of all that are converted.

Each takes the inputs of a node (None for one left out) and its attributes. Shapes and indices are integer tensors that
stay on the CPU. Meaning and defaults are those of the ONNX operator specification (https://onnx.ai/onnx/operators).
"""

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from steadface.recognizers.onnx import layers
from steadface.recognizers.onnx.layers import Attributes, Inputs, Operation, given, optional


def _each(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda inputs, _: function(given(inputs, 0))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    """Of two inputs, or of any number from the left."""
    return lambda inputs, _: reduce(function, [one for one in inputs if one is not None])


def _numbers(inputs: Inputs, index: int, a: Attributes, name: str) -> list[int] | None:
    """What older versions give as an attribute and newer ones as an input."""
    value = optional(inputs, index)
    found = a.get(name) if value is None else value.reshape(-1).tolist()
    return None if found is None else [int(one) for one in ([found] if isinstance(found, int) else found)]


def _divide(left: Tensor, right: Tensor) -> Tensor:
    if left.is_floating_point() or right.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _clip(inputs: Inputs, a: Attributes) -> Tensor:
    low, high = optional(inputs, 1), optional(inputs, 2)
    return torch.clamp(
        given(inputs, 0),
        a.get("min") if low is None else low.item(),
        a.get("max") if high is None else high.item(),
    )


def _hard_sigmoid(inputs: Inputs, a: Attributes) -> Tensor:
    line: Tensor = a.get("alpha", 0.2) * given(inputs, 0) + a.get("beta", 0.5)
    return line.clamp(0, 1)


def _softmax_of_rows(inputs: Inputs, a: Attributes) -> Tensor:
    """Before version 13: over all dimensions from `axis` on."""
    x = given(inputs, 0)
    return x.flatten(a.get("axis", 1)).softmax(-1).reshape(x.shape)


def _flatten(inputs: Inputs, a: Attributes) -> Tensor:
    x = given(inputs, 0)
    axis = a.get("axis", 1) % (x.ndim + 1)
    return x.reshape(x.shape[:axis].numel(), -1)


def _reshape(inputs: Inputs, a: Attributes) -> Tensor:
    """A graph made for a fixed batch names it in its shapes; any other batch then takes its place."""
    x, shape = given(inputs, 0), _numbers(inputs, 1, a, "shape") or []
    if not a.get("allowzero", 0):
        shape = [x.shape[index] if size == 0 else size for index, size in enumerate(shape)]
    fixed = a.get("fixed batch")
    if fixed is not None and x.is_floating_point() and shape[:1] == [fixed]:
        shape[0] = len(x)
    return x.reshape(shape)


def _transpose(inputs: Inputs, a: Attributes) -> Tensor:
    x = given(inputs, 0)
    return x.permute(*a.get("perm", tuple(reversed(range(x.ndim)))))


def _squeeze(inputs: Inputs, a: Attributes) -> Tensor:
    x, axes = given(inputs, 0), _numbers(inputs, 1, a, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(inputs: Inputs, a: Attributes) -> Tensor:
    x, axes = given(inputs, 0), _numbers(inputs, 1, a, "axes") or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(inputs: Inputs, a: Attributes) -> Tensor:
    x, starts, ends = given(inputs, 0), _numbers(inputs, 1, a, "starts") or [], _numbers(inputs, 2, a, "ends") or []
    axes = _numbers(inputs, 3, a, "axes") or list(range(len(starts)))
    steps = _numbers(inputs, 4, a, "steps") or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # By index, since torch slices forwards only, and graphs turn RGB into BGR by going backwards.
        places = range(*slice(start, end, step).indices(x.shape[axis]))
        x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def _gather(inputs: Inputs, a: Attributes) -> Tensor:
    x, indices = given(inputs, 0), given(inputs, 1)
    return x[(slice(None),) * (a.get("axis", 0) % x.ndim) + (indices,)]


def _concat(inputs: Inputs, a: Attributes) -> Tensor:
    return torch.cat([one for one in inputs if one is not None], dim=a["axis"])


def _split(inputs: Inputs, a: Attributes) -> tuple[Tensor, ...]:
    x, axis, sizes = given(inputs, 0), a.get("axis", 0), _numbers(inputs, 1, a, "split")
    each = -(-x.shape[axis] // a["outputs"])
    return torch.split(x, each if sizes is None else sizes, dim=axis)


def _pad(inputs: Inputs, a: Attributes) -> Tensor:
    x, pads, value = given(inputs, 0), _numbers(inputs, 1, a, "pads") or [], optional(inputs, 2)
    axes = [axis % x.ndim for axis in _numbers(inputs, 3, a, "axes") or range(x.ndim)]
    ends = {axis: (pads[place], pads[place + len(axes)]) for place, axis in enumerate(axes)}
    # Torch names the last dimension first, and mirrors no more dimensions than it must.
    last = x.ndim if not any(any(pair) for pair in ends.values()) else min(axis for axis in ends if any(ends[axis]))
    amounts = [amount for axis in reversed(range(last, x.ndim)) for amount in ends.get(axis, (0, 0))]
    mode = a.get("mode", "constant")
    if mode != "constant":
        return F.pad(x, amounts, mode="replicate" if mode == "edge" else mode)
    return F.pad(x, amounts, value=float(a.get("value", 0.0) if value is None else value.item()))


def _expand(inputs: Inputs, a: Attributes) -> Tensor:
    x, shape = given(inputs, 0), _numbers(inputs, 1, a, "shape") or []
    return x * torch.ones(shape, dtype=x.dtype, device=x.device)


def _shape(inputs: Inputs, a: Attributes) -> Tensor:
    return torch.tensor(given(inputs, 0).shape[a.get("start", 0) : a.get("end")], dtype=torch.int64)


def _constant_of_shape(inputs: Inputs, a: Attributes) -> Tensor:
    value = torch.from_numpy(np.array(a.get("value", np.zeros(1, dtype=np.float32))))
    return value.reshape(()).expand(given(inputs, 0).tolist())


def _cast(inputs: Inputs, a: Attributes) -> Tensor:
    kind = torch.from_numpy(np.zeros(1, dtype=helper.tensor_dtype_to_np_dtype(a["to"]))).dtype
    return given(inputs, 0).to(kind)


def _where(inputs: Inputs, _: Attributes) -> Tensor:
    return torch.where(given(inputs, 0), given(inputs, 1), given(inputs, 2))


def _reduced(function: Callable[..., Tensor]) -> Operation:
    def apply(inputs: Inputs, a: Attributes) -> Tensor:
        x, axes = given(inputs, 0), _numbers(inputs, 1, a, "axes")
        if not axes and a.get("noop_with_empty_axes", 0):
            return x
        return function(x, dim=tuple(axes or range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))

    return apply


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "Abs": _each(torch.abs),
        "Add": _folded(operator.add),
        "AveragePool": layers.average_pool,
        "BatchNormalization": layers.batch_normalization,
        "Cast": _cast,
        "Clip": _clip,
        "Concat": _concat,
        "ConstantOfShape": _constant_of_shape,
        "Conv": layers.conv,
        "Div": _folded(_divide),
        "Dropout": _each(lambda x: x),
        "Elu": lambda inputs, a: F.elu(given(inputs, 0), a.get("alpha", 1.0)),
        "Equal": _folded(torch.eq),
        "Erf": _each(torch.erf),
        "Exp": _each(torch.exp),
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "Gelu": lambda inputs, a: F.gelu(given(inputs, 0), approximate=a.get("approximate", "none")),
        "Gemm": layers.gemm,
        "GlobalAveragePool": layers.global_average_pool,
        "GlobalMaxPool": layers.global_max_pool,
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _each(F.hardswish),
        "Identity": _each(lambda x: x),
        "LayerNormalization": layers.layer_normalization,
        "LeakyRelu": lambda inputs, a: F.leaky_relu(given(inputs, 0), a.get("alpha", 0.01)),
        "Log": _each(torch.log),
        "LpNormalization": layers.lp_normalization,
        "MatMul": _folded(torch.matmul),
        "Max": _folded(torch.maximum),
        "MaxPool": layers.max_pool,
        "Min": _folded(torch.minimum),
        "Mul": _folded(operator.mul),
        "Neg": _each(torch.neg),
        "PRelu": layers.prelu,
        "Pad": _pad,
        "Pow": _folded(torch.pow),
        "Reciprocal": _each(torch.reciprocal),
        "ReduceL2": _reduced(torch.linalg.vector_norm),
        "ReduceMax": _reduced(torch.amax),
        "ReduceMean": _reduced(torch.mean),
        "ReduceSum": _reduced(torch.sum),
        "Relu": _each(torch.relu),
        "Reshape": _reshape,
        "Shape": _shape,
        "Sigmoid": _each(torch.sigmoid),
        "Slice": _slice,
        "Softmax": lambda inputs, a: given(inputs, 0).softmax(a.get("axis", -1)),
        "Softmax before 13": _softmax_of_rows,
        "Softplus": _each(F.softplus),
        "Split": _split,
        "Sqrt": _each(torch.sqrt),
        "Squeeze": _squeeze,
        "Sub": _folded(operator.sub),
        "Sum": _folded(operator.add),
        "Tanh": _each(torch.tanh),
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Where": _where,
    }
)
"""What recognisers' graphs are made of, by the format's own names."""
