"""Rectifiers of a graph with their corners rounded, written as standard operations and read again as one.

    |x| ~ m(x) = sqrt(x^2 + c^2) - c          max(x, 0) = (x + m) / 2        min(x, 0) = x - (x + m) / 2
    PReLU(x) = p + a (x - p),  p = (x + m) / 2

as in `backbones.base.PReLU`, where a is the slope, and c, the half-width, is relative to the deviation of what the
rectifier is given. Rectifiers that exporters write as maxima, minima and magnitudes of one value are rounded alike. A
rectifier that is cut off above (ReLU6) stays: what cuts it off would bring its corner back.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from steadface.recognizers.onnx.read import Array, Node, OnnxFile, file_of

ROUNDED = "a rounded rectifier"
"""The operation that a group of nodes is read as: of x, and a slope where there is one."""

CORNERED = ("Relu", "PRelu", "LeakyRelu")
PARTS = ("Max", "Min", "Abs")
"""Of a rectifier that is written out, where they share their input; Max and Min with 0."""
CUTTING = ("Min", "Max", "Clip")

OLDEST = 7
"""The opset from which on shapes are matched as they are here."""


def rectifiers(file: OnnxFile) -> tuple[list[Node], list[Node]]:
    """The nodes with a corner that can be rounded, and those that have one and stay."""
    readers = defaultdict(list)
    for node in file.nodes:
        for name in node.inputs:
            readers[name].append(node)
    found, left = [], []
    for node in file.nodes:
        x = cornered(node, file.constants)
        if x is None:
            continue
        if node.op in PARTS:
            beside = {other.op for other in readers[x] if other is not node and cornered(other, file.constants) == x}
            fit = bool(beside)
        else:
            fit = not any(one.op in CUTTING for one in readers[node.outputs[0]])
        if fit and file.opset >= OLDEST:
            found.append(node)
        elif node.op in CORNERED:
            left.append(node)
    return found, left


def cornered(node: Node, constants: Mapping[str, Array]) -> str | None:
    """What a node rectifies, or takes a part of that a rectifier is made of; None for any other node."""
    if node.op in (*CORNERED, "Abs"):
        return node.inputs[0]
    if node.op in ("Max", "Min") and len(node.inputs) == 2:
        for one, other in (node.inputs, node.inputs[::-1]):
            if one in constants and not np.any(constants[one]) and other not in constants:
                return other
    return None


def rounded(file: OnnxFile, widths: Mapping[str, float]) -> OnnxFile:
    """The file with the corners of its `rectifiers` rounded; `widths` by the name of what they are given."""
    chosen = {node.outputs[0]: cornered(node, file.constants) for node in rectifiers(file)[0]}
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        x = chosen.get(node.output[0]) if node.output else None
        width = 0.0 if x is None else widths.get(x, 0.0)
        nodes += [node] if x is None or not width > 0 else _written(node, x, width)
    unread = _read(model.graph.node) - _read(nodes)
    kept = [one for one in model.graph.initializer if one.name not in unread]
    for field, values in ((model.graph.node, nodes), (model.graph.initializer, kept)):
        del field[:]
        field.extend(values)
    return file_of(file.path, model).taking(file.output)


def _read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.input}


def _written(node: onnx.NodeProto, x: str, width: float) -> list[onnx.NodeProto]:
    """Nodes in place of one with a corner."""
    y, made = node.output[0], list[onnx.NodeProto]()

    def name(part: str) -> str:
        return f"{y}/rounded/{part}"

    def constant(part: str, value: float) -> str:
        tensor = numpy_helper.from_array(np.array(value, dtype=np.float32), name(part))
        made.append(helper.make_node("Constant", [], [name(part)], name=name(part), value=tensor))
        return name(part)

    def add(op: str, inputs: list[str], part: str, *, last: bool = False) -> str:
        output = y if last else name(part)
        made.append(helper.make_node(op, inputs, [output], name=name(part)))
        return output

    corner = constant("corner", width)
    square = add("Add", [add("Mul", [x, x], "square"), constant("corner_square", width * width)], "sum")
    root = add("Sqrt", [square], "root")
    if node.op_type == "Abs":
        add("Sub", [root, corner], "magnitude", last=True)
        return made
    both = add("Sub", [add("Add", [x, root], "both"), corner], "twice")
    positive = add("Mul", [both, constant("half", 0.5)], "positive", last=node.op_type in ("Relu", "Max"))
    if node.op_type in ("Relu", "Max"):
        return made
    negative = add("Sub", [x, positive], "negative", last=node.op_type == "Min")
    if node.op_type == "Min":
        return made
    slope = node.input[1] if node.op_type == "PRelu" else constant("slope", _alpha(node))
    add("Add", [positive, add("Mul", [negative, slope], "sloped")], "y", last=True)
    return made


def _alpha(node: onnx.NodeProto) -> float:
    return next((float(one.f) for one in node.attribute if one.name == "alpha"), 0.01)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes that are one rounded rectifier, the last of which gives its value."""

    nodes: tuple[Node, ...]
    joined: Node


