"""What a run of an ONNX graph holds and computes, told from its nodes without running it.

Every value's shape follows from that of the images: node by node, by the format's own rules (onnx's shape inference),
where integers that describe shapes are computed on the way. What depends on the pixels themselves has no size that can
be told, and is refused; so are operations that the format does not know. Legend, for images of one shape:

    live    the most numbers that are held at once, beside constants
    work    multiplications: of a convolution, outputs times the weights of each; of others numbers in and out
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TypeProto, defs, helper, numpy_helper, shape_inference
from onnx.shape_inference import InferenceError

from steadface.errors import InvalidInput, SteadfaceError, Unsupported, first_line, quoted
from steadface.graphs.reading import ELSEWHERE

MOST_LIVE = 1 << 24
"""Numbers at once for each image of a recogniser, 64 MB; IResNet-200 holds 3 million at 112 x 112."""
MOST_WORK = 1 << 37
"""Multiplications for each image, 137 billion: some seconds on a processor core; IResNet-200 has 24 billion."""
MOST_CONSTANT = 1 << 28
"""Numbers that nodes make of constants alone, and that stay: weights that are unpacked or turned."""
SMALL = 1 << 12
"""Numbers of a constant that are looked at; shapes and indices have a dozen."""
SLACK = 1 << 16
"""Numbers by which what is held may grow beyond the images."""

Array = NDArray[Any]
Shape = tuple[int, ...]


class Unrunnable(InvalidInput):
    """A graph that breaks the format's own rules, or takes no images of the shape."""


