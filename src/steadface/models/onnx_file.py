"""An ONNX file of a recogniser: its nodes and constants as plain data, and what it says of the pixels that it takes.

Facts of the format: one input of images, NCHW or NHWC, mostly with a dynamic batch. Nothing states the pixel range; a
graph whose first nodes normalise takes raw pixels, others take (x - 127.5) / 127.5 as InsightFace's do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from steadface.backbones.filekinds import refuse_other_than_onnx
from steadface.errors import SteadfaceError
from steadface.models.convention import SIZE, Convention, Known

FIRST = 8
"""InsightFace's rule: with Sub and Mul among so many first nodes the graph takes pixels in 0..255."""

WIDEST = 16.0
"""Normalised pixels span a few units, so what multiplies by more than 16/255 is not made for 0..255."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation; an empty name stands for an input that is left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """`batch` and `size` (height, width) are None where the graph leaves them open; `channels_last` is NHWC."""

    path: Path
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str
    output: str
    batch: int | None
    size: tuple[int, int] | None
    channels_last: bool
    half: bool
    opset: int
    digest: str

    def convention(self) -> Convention:
        """What the graph says of the pixels; defaults where it says nothing."""
        found = pixel_range(self.nodes, self.constants, self.input)
        known = Known(
            size="default" if self.size is None else "file",
            pixel_range="default" if found is None else "file",
            channel_order="default",
        )
        return Convention(size=self.size or SIZE, pixel_range=found or "-1..1", known=known)


def read_onnx(path: Path) -> OnnxFile:
    """Raises SteadfaceError for a file that is no ONNX model, and for inputs that are not RGB images."""
    refuse_other_than_onnx(path)
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's and onnx's own, which share no base class
        raise SteadfaceError(f"{path} is not a readable ONNX file ({error}); it may be truncated") from error
    graph = model.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = []
    for one in graph.node:
        node = _node(one)
        value = _constant(node)
        if value is None:
            nodes.append(node)
        else:
            constants[node.outputs[0]] = value
    images = [one for one in graph.input if one.name not in constants]
    if len(images) != 1 or not graph.output:
        names = ", ".join(one.name for one in images) or "none"
        raise SteadfaceError(f"{path} has {len(images)} inputs ({names}); a recogniser has one, of images")
    batch, size, channels_last = _layout(path, images[0])
    return OnnxFile(
        path=path,
        nodes=tuple(nodes),
        constants=constants,
        input=images[0].name,
        output=graph.output[0].name,
        batch=batch,
        size=size,
        channels_last=channels_last,
        half=images[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16,
        opset=max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1),
        digest=_digest(model, constants),
    )


def pixel_range(nodes: tuple[Node, ...], constants: Mapping[str, Array], images: str) -> str | None:
    """The range that a graph's own normalisation asks for; None where it has none.

    The constants of `scale * x + shift` on the images tell it; where they cannot be followed, InsightFace's rule holds.
    """
    scale, shift = _affine(nodes, constants, images)
    if (scale, shift) == (1.0, 0.0):
        return "0..255" if {"Sub", "Mul"} <= {node.op for node in nodes[:FIRST]} else None
    return "0..255" if 255 * abs(scale) <= WIDEST or abs(shift) > WIDEST else "0..1"


def _affine(nodes: tuple[Node, ...], constants: Mapping[str, Array], images: str) -> tuple[float, float]:
    """(scale, shift) that the graph applies to its images first, averaged over the colours."""
    scale, shift, current = 1.0, 0.0, images
    for node in nodes[:FIRST]:
        if current not in node.inputs:
            continue
        if node.op in ("Identity", "Cast", "Transpose"):
            current = node.outputs[0]
            continue
        first, *others = node.inputs
        value = constants.get(others[0] if first == current else first) if len(others) == 1 else None
        if value is None or value.size not in (1, 3):
            break
        number = float(np.mean(value))
        if node.op == "Mul":
            scale, shift = scale * number, shift * number
        elif node.op == "Div" and first == current and number:
            scale, shift = scale / number, shift / number
        elif node.op == "Add":
            shift += number
        elif node.op == "Sub" and first == current:
            shift -= number
        else:
            break
        current = node.outputs[0]
    return scale, shift


def _node(one: onnx.NodeProto) -> Node:
    attributes = {attribute.name: _value(onnx.helper.get_attribute_value(attribute)) for attribute in one.attribute}
    op = one.op_type if one.domain in ("", "ai.onnx") else f"{one.domain}.{one.op_type}"
    return Node(op=op, inputs=tuple(one.input), outputs=tuple(one.output), attributes=attributes)


def _value(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def _constant(node: Node) -> Array | None:
    """What a Constant node holds; None for any other node."""
    if node.op != "Constant" or not node.attributes:
        return None
    (name, value), *_ = node.attributes.items()
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name == "value":
        return np.asarray(value)
    return np.asarray(value, dtype=kinds[name]) if name in kinds else None


def _layout(path: Path, images: onnx.ValueInfoProto) -> tuple[int | None, tuple[int, int] | None, bool]:
    """(batch, size, whether the colours come last)."""
    shape = [dimension.dim_value or None for dimension in images.type.tensor_type.shape.dim]
    if len(shape) == 4 and 3 in (shape[1], shape[3]):
        channels_last = shape[1] != 3
        height, width = shape[1:3] if channels_last else shape[2:]
        return shape[0], None if height is None or width is None else (height, width), channels_last
    if len(shape) == 4 and shape[1] is None:
        return shape[0], None, False
    given = "x".join("?" if one is None else str(one) for one in shape) or "nothing"
    raise SteadfaceError(f"{path} takes {given}; a recogniser takes images of 3 colours, (B, 3, H, W) or (B, H, W, 3)")


def _digest(model: onnx.ModelProto, constants: Mapping[str, Array]) -> str:
    """SHA-256 of the graph and of its weights, wherever they lie; what is noted beside them does not count.

    Leaves nothing of the model but its graph: to be called last.
    """
    for field in ("metadata_props", "doc_string", "producer_name", "producer_version"):
        model.ClearField(field)
    model.graph.ClearField("initializer")
    whole = hashlib.sha256(model.SerializeToString(deterministic=True))
    for name in sorted(constants):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(constants[name]).tobytes())
    return whole.hexdigest()