def joined(nodes: Sequence[Node], constants: Mapping[str, Array]) -> list[Node]:
    """The nodes with each group that stands for a rectifier, as `rounded` and exports of `backbones.base.PReLU` write
    it, as one of the operation `ROUNDED`.
    """
    last, dropped = dict[int, Node](), set[int]()
    for group in groups(nodes, constants):
        last[id(group.nodes[-1])] = group.joined
        dropped |= {id(node) for node in group.nodes}
    return [last.get(id(node), node) for node in nodes if id(node) in last or id(node) not in dropped]


def groups(nodes: Sequence[Node], constants: Mapping[str, Array]) -> Iterator[Group]:
    """The nodes of each rectifier with a rounded corner."""
    makers = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        for name in node.inputs:
            readers[name].append(node)

    def sole(node: Node, op: str) -> Node | None:
        """The one node that reads what `node` gives, if it is of that operation."""
        found = readers[node.outputs[0]]
        return found[0] if len(found) == 1 and found[0].op == op else None

    for root in nodes:
        total = makers.get(root.inputs[0]) if root.op == "Sqrt" else None
        square = makers.get(total.inputs[0]) if total is not None and total.op == "Add" else None
        if total is None or square is None or square.op != "Mul" or len(set(square.inputs)) != 1:
            continue
        x = square.inputs[0]
        both = sole(root, "Add")
        twice = None if both is None or both.inputs != (x, root.outputs[0]) else sole(both, "Sub")
        positive = None if twice is None else sole(twice, "Mul")
        if both is None or twice is None or positive is None or sole(square, "Add") is None:
            continue
        corner, half = _single(twice.inputs[1], constants), _single(positive.inputs[1], constants)
        again = _single(total.inputs[1], constants)
        if corner is None or half != 0.5 or again is None or not np.isclose(again, corner**2, rtol=1e-5, atol=0):
            continue
        chain = (square, total, root, both, twice, positive)
        yield _with_slope(x, chain, corner, readers, constants) or _group(chain, (x,), corner)


def _with_slope(
    x: str, chain: tuple[Node, ...], corner: float, readers: Mapping[str, list[Node]], constants: Mapping[str, Array]
) -> Group | None:
    positive = chain[-1].outputs[0]
    ops = {node.op: node for node in readers[positive]}
    if Counter(node.op for node in readers[positive]) != Counter(["Sub", "Add"]):
        return None
    negative, end = ops["Sub"], ops["Add"]
    sloped = readers[negative.outputs[0]]
    if negative.inputs != (x, positive) or len(sloped) != 1 or sloped[0].op != "Mul":
        return None
    product = sloped[0]
    slope = constants.get(product.inputs[1])
    alone = len(readers[product.inputs[1]]) == len(readers[product.outputs[0]]) == 1
    if slope is None or not alone or end.inputs != (positive, product.outputs[0]):
        return None
    if slope.size != 1 and (slope.ndim != 3 or slope.shape[1:] != (1, 1)):
        return None
    return _group((*chain, negative, product, end), (x, product.inputs[1]), corner)


def _group(nodes: tuple[Node, ...], inputs: tuple[str, ...], corner: float) -> Group:
    made = Node(op=ROUNDED, inputs=inputs, outputs=nodes[-1].outputs, attributes={"corner": corner})
    return Group(nodes=nodes, joined=made)


def _single(name: str, constants: Mapping[str, Array]) -> float | None:
    value = constants.get(name)
    return float(value.reshape(())) if value is not None and value.size == 1 and value.dtype.kind == "f" else None