class Untold(Exception):
    """A size that cannot be told; the message says of what."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    live: int
    work: int


@dataclass(frozen=True, kw_only=True)
class _Value:
    """`array` where its numbers are known, `constant` where they do not depend on the images."""

    shape: Shape
    kind: int
    array: Array | None = None
    constant: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def type(self) -> TypeProto:
        return helper.make_tensor_type_proto(self.kind, self.shape)


def check_growth(path: Path, model: onnx.ModelProto, few: Shape, many: Shape, *, live: int, work: int) -> None:
    """That images of the shapes `few` and `many` cost no more than `live` and `work` for each of `few`, and that what
    is held grows no faster than the images.

    Raises InvalidInput for what costs more, and Unsupported where it cannot be told.
    """
    times = math.prod(many) // math.prod(few)
    least = check_cost(path, model, few, live=live, work=work)
    if times > 1:
        most = check_cost(path, model, many, live=times * live, work=times * work)
        if most.live > times * least.live + SLACK:
            raise InvalidInput(f"{path} holds numbers that grow faster than its images; {ELSEWHERE}")


def check_cost(path: Path, model: onnx.ModelProto, images: Shape, *, live: int, work: int) -> Cost:
    """What a run on `images` costs. Raises SteadfaceError where it is beyond these bounds, or cannot be told."""
    try:
        return _Run(model, images, live, work).cost()
    except _Beyond as error:
        shape = " x ".join(map(str, images))
        raise InvalidInput(
            f"{path} {error} for images of {shape}; it is no network of faces, or a damaged one"
        ) from None
    except Untold as error:
        raise Unsupported(
            f"{path}: what it takes to run it cannot be told, since {error}; write it without that, or {ELSEWHERE}"
        ) from None
    except SteadfaceError:
        raise
    except Exception as error:  # onnx's own of a damaged graph, and what numpy raises of its numbers
        raise Unrunnable(f"{path} is not a graph that can be run ({first_line(error)}); it may be damaged") from error


class _Beyond(Exception):
    pass


class _Run:
    def __init__(self, model: onnx.ModelProto, images: Shape, live: int, work: int) -> None:
        self._graph, self._bounds = model.graph, (live, work)
        self._versions = {("" if one.domain == "ai.onnx" else one.domain): one.version for one in model.opset_import}
        self._opsets = [helper.make_opsetid(key, version) for key, version in self._versions.items()]
        self._values = dict(_constants(self._graph))
        for one in self._graph.input:
            if one.name not in self._values:
                kind = one.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
                self._values[one.name] = _Value(shape=images, kind=kind)
        self._live = self._most = self._work = self._constant = 0

    def cost(self) -> Cost:
        self._follow(self._graph)
        return Cost(live=self._most, work=self._work)

    def _follow(self, graph: onnx.GraphProto) -> None:
        last = _last_reads(graph)
        for place, node in enumerate(graph.node):
            if node.op_type == "If" and node.domain == "":
                self._branch(node)
                continue
            given = [self._read(name) for name in node.input]
            found = self._outputs(node, given)
            self._hold(node, [one for one in given if one is not None], found)
            for name in last[place]:
                if (value := self._values.get(name)) is not None and not value.constant:
                    self._live -= value.count

    def _branch(self, node: NodeProto) -> None:
        """The branch that is taken, where that does not depend on the pixels."""
        condition = self._read(node.input[0])
        if condition is None or condition.array is None or condition.count != 1:
            raise Untold("it decides by the pixels what it computes (If)")
        wanted = "then_branch" if condition.array.reshape(-1)[0] else "else_branch"
        graphs = {one.name: one.g for one in node.attribute}
        graph = graphs.pop(wanted)
        for other in graphs.values():
            self._fold(other)
        self._values.update(_constants(graph))
        self._follow(graph)
        for name, inner in zip(node.output, graph.output, strict=True):
            self._values[name] = self._values[inner.name]

    def _fold(self, graph: onnx.GraphProto) -> None:
        """What follows from constants alone in a branch that is not taken: onnxruntime computes that nevertheless."""
        self._values.update(_constants(graph))
        for node in graph.node:
            for one in node.attribute:
                self._fold(one.g)
            given = [self._values.get(name) for name in node.input]
            if all(one.constant if one else not name for name, one in zip(node.input, given, strict=True)):
                with suppress(InferenceError, ValueError, IndexError):  # what breaks the rules is not computed
                    self._hold(node, [one for one in given if one], self._outputs(node, given))

    def _read(self, name: str) -> _Value | None:
        if not name:
            return None
        if name not in self._values:
            raise ValueError(f"it reads {quoted(name)}, which nothing makes before")
        return self._values[name]

    def _outputs(self, node: NodeProto, given: Sequence[_Value | None]) -> dict[str, _Value]:
        _check_own(node, given)
        constant = node.op_type != "RandomNormal" and all(one is None or one.constant for one in given)
        if node.op_type in _BY_SHAPE and not node.domain and given and given[0] is not None:
            array = _BY_SHAPE[node.op_type](given[0].shape, _attributes(node))
            return {node.output[0]: _Value(shape=array.shape, kind=7, array=array, constant=True)}
        found = self._inferred(node, given)
        computed = _computed(node, given, found)
        return {
            name: _Value(shape=one.shape, kind=one.kind, constant=constant, array=computed if not place else None)
            for place, (name, one) in enumerate(found.items())
        }

    def _inferred(self, node: NodeProto, given: Sequence[_Value | None]) -> dict[str, _Value]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in _LIKE:
            return {node.output[0]: _alike([given[place] for place in _LIKE[node.domain, node.op_type]])}
        try:
            schema = defs.get_schema(node.op_type, self._versions.get(domain, 1), domain)
        except Exception:  # onnx's own, of no public type
            raise Untold(f"the operation {quoted(node.op_type)} is none of ONNX's own") from None
        names = {name: one for name, one in zip(node.input, given, strict=True) if one is not None}
        types = shape_inference.infer_node_outputs(
            schema,
            node,
            {name: one.type for name, one in names.items()},
            {name: numpy_helper.from_array(one.array, name) for name, one in names.items() if one.array is not None},
            opset_imports=self._opsets,
        )
        return {name: _value_of(types.get(name), node) for name in node.output if name}

    def _hold(self, node: NodeProto, given: Sequence[_Value], found: Mapping[str, _Value]) -> None:
        self._values.update(found)
        if node.op_type in ("Resize", "Upsample") and not all(one.count for one in found.values()):
            raise ValueError("it resizes a map to nothing")  # on which OpenCV takes the process down
        if node.op_type == "Constant":  # no larger than the file
            return
        if any(one.kind == _TEXT for one in found.values()):
            raise Untold(f"it makes texts, of any length ({quoted(node.op_type)})")
        self._live += sum(one.count for one in found.values() if not one.constant)
        self._constant += sum(one.count for one in found.values() if one.constant)
        self._most = max(self._most, self._live)
        self._work += _work(node, given, list(found.values()))
        live, work = self._bounds
        bounds = (("holds", self._live, live), ("computes", self._work, work), ("keeps", self._constant, MOST_CONSTANT))
        for what, have, most in bounds:
            if have > most:
                raise _Beyond(f"{what} {have:,} numbers at {quoted(node.op_type)}, more than {most:,},")


def _check_own(node: NodeProto, given: Sequence[_Value | None]) -> None:
    """Raises Untold for what takes more than its numbers tell, or ends the process: a whole number divided by zero, or
    the lowest one by -1; products of several arrays, each of which is made on the way.
    """
    by = given[1] if node.op_type in ("Div", "Mod") and len(given) == 2 else None
    if by and by.kind not in _FRACTIONS and (by.array is None or not by.array.all() or (by.array == -1).any()):
        raise Untold(f"it divides whole numbers by what is not known, by 0 or by -1 ({quoted(node.op_type)})")
    if node.op_type == "Einsum" and len(given) > 2:
        raise Untold("it multiplies more than two arrays at once ('Einsum')")


def _constants(graph: onnx.GraphProto) -> Iterable[tuple[str, _Value]]:
    for one in graph.initializer:
        shape = tuple(one.dims)
        array = numpy_helper.to_array(one) if 0 <= math.prod(shape) <= SMALL and _is_plain(one.data_type) else None
        yield one.name, _Value(shape=shape, kind=one.data_type, array=array, constant=True)


def _is_plain(kind: int) -> bool:
    """A type that numpy has; text and the small ones are no shapes."""
    return kind in (1, 6, 7, 9, 11)


def _last_reads(graph: onnx.GraphProto) -> list[list[str]]:
    """For each node the values that no later one reads; what the graph gives is kept, and what its branches read."""
    kept = {one.name for one in graph.output} | {one.name for one in graph.input}
    last: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        if node.op_type == "If":
            kept.update(_read_inside(node))
        last.update(dict.fromkeys([*node.input, *node.output], place))
    names: list[list[str]] = [[] for _ in graph.node]
    made = {name for node in graph.node for name in node.output if node.op_type != "If"}
    for name in (last.keys() & made) - kept:
        names[last[name]].append(name)
    return names


def _read_inside(node: NodeProto) -> set[str]:
    inner = [one for attribute in node.attribute for one in attribute.g.node]
    return {name for one in inner for name in one.input} | {name for one in inner for name in _read_inside(one)}


_FRACTIONS = (1, 10, 11, 16)
"""Types of floating point."""
_TEXT = 8

_LIKE: Mapping[tuple[str, str], tuple[int, ...]] = MappingProxyType(
    {
        ("com.microsoft", name): places
        for names, places in (
            (("QLinearAdd", "QLinearMul"), (0, 3)),
            (("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "Gelu", "FastGelu", "QuickGelu"), (0,)),
            (("BiasGelu",), (0, 1)),
        )
        for name in names
    }
)
"""What quantised and optimised networks have beside ONNX's own, and the inputs whose common shape the output has."""


