"""Which constants of a graph are weights that training may change, and a graph with others in their place.

Weights are the kernels and biases of convolutions and of products with a matrix, slopes, the scale and shift of
normalisations, and whatever exporters write of these as a sum or a product with several numbers behind the first layer.
What is done to the pixels before any layer is how they are taken, no weight; so are single numbers, shapes, and the
statistics of a BatchNormalization. A constant that anything else reads as well stays as it is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import numpy_helper

from steadface.recognizers.onnx.pixels import FOLDING
from steadface.recognizers.onnx.read import Array, Node, OnnxFile, file_of

LAYERS = ("Conv", "Gemm", "MatMul")

PLACES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "Conv": (1, 2),
        "Gemm": (1, 2),
        "MatMul": (0, 1),
        "PRelu": (1,),
        "BatchNormalization": (1, 2),
        "LayerNormalization": (1, 2),
    }
)
"""Of an operation's inputs, those that are weights where they are constants."""

WRITTEN_OUT = ("Add", "Sub", "Mul", "Div")
"""What biases, scales and slopes become where there is no operation for them."""


def learnable(file: OnnxFile) -> frozenset[str]:
    """The names of the constants that are weights of the output that `file` takes, all of them float32."""
    sources, behind, trained, others = dict[str, str](), set[str](), set[str](), set[str]()
    for node in file.nodes:
        if node.op in FOLDING and node.inputs[0] not in behind and (source := _source(node.inputs[0], file, sources)):
            sources[node.outputs[0]] = source
            others |= {name for name in node.inputs[1:] if name in file.constants}
            continue
        places = set(_places(node, behind, file, sources))
        for place, name in enumerate(node.inputs):
            if source := _source(name, file, sources):
                (trained if place in places else others).add(source)
        if node.op in LAYERS or behind & set(node.inputs):
            behind |= set(node.outputs)
    return frozenset(name for name in trained - others if _is_float(file.constants[name]))


def _source(name: str, file: OnnxFile, sources: Mapping[str, str]) -> str | None:
    """The constant that a value is, whatever shape it was brought into."""
    return name if name in file.constants else sources.get(name)


def _places(node: Node, behind: set[str], file: OnnxFile, sources: Mapping[str, str]) -> Iterator[int]:
    if node.op in LAYERS or (node.op in PLACES and behind & set(node.inputs)):
        yield from PLACES[node.op]
    elif node.op in WRITTEN_OUT and behind & set(node.inputs):
        for place, name in enumerate(node.inputs):
            source = _source(name, file, sources)
            if source is not None and file.constants[source].size > 1:
                yield place


def with_constants(file: OnnxFile, values: Mapping[str, Array]) -> OnnxFile:
    """The file with other numbers in place of some of its constants; all else is as it was, `file` among it."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    for tensor in _tensors(model.graph):
        name, held = tensor
        if name in values:
            like = numpy_helper.to_array(held)
            new = np.asarray(values[name], dtype=like.dtype).reshape(like.shape)
            if not np.array_equal(new, like):  # what stays the same stays as it is written
                held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new), held.name))
    return file_of(file.path, model).taking(file.output)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Constants by the name that nodes read them by, wherever they are kept."""
    for one in graph.initializer:
        yield one.name, one
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def folded(file: OnnxFile) -> tuple[OnnxFile, int]:
    """The file with every BatchNormalization folded into the convolution before it (`backbones/frozen.py`), node for
    node, and how many could not be; what is left of the others is a shift.

    Left alone are those behind something else, and those whose numbers, or whose convolution's, others read too.
    """
    whole = file_of(file.path, file.model)
    readers = Counter(name for node in whole.nodes for name in node.inputs) + Counter(whole.outputs)
    makers = {name: node for node in file.nodes for name in node.outputs}
    norms = [node for node in file.nodes if node.op == "BatchNormalization"]
    changed = dict[str, Array]()
    for norm in norms:
        layer = makers.get(norm.inputs[0])
        if layer is None or layer.op != "Conv" or readers[norm.inputs[0]] != 1:
            continue
        own = [*norm.inputs[1:5], *filter(None, layer.inputs[1:3])]
        if all(readers[name] == 1 and name in file.constants and _is_float(file.constants[name]) for name in own):
            changed |= _folded(norm, layer, file.constants)
    left = len([norm for norm in norms if norm.inputs[1] not in changed])
    return (with_constants(file, changed) if changed else file), left


def _is_float(value: Array) -> bool:
    return bool(value.dtype == np.float32)


def _folded(norm: Node, layer: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """The numbers of a convolution and of what is left of the BatchNormalization behind it."""
    scale, shift, mean, variance = (constants[name].astype(np.float64) for name in norm.inputs[1:5])
    epsilon = norm.attributes.get("epsilon", 1e-5)
    gain = scale / np.sqrt(variance + epsilon)
    kernel = constants[layer.inputs[1]]
    found = {
        layer.inputs[1]: kernel * gain.reshape(-1, *[1] * (kernel.ndim - 1)),
        norm.inputs[1]: np.ones_like(scale),
        norm.inputs[2]: shift - mean * gain,
        norm.inputs[3]: np.zeros_like(mean),
        norm.inputs[4]: np.full_like(variance, 1 - epsilon),
    }
    if len(layer.inputs) > 2 and layer.inputs[2]:
        found[layer.inputs[2]] = constants[layer.inputs[2]] * gain
    return found
