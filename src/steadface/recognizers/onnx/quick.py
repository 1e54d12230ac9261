"""ONNX models rewritten for onnxruntime on a CPU: the same embeddings, sooner.

    PReLU(x) = a x + (1 - a) max(x, 0)        a the slope of each channel

onnxruntime convolves in a memory layout of its own, blocks of channels, and has no PReLU for it: around each one all
maps are laid out anew, twice. For max(x, 0), sums and BatchNormalization, here a factor for each channel, it has.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.float32]


def without_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place, its float32 PReLUs with a constant slope (C, 1, 1) written as other operations.

    What is still a PReLU afterwards is as it was. The metadata stay; the file's digest is another one.
    """
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    nodes = []
    for node in graph.node:
        slope = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or slope.data_type != onnx.TensorProto.FLOAT or list(slope.dims[1:]) != [1, 1]:
            nodes.append(node)
            continue
        made, factors = _rewritten(node, numpy_helper.to_array(slope).reshape(-1))
        nodes += made
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in factors.items())
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return model


def _rewritten(node: onnx.NodeProto, slope: Array) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Nodes in place of a PReLU, and their constants."""
    (y,), x = node.output, node.input[0]
    zeros, ones = np.zeros_like(slope), np.ones_like(slope)
    factors = {f"{y}/slope": slope, f"{y}/rest": 1 - slope, f"{y}/zeros": zeros, f"{y}/ones": ones}
    nodes = [
        helper.make_node("Relu", [x], [f"{y}/positive"], name=f"{y}/positive"),
        _scaled(x, f"{y}/slope", y),
        _scaled(f"{y}/positive", f"{y}/rest", y),
        helper.make_node("Add", [f"{y}/slope/scaled", f"{y}/rest/scaled"], [y], name=f"{y}/sum"),
    ]
    return nodes, factors


def _scaled(x: str, factor: str, y: str) -> onnx.NodeProto:
    """Every channel times its factor."""
    inputs = [x, factor, f"{y}/zeros", f"{y}/zeros", f"{y}/ones"]
    return helper.make_node("BatchNormalization", inputs, [f"{factor}/scaled"], name=f"{factor}/scaled", epsilon=0.0)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
