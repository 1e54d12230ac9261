"""The graph of an ONNX file as a torch module: operations without weights, and the table of all that are converted."""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from steadface.recognizers.onnx import operations
from steadface.recognizers.onnx.operations import Attributes, Inputs, NotConverted, Operation, given, numbers, optional
from steadface.recognizers.onnx.read import Node, OnnxFile


class OnnxGraph(nn.Module):
    """The graph of a file, node by node. Weights are parameters that take no gradients.

    `batch` is the one that the graph's shapes name, if any. Raises NotConverted for an operation that is not converted.
    """

    def __init__(self, file: OnnxFile, batch: int | None) -> None:
        super().__init__()
        self.nodes = [_plain(node, file.opset, batch) for node in file.nodes]
        unknown = sorted({node.op for node in self.nodes} - OPERATIONS.keys())
        if unknown:
            raise NotConverted(f"the operation {', '.join(unknown)}")
        self.weights, self._small = self._hold(file.constants)
        self._layers = nn.ModuleDict({str(place): part for place, part in self._rectifiers()})
        self._last = _last_uses(self.nodes, file.output)
        self._input, self._output, self._channels_last = file.input, file.output, file.channels_last
        self._rounds = file.dtype == np.uint8

    def forward(self, pixels: Tensor) -> Tensor:
        values: dict[str, Tensor] = {"": pixels}  # never read by that name
        if self._rounds:
            pixels = pixels + (pixels.round() - pixels).detach()  # as whole numbers, whose gradient passes by
        values[self._input] = pixels.permute(0, 2, 3, 1) if self._channels_last else pixels
        for place, node in enumerate(self.nodes):
            outputs = self._compute(place, node, [self._value(name, values) for name in node.inputs])
            values.update(zip(node.outputs, outputs, strict=False))
            for name in self._last[place]:  # or all maps would be held until the end
                values.pop(name, None)
        return values[self._output]

    def _compute(self, place: int, node: Node, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        if str(place) in self._layers:
            return [self._layers[str(place)](inputs[0])]
        operation: Operation = OPERATIONS[node.op]
        output = operation(inputs, node.attributes)
        return [output] if isinstance(output, Tensor) else output

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._small:
            return self._small[name]
        weight: Tensor = self.weights[self._places[name]]
        return weight

    def _hold(self, constants: Mapping[str, NDArray[Any]]) -> tuple[nn.ParameterList, dict[str, Tensor]]:
        """Floats as parameters, which move with the module; integers are shapes and indices, and stay on the CPU."""
        tensors = {
            name: torch.from_numpy(np.array(value)) for name, value in constants.items() if value.dtype != object
        }
        floats = [name for name, value in tensors.items() if value.is_floating_point()]
        self._places = {name: place for place, name in enumerate(floats)}
        held = nn.ParameterList([nn.Parameter(tensors[name], requires_grad=False) for name in floats])
        return held, {name: value for name, value in tensors.items() if name not in self._places}

    def _rectifiers(self) -> list[tuple[int, nn.PReLU]]:
        """PRelu nodes with a slope per channel, as torch's own module, which others know how to make fast."""
        found = []
        for place, node in enumerate(self.nodes):
            if node.op != "PRelu" or node.inputs[1] not in self._places:
                continue
            slope = self.weights[self._places[node.inputs[1]]]
            if slope.ndim == 3 and slope.shape[1:] == (1, 1):
                layer = nn.PReLU(slope.numel(), dtype=slope.dtype)
                layer.weight = nn.Parameter(slope.detach().reshape(-1), requires_grad=False)
                found.append((place, layer))
        return found


def _plain(node: Node, opset: int, batch: int | None) -> Node:
    """A node whose meaning depends on nothing but itself."""
    extra = {"outputs": len(node.outputs)} | ({} if batch is None else {"fixed batch": batch})
    op = "Softmax before 13" if node.op == "Softmax" and opset < 13 else node.op
    return Node(op=op, inputs=node.inputs, outputs=node.outputs, attributes={**node.attributes, **extra})


def _last_uses(nodes: Sequence[Node], output: str) -> list[list[str]]:
    """For each node the names that no later one reads."""
    last = {name: place for place, node in enumerate(nodes) for name in (*node.inputs, *node.outputs)}
    names: list[list[str]] = [[] for _ in nodes]
    for name, place in last.items():
        if name and name != output:
            names[place].append(name)
    return names


def _each(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda inputs, _: function(given(inputs, 0))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    """Of two inputs, or of any number from the left."""
    return lambda inputs, _: reduce(function, [one for one in inputs if one is not None])


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


def _cast(inputs: Inputs, a: Attributes) -> Tensor:
    kind = torch.from_numpy(np.zeros(1, dtype=helper.tensor_dtype_to_np_dtype(a["to"]))).dtype
    return given(inputs, 0).to(kind)


def _where(inputs: Inputs, _: Attributes) -> Tensor:
    return torch.where(given(inputs, 0), given(inputs, 1), given(inputs, 2))


def _reduced(function: Callable[..., Tensor]) -> Operation:
    def apply(inputs: Inputs, a: Attributes) -> Tensor:
        x, axes = given(inputs, 0), numbers(inputs, 1, a, "axes")
        if not axes and a.get("noop_with_empty_axes", 0):
            return x
        return function(x, dim=tuple(axes or range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))

    return apply


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "Abs": _each(torch.abs),
        "Add": _folded(operator.add),
        "AveragePool": operations.average_pool,
        "BatchNormalization": operations.batch_normalization,
        "Cast": _cast,
        "Clip": _clip,
        "Concat": operations.concat,
        "ConstantOfShape": operations.constant_of_shape,
        "Conv": operations.conv,
        "Div": _folded(_divide),
        "Dropout": _each(lambda x: x),
        "Elu": lambda inputs, a: F.elu(given(inputs, 0), a.get("alpha", 1.0)),
        "Equal": _folded(torch.eq),
        "Erf": _each(torch.erf),
        "Exp": _each(torch.exp),
        "Expand": operations.expand,
        "Flatten": operations.flatten,
        "Gather": operations.gather,
        "Gelu": lambda inputs, a: F.gelu(given(inputs, 0), approximate=a.get("approximate", "none")),
        "Gemm": operations.gemm,
        "GlobalAveragePool": operations.global_average_pool,
        "GlobalMaxPool": operations.global_max_pool,
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _each(F.hardswish),
        "Identity": _each(lambda x: x),
        "LayerNormalization": operations.layer_normalization,
        "LeakyRelu": lambda inputs, a: F.leaky_relu(given(inputs, 0), a.get("alpha", 0.01)),
        "Log": _each(torch.log),
        "LpNormalization": operations.lp_normalization,
        "MatMul": _folded(torch.matmul),
        "Max": _folded(torch.maximum),
        "MaxPool": operations.max_pool,
        "Min": _folded(torch.minimum),
        "Mul": _folded(operator.mul),
        "Neg": _each(torch.neg),
        "PRelu": operations.prelu,
        "Pad": operations.pad,
        "Pow": _folded(torch.pow),
        "Reciprocal": _each(torch.reciprocal),
        "ReduceL2": _reduced(torch.linalg.vector_norm),
        "ReduceMax": _reduced(torch.amax),
        "ReduceMean": _reduced(torch.mean),
        "ReduceSum": _reduced(torch.sum),
        "Relu": _each(torch.relu),
        "Reshape": operations.reshape,
        "Shape": operations.shape,
        "Sigmoid": _each(torch.sigmoid),
        "Slice": operations.sliced,
        "Softmax": lambda inputs, a: given(inputs, 0).softmax(a.get("axis", -1)),
        "Softmax before 13": _softmax_of_rows,
        "Softplus": _each(F.softplus),
        "Split": operations.split,
        "Sqrt": _each(torch.sqrt),
        "Squeeze": operations.squeeze,
        "Sub": _folded(operator.sub),
        "Sum": _folded(operator.add),
        "Tanh": _each(torch.tanh),
        "Transpose": operations.transpose,
        "Unsqueeze": operations.unsqueeze,
        "Where": _where,
    }
)
"""What recognisers' graphs are made of, by the format's own names."""
