"""An ONNX graph while it is written: torch's operations in ONNX, and BatchNorm folded into the layer before it.

    (W x + b - mean) gamma / sqrt(var + eps) + beta  =  W' x + b',    W' = s W,  b' = s (b - mean) + beta,
                                                                      s = gamma / sqrt(var + eps)

Each takes the graph and the operation's arguments as torch orders them: `Value`s where they depend on the images,
tensors and numbers else. Meaning and defaults are those of ATen and of the ONNX operator specification, version 13.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from steadface.errors import InvalidInput


@dataclass
class Value:
    """What a node computes, of so many `uses`. `layer` is the node's name where a BatchNorm can be folded into it."""

    name: str
    layer: str | None = None
    uses: int = 0
    shape: Sequence[Any] = ()


class Batch:
    """The number of images, which is not known when a graph is written."""


@dataclass
class Graph:
    """With `half` floats are float16, all but the constants that are `exact`."""

    half: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)

    def add(self, op: str, inputs: Sequence[Value | Tensor], *, foldable: bool = False, **attributes: Any) -> Value:
        """The value of a new node, called after its operation; its constants are called after it and their place."""
        name, names = f"{op}_{len(self.nodes)}", []
        for place, one in enumerate(inputs):
            names.append(one.name if isinstance(one, Value) else constant_name(name, place))
            if isinstance(one, Tensor):
                self.constants[names[-1]] = one
        self.nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Value(name, layer=name if foldable else None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All constants. Raises InvalidInput for a weight that float16 cannot hold."""
        return {key: self._array(key, value) for key, value in self.constants.items()}

    def _array(self, key: str, value: Tensor) -> NDArray[Any]:
        array: NDArray[Any] = value.detach().cpu().contiguous().numpy()
        if array.dtype.kind != "f":
            return array
        if not self.half or key in self.exact:
            return array.astype(np.float32)
        largest = float(np.abs(array).max(initial=0.0))
        if largest > float(np.finfo(np.float16).max):
            raise InvalidInput(f"a weight of {largest:.3g} is beyond the range of float16; export without half")
        return array.astype(np.float16)


def constant_name(node: str, place: int) -> str:
    return f"{node}.{place}"


Translation = Callable[..., Value | Batch]
aten = torch.ops.aten


class Untranslated(Exception):
    """An operation, or a use of one, that has no translation; the message names it."""


def _conv(
    graph: Graph,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Value:
    (top, left), zeros = _pair(padding), torch.zeros(len(weight), dtype=weight.dtype)
    return graph.add(
        "Conv",
        [x, weight, zeros if bias is None else bias],
        foldable=True,
        kernel_shape=list(weight.shape[2:]),
        strides=_pair(stride),
        pads=[top, left, top, left],
        dilations=_pair(dilation),
        group=groups,
    )


def _linear(graph: Graph, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    if len(x.shape) != 2:
        raise Untranslated(f"a linear layer on {len(x.shape)} dimensions")
    zeros = torch.zeros(len(weight), dtype=weight.dtype)
    return graph.add("Gemm", [x, weight, zeros if bias is None else bias], foldable=True, transB=1)


def _matmul(graph: Graph, x: Value, weight: Tensor | Value) -> Value:
    if isinstance(weight, Tensor) and weight.ndim == 2 and len(x.shape) == 2:
        return _linear(graph, x, weight.T)
    return graph.add("MatMul", [x, weight])


def _batch_norm(
    graph: Graph,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,  # noqa: ARG001
    eps: float,
    *_: bool,
) -> Value:
    if training or mean is None or variance is None:
        raise Untranslated("a BatchNorm without statistics of its own")
    weight = torch.ones_like(mean) if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias
    if x.layer is None or x.uses != 1:  # what else reads the layer needs it as it was
        return graph.add("BatchNormalization", [x, weight, bias, mean, variance], epsilon=eps)
    scale = weight.double() / (variance.double() + eps).sqrt()
    kernel, offset = (constant_name(x.layer, place) for place in (1, 2))
    before = graph.constants[kernel]
    graph.constants[kernel] = before * scale.view(-1, *[1] * (before.ndim - 1))
    graph.constants[offset] = (graph.constants[offset] - mean) * scale + bias
    return Value(x.name, layer=x.layer)


def _prelu(graph: Graph, x: Value, slope: Tensor) -> Value:
    return graph.add("PRelu", [x, slope.reshape(-1, *[1] * (len(x.shape) - 2))])


def _leaky_relu(graph: Graph, x: Value, slope: float = 0.01) -> Value:
    return graph.add("LeakyRelu", [x], alpha=float(slope))


def _silu(graph: Graph, x: Value) -> Value:
    return graph.add("Mul", [x, graph.add("Sigmoid", [x])])


def _arithmetic(op: str, neutral: float) -> Translation:
    """Of two operands; a number that leaves the other as it is, such as a factor of 1, is left out."""

    def translate(graph: Graph, x: Any, y: Any, *, alpha: float = 1) -> Value:
        if alpha != 1:
            raise Untranslated(f"{op} with a factor")
        if isinstance(x, Value) and isinstance(y, int | float) and y == neutral:
            return Value(x.name, layer=x.layer)
        return graph.add(op, [one if isinstance(one, Value | Tensor) else torch.tensor(float(one)) for one in (x, y)])

    return translate


def _unary(op: str) -> Translation:
    return lambda graph, x, *_: graph.add(op, [x])


def _same(graph: Graph, x: Value, *_: Any, **__: Any) -> Value:  # noqa: ARG001
    return x


def _flatten(graph: Graph, x: Value, start: int = 0, end: int = -1) -> Value:
    if start != 1 or end not in (-1, len(x.shape) - 1):
        raise Untranslated(f"flatten from dimension {start} to {end}")
    return graph.add("Flatten", [x], axis=1)


def _reshape(graph: Graph, x: Value, shape: Sequence[int | Batch]) -> Value:
    """In ONNX 0 takes over a dimension of the input."""
    head, *rest = shape
    known = [one for one in rest if not isinstance(one, Batch)]
    kept = isinstance(head, Batch) or (head == -1 and math.prod(known) == math.prod(x.shape[1:]))
    if not kept or len(known) < len(rest):
        raise Untranslated("a reshape that does not keep the images apart")
    return graph.add("Reshape", [x, torch.tensor([0, *known])])


def _flip(graph: Graph, x: Value, dims: Sequence[int]) -> Value:
    (dim,) = dims
    return graph.add("Gather", [x, torch.arange(int(x.shape[dim])).flip(0)], axis=dim)


def _mean(graph: Graph, x: Value, dims: Sequence[int], keep: bool = False) -> Value:
    return graph.add("ReduceMean", [x], axes=list(dims), keepdims=int(keep))


def _vector_norm(graph: Graph, x: Value, order: float = 2, dims: Any = None, keep: bool = False, **_: Any) -> Value:
    if order != 2 or dims is None:
        raise Untranslated(f"a norm of order {order:g} over {'everything' if dims is None else dims}")
    return graph.add("ReduceL2", [x], axes=list(dims), keepdims=int(keep))


def _cat(graph: Graph, values: Sequence[Value | Tensor], dim: int = 0) -> Value:
    if dim == 0:
        raise Untranslated("a concatenation that does not keep the images apart")
    return graph.add("Concat", values, axis=dim)


def _pad(graph: Graph, x: Value, pads: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """torch names both ends of the last dimension first, ONNX all beginnings and then all ends."""
    before, after = ([*pads[end::2]][::-1] for end in (0, 1))
    whole = [0] * (len(x.shape) - len(before))
    ends = torch.tensor([*whole, *before, *whole, *after])
    return graph.add("Pad", [x, ends, torch.tensor(float(value or 0))], mode=mode)


def _permute(graph: Graph, x: Value, dims: Sequence[int]) -> Value:
    return graph.add("Transpose", [x], perm=[dim % len(x.shape) for dim in dims])


def _slice(
    graph: Graph, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    last = torch.iinfo(torch.int64).max
    bounds = (start or 0, last if end is None else end, dim, step)
    if bounds == (0, last, dim, 1):
        return x
    if dim == 0:
        raise Untranslated("a slice of the images")
    return graph.add("Slice", [x, *(torch.tensor([bound]) for bound in bounds)])


def _average_to(graph: Graph, x: Value, size: Sequence[int]) -> Value:
    if list(size) != [1, 1]:
        raise Untranslated(f"adaptive average pooling to {tuple(size)}")
    return graph.add("GlobalAveragePool", [x])


def _max_pool(
    graph: Graph,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil: bool = False,
) -> Value:
    top, left = _pair(padding)
    return graph.add(
        "MaxPool",
        [x],
        kernel_shape=_pair(kernel),
        strides=_pair(stride or kernel),
        pads=[top, left, top, left],
        dilations=_pair(dilation),
        ceil_mode=int(ceil),
    )


def _size(graph: Graph, x: Value, dim: int) -> Batch:  # noqa: ARG001
    if dim != 0:
        raise Untranslated(f"a size of dimension {dim} that is not known")
    return Batch()


def _item(graph: Graph, values: Sequence[Value], place: int) -> Value:  # noqa: ARG001
    return values[place]


def _pair(values: Sequence[int]) -> list[int]:
    return [*values] if len(values) == 2 else [values[0]] * 2


TRANSLATIONS: Mapping[Any, Translation] = MappingProxyType(
    {
        aten.adaptive_avg_pool2d.default: _average_to,
        aten.add.Tensor: _arithmetic("Add", 0.0),
        aten.batch_norm.default: _batch_norm,
        aten.cat.default: _cat,
        aten.conv2d.default: _conv,
        aten.div.Tensor: _arithmetic("Div", 1.0),
        aten.dropout.default: _same,
        aten.flatten.using_ints: _flatten,
        aten.flip.default: _flip,
        aten.leaky_relu.default: _leaky_relu,
        aten.linalg_vector_norm.default: _vector_norm,
        aten.linear.default: _linear,
        aten.matmul.default: _matmul,
        aten.max_pool2d.default: _max_pool,
        aten.maximum.default: _arithmetic("Max", -math.inf),
        aten.mean.dim: _mean,
        aten.minimum.default: _arithmetic("Min", math.inf),
        aten.mul.Tensor: _arithmetic("Mul", 1.0),
        aten.pad.default: _pad,
        aten.permute.default: _permute,
        aten.prelu.default: _prelu,
        aten.relu.default: _unary("Relu"),
        aten.relu_.default: _unary("Relu"),
        aten.reshape.default: _reshape,
        aten.sigmoid.default: _unary("Sigmoid"),
        aten.silu.default: _silu,
        aten.silu_.default: _silu,
        aten.slice.Tensor: _slice,
        aten.to.device: _same,
        aten.to.dtype: _same,  # all floats of a graph are of one type
        aten.sqrt.default: _unary("Sqrt"),
        aten.sub.Tensor: _arithmetic("Sub", 0.0),
        aten.sym_size.int: _size,
        aten.view.default: _reshape,
        operator.getitem: _item,
    }
)
"""What recognisers are made of."""