def _alike(given: Sequence[_Value | None]) -> _Value:
    held = [one for one in given if one is not None]
    return _Value(shape=np.broadcast_shapes(*(one.shape for one in held)), kind=held[0].kind)


def _value_of(kind: TypeProto | None, node: NodeProto) -> _Value:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        raise Untold(f"the size of what {quoted(node.op_type)} gives depends on the pixels, or on nothing known")
    dims = kind.tensor_type.shape.dim
    if any(not one.HasField("dim_value") or one.dim_value < 0 for one in dims):
        raise Untold(f"the size of what {quoted(node.op_type)} gives depends on the pixels, or on nothing known")
    return _Value(shape=tuple(one.dim_value for one in dims), kind=kind.tensor_type.elem_type)


_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "DeformConv": 1, "QLinearConv": 3}
"""Which input is the weights (outputs, inputs of each, ...)."""
_PRODUCTS = frozenset({"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
_HEAVY = frozenset(
    (
        *("Attention", "Col2Im", "ConvTranspose", "DFT", "Det", "Einsum", "GRU", "LRN", "LSTM", "LinearAttention"),
        *("MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "RNN", "RotaryEmbedding", "STFT", "TfIdfVectorizer"),
    )
)
"""Whose work is bounded by every number of one input with every number of another."""


def _work(node: NodeProto, given: Sequence[_Value], found: Sequence[_Value]) -> int:
    given_count, found_count = sum(one.count for one in given), sum(one.count for one in found)
    work = given_count + found_count
    if (place := _CONVOLUTIONS.get(node.op_type)) is not None and len(given) > place:
        return work + found_count * math.prod(given[place].shape[1:])
    if node.op_type in _PRODUCTS and given:
        return work + found_count * max(given[0].shape[-2:], default=1)
    if node.op_type in _HEAVY:
        return work + math.prod(sorted(one.count for one in given)[-2:]) + found_count * max(1, given_count)
    window: tuple[int, ...] = tuple(_attributes(node).get("kernel_shape", ()))
    return work + found_count * math.prod(window) * bool(window)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


_BY_SHAPE: Mapping[str, Callable[[Shape, dict[str, Any]], Array]] = MappingProxyType(
    {
        "Shape": lambda shape, a: np.array(shape[a.get("start", 0) : a.get("end")], dtype=np.int64),
        "Size": lambda shape, _: np.array(math.prod(shape), dtype=np.int64),
    }
)


def _computed(node: NodeProto, given: Sequence[_Value | None], found: Mapping[str, _Value]) -> Array | None:
    """The numbers of a node's output, where they are few and follow from few known ones."""
    if len(found) != 1 or node.domain not in ("", "ai.onnx"):
        return None
    (value,) = found.values()
    if value.count > SMALL or not _is_plain(value.kind) or any(one and one.array is None for one in given):
        return None
    if node.op_type == "Constant":
        return _constant(node, value)
    if node.op_type not in _ARITHMETIC:
        return None
    with np.errstate(all="ignore"):
        array = _ARITHMETIC[node.op_type]([one and one.array for one in given], _attributes(node))
    kind = helper.tensor_dtype_to_np_dtype(value.kind)
    # As onnxruntime would have it: a result of another shape than the rules say is none.
    return np.asarray(array, dtype=kind) if np.shape(array) == value.shape else None


def _constant(node: NodeProto, value: _Value) -> Array | None:
    content: Any = next(iter(_attributes(node).values()))
    if isinstance(content, onnx.TensorProto):
        return np.asarray(numpy_helper.to_array(content))
    return np.asarray(content, dtype=helper.tensor_dtype_to_np_dtype(value.kind)).reshape(value.shape)


Given = Sequence[Any]


def _numbers(given: Given, place: int, a: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """What older versions give as an attribute and newer ones as an input."""
    if place < len(given) and given[place] is not None:
        return [int(one) for one in np.reshape(given[place], -1)]
    return a.get(name, default)


def _squeeze(given: Given, a: Mapping[str, Any]) -> Array:
    axes = _numbers(given, 1, a, "axes")
    return np.asarray(np.squeeze(given[0], None if axes is None else tuple(axes)))


def _slice(given: Given, a: Mapping[str, Any]) -> Array:
    x, starts, ends = given[0], _numbers(given, 1, a, "starts"), _numbers(given, 2, a, "ends")
    axes = _numbers(given, 3, a, "axes") or range(len(starts))
    steps = _numbers(given, 4, a, "steps") or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Of a step backwards the end before the first is one that Python does not have.
        cut[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    found: Array = x[tuple(cut)]
    return found


def _reshape(given: Given, a: Mapping[str, Any]) -> Array:
    x, shape = given[0], _numbers(given, 1, a, "shape")
    return np.reshape(x, [size if size else x.shape[place] for place, size in enumerate(shape)])


def _divide(given: Given, _: Mapping[str, Any]) -> Array:
    left, right = np.asarray(given[0]), np.asarray(given[1])
    if left.dtype.kind == "f":
        return np.asarray(left / right)
    if not right.all():
        raise Untold("it divides a size by zero")
    return np.asarray(np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right)))


def _reduced(function: Callable[..., Array]) -> Callable[[Given, Mapping[str, Any]], Array]:
    def apply(given: Given, a: Mapping[str, Any]) -> Array:
        axes = _numbers(given, 1, a, "axes")
        return function(given[0], axis=None if not axes else tuple(axes), keepdims=bool(a.get("keepdims", 1)))

    return apply


def _each(function: Callable[..., Any]) -> Callable[[Given, Mapping[str, Any]], Array]:
    return lambda given, _: function(*given)


_ARITHMETIC: Mapping[str, Callable[[Given, Mapping[str, Any]], Any]] = MappingProxyType(
    {
        "Add": _each(np.add),
        "And": _each(np.logical_and),
        "Cast": lambda given, a: np.asarray(given[0]).astype(helper.tensor_dtype_to_np_dtype(a["to"])),
        "Ceil": _each(np.ceil),
        "Concat": lambda given, a: np.concatenate(list(given), axis=a["axis"]),
        "ConstantOfShape": lambda given, a: np.full(
            [int(one) for one in given[0]],
            numpy_helper.to_array(a["value"]).reshape(-1)[0] if "value" in a else np.float32(0),
        ),
        "Div": _divide,
        "Equal": _each(np.equal),
        "Expand": _each(lambda x, shape: x * np.ones([int(one) for one in shape], dtype=x.dtype)),
        "Flatten": lambda given, _: np.reshape(given[0], (1, -1)),
        "Floor": _each(np.floor),
        "Gather": lambda given, a: np.take(given[0], given[1], axis=a.get("axis", 0)),
        "Greater": _each(np.greater),
        "Identity": lambda given, _: given[0],
        "Less": _each(np.less),
        "Max": lambda given, _: np.max(np.broadcast_arrays(*given), axis=0),
        "Min": lambda given, _: np.min(np.broadcast_arrays(*given), axis=0),
        "Mul": _each(np.multiply),
        "Neg": _each(np.negative),
        "Not": _each(np.logical_not),
        "Or": _each(np.logical_or),
        "Range": _each(lambda start, end, step: np.arange(start, end, step)),
        "ReduceMax": _reduced(np.max),
        "ReduceMin": _reduced(np.min),
        "ReduceProd": _reduced(np.prod),
        "ReduceSum": _reduced(np.sum),
        "Reshape": _reshape,
        "Slice": _slice,
        "Squeeze": _squeeze,
        "Sub": _each(np.subtract),
        "Transpose": lambda given, a: np.transpose(given[0], a.get("perm")),
        "Unsqueeze": lambda given, a: np.expand_dims(given[0], tuple(_numbers(given, 1, a, "axes"))),
        "Where": _each(np.where),
    }
)
"""What exporters make shapes with."""
