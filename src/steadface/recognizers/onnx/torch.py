"""The graph of an ONNX file as a torch module: operations without weights, and the table of all that are converted."""

import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from steadface.backbones.base import PReLU
from steadface.backbones.frozen import zero_negligible
from steadface.recognizers.onnx import operations
from steadface.recognizers.onnx.operations import (
    KNOWN,
    Attributes,
    Inputs,
    NotConverted,
    Operation,
    given,
    number,
    numbers,
)
from steadface.recognizers.onnx.read import Node, OnnxFile
from steadface.recognizers.onnx.rounding import ROUNDED, joined

Watch = Callable[[Node, Sequence[Tensor | None]], object]


class OnnxGraph(nn.Module):
    """The graph of a file, node by node. Weights are parameters, of which those called `learnable` take gradients.

    `batch` is the one that the graph's shapes name, if any. Raises NotConverted for an operation that is not converted.
    """

    def __init__(self, file: OnnxFile, batch: int | None, learnable: Collection[str] = ()) -> None:
        super().__init__()
        self.batch = batch
        self.stretches = False
        """Whether on the way back a stretch of nodes is computed anew in place of being kept."""
        self.nodes = [_plain(node, file, batch) for node in joined(file.nodes, file.constants)]
        unknown = sorted({node.op for node in self.nodes} - OPERATIONS.keys() - {ROUNDED})
        if unknown:
            raise NotConverted(f"the operation {', '.join(unknown)}")
        slopes = dict(_slopes(self.nodes, file.constants))
        self._shapes = {name: value.shape for name, value in file.constants.items()}
        self.weights, self._small = self._hold(file.constants, slopes.values(), learnable)
        self._layers = nn.ModuleDict(
            {
                str(place): _rectifier(node, file.constants, slopes.get(place) in learnable)
                for place, node in enumerate(self.nodes)
                if node.op == ROUNDED or place in slopes
            }
        )
        zero_negligible(self.parameters())
        self._slopes = {name: str(place) for place, name in slopes.items()}
        self._last = _last_uses(self.nodes, file.output)
        self._input, self._output, self._channels_last = file.input, file.output, file.channels_last
        self._rounds = file.dtype == np.uint8

    def forward(self, pixels: Tensor) -> Tensor:
        return self.run(pixels)

    def run(self, pixels: Tensor, watch: Watch | None = None) -> Tensor:
        """The output; `watch` is shown each node and its inputs."""
        values: dict[str, Tensor] = {"": pixels}  # never read by that name
        if self._rounds:
            pixels = pixels + (pixels.round() - pixels).detach()  # as whole numbers, whose gradient passes by
        values[self._input] = pixels.permute(0, 2, 3, 1) if self._channels_last else pixels
        if watch is not None or not self.stretches:
            return self._stretch(values, 0, len(self.nodes), watch)[self._output]
        length = math.isqrt(len(self.nodes)) + 1
        for start in range(0, len(self.nodes), length):
            end = min(start + length, len(self.nodes))
            values = checkpoint(self._stretch, values, start, end, use_reentrant=False)
        return values[self._output]

    def _stretch(
        self, values: Mapping[str, Tensor], start: int, end: int, watch: Watch | None = None
    ) -> dict[str, Tensor]:
        """The values that are read behind the nodes from `start` to `end`, given those before."""
        values = dict(values)
        for place in range(start, end):
            node = self.nodes[place]
            inputs = [self._value(name, values) for name in node.inputs]
            if watch is not None:
                watch(node, inputs)
            outputs = self._compute(place, node, inputs)
            values.update(zip(node.outputs, outputs, strict=False))
            for name in self._last[place]:  # or all maps would be held until the end
                values.pop(name, None)
        return values

    def constants(self) -> dict[str, NDArray[Any]]:
        """The weights that take gradients, as they are now, by their names in the file."""
        held = {name: self.weights[place] for name, place in self._places.items()}
        held |= {name: cast(nn.PReLU, self._layers[place]).weight for name, place in self._slopes.items()}
        return {
            name: value.detach().cpu().numpy().reshape(self._shapes[name])
            for name, value in held.items()
            if value.requires_grad
        }

    def _compute(self, place: int, node: Node, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        if str(place) in self._layers:
            return [self._layers[str(place)](inputs[0])]
        operation: Operation = OPERATIONS[node.op]
        output = operation(inputs, node.attributes)
        return [output] if isinstance(output, Tensor) else output

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name or name in self._slopes:
            return None
        if name in values:
            return values[name]
        if name in self._small:
            return self._small[name]
        weight: Tensor = self.weights[self._places[name]]
        return weight

    def _hold(
        self, constants: Mapping[str, NDArray[Any]], elsewhere: Collection[str], learnable: Collection[str]
    ) -> tuple[nn.ParameterList, dict[str, Tensor]]:
        """Floats as parameters, which move with the module; integers are shapes and indices, and stay on the CPU."""
        tensors = {
            name: torch.from_numpy(np.array(value))
            for name, value in constants.items()
            if value.dtype != object and name not in elsewhere
        }
        floats = [name for name, value in tensors.items() if value.is_floating_point()]
        self._places = {name: place for place, name in enumerate(floats)}
        held = nn.ParameterList([nn.Parameter(tensors[name], requires_grad=name in learnable) for name in floats])
        return held, {name: value for name, value in tensors.items() if name not in self._places}


def _slopes(nodes: Sequence[Node], constants: Mapping[str, NDArray[Any]]) -> Iterator[tuple[int, str]]:
    """(place, slope) of the rectifiers with a slope per channel that nothing else reads: they become torch's own
    modules, which others know how to make fast.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    for place, node in enumerate(nodes):
        if node.op not in ("PRelu", ROUNDED) or len(node.inputs) < 2 or node.inputs[1] not in constants:
            continue
        slope = constants[node.inputs[1]]
        alike = slope.ndim == 3 and slope.shape[1:] == (1, 1)
        if readers[node.inputs[1]] == 1 and slope.dtype.kind == "f" and (alike or node.op == ROUNDED):
            yield place, node.inputs[1]


def _rectifier(node: Node, constants: Mapping[str, NDArray[Any]], learnable: bool) -> PReLU:
    slope = np.zeros(1, dtype=np.float32) if len(node.inputs) < 2 else constants[node.inputs[1]].reshape(-1)
    layer = PReLU(len(slope))
    layer.weight = nn.Parameter(torch.from_numpy(np.array(slope)), requires_grad=learnable)
    layer.corner = node.attributes.get("corner", 0.0)
    return layer


def _plain(node: Node, file: OnnxFile, batch: int | None) -> Node:
    """A node whose meaning depends on nothing but itself."""
    extra: dict[str, Any] = {"outputs": len(node.outputs)} | ({} if batch is None else {"fixed batch": batch})
    for index, name in enumerate(node.inputs):
        if name in file.constants and 0 < (value := file.constants[name]).size <= KNOWN and value.dtype != object:
            extra[f"input {index}"] = value.reshape(-1).tolist()
    if node.op == "Cast":
        extra["to"] = _type_of(node.attributes["to"])
    op = "Softmax before 13" if node.op == "Softmax" and file.opset < 13 else node.op
    return Node(op=op, inputs=node.inputs, outputs=node.outputs, attributes={**node.attributes, **extra})


def _type_of(kind: int) -> torch.dtype:
    """That of torch. Raises NotConverted. Looked up once: within a pass it breaks what is compiled."""
    try:
        return torch.from_numpy(np.zeros(1, dtype=helper.tensor_dtype_to_np_dtype(kind))).dtype
    except (KeyError, TypeError):
        raise NotConverted(f"the operation Cast to element type {kind}") from None


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
    return torch.clamp(given(inputs, 0), number(inputs, 1, a, "min"), number(inputs, 2, a, "max"))


def _hard_sigmoid(inputs: Inputs, a: Attributes) -> Tensor:
    line: Tensor = a.get("alpha", 0.2) * given(inputs, 0) + a.get("beta", 0.5)
    return line.clamp(0, 1)


def _softmax_of_rows(inputs: Inputs, a: Attributes) -> Tensor:
    """Before version 13: over all dimensions from `axis` on."""
    x = given(inputs, 0)
    return x.flatten(a.get("axis", 1)).softmax(-1).reshape(x.shape)


def _cast(inputs: Inputs, a: Attributes) -> Tensor:
    return given(inputs, 0).to(a["to"])


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
