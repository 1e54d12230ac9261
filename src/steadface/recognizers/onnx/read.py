"""An ONNX file of a recogniser: its nodes and constants as plain data.

Facts of the format: one input of images, NCHW or NHWC, mostly with a dynamic batch, and one output or several.
"""

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from steadface.backbones.filekinds import first_few, refuse_other_than_onnx, shown
from steadface.errors import InvalidInput, SteadfaceError, first_line
from steadface.graphs.reading import field_at, read_model
from steadface.recognizers.noted import Noted

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
    """`batch` and `size` (height, width) are None where the graph leaves them open; `channels_last` is NHWC; `dtype` is
    that of the images. `output` is the one of `outputs` that is taken, and `nodes` lead to it. `model` is the whole
    file as it was read, with its weights.
    """

    path: Path
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str
    output: str
    outputs: tuple[str, ...]
    batch: int | None
    size: tuple[int, int] | None
    channels_last: bool
    dtype: np.dtype[Any]
    opset: int
    digest: str
    model: onnx.ModelProto = field(repr=False, compare=False)

    def __deepcopy__(self, _: Any) -> "OnnxFile":
        return self  # it is never changed, and as large as the network that holds it

    def taking(self, output: str) -> "OnnxFile":
        """The file with another of its outputs, and the nodes that lead there."""
        return replace(self, output=output, nodes=_leading_to(output, self.nodes))

    @property
    def content(self) -> str:
        """The digest of what is taken of the file."""
        if self.output == self.outputs[0]:
            return self.digest
        return hashlib.sha256(f"{self.digest} {self.output}".encode()).hexdigest()


def read_onnx(path: Path) -> OnnxFile:
    """Raises SteadfaceError for a file that is not an ONNX model, and for inputs that are not RGB images."""
    refuse_other_than_onnx(path)
    return file_of(path, read_model(path))


def file_of(path: Path, model: onnx.ModelProto) -> OnnxFile:
    """A model that was read from `path`, or is to be written there. Raises SteadfaceError as `read_onnx`."""
    try:
        nodes, constants = _contents(model.graph)
        return _file(path, model, nodes, constants)
    except SteadfaceError:
        raise
    except Exception as error:  # numpy's and onnx's own, of numbers that are not as many as they should be
        raise InvalidInput(f"{path} is damaged ({first_line(error)}); fetch it again") from error


def _contents(graph: onnx.GraphProto) -> tuple[tuple[Node, ...], dict[str, Array]]:
    """The nodes that compute, and all constants."""
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = []
    for one in graph.node:
        node = _node(one)
        if not node.outputs:
            raise ValueError("an operation without an output")
        value = _constant(node)
        if value is None:
            nodes.append(node)
        else:
            constants[node.outputs[0]] = value
    return tuple(nodes), constants


def _file(path: Path, model: onnx.ModelProto, nodes: tuple[Node, ...], constants: dict[str, Array]) -> OnnxFile:
    graph = model.graph
    images = [one for one in graph.input if one.name not in constants]
    if len(images) != 1 or not graph.output:
        names = first_few([one.name for one in images], shown) or "none"
        raise InvalidInput(f"{path} has {len(images)} inputs ({names}); a recogniser has one, of images")
    batch, size, channels_last = _layout(path, images[0])
    return OnnxFile(
        path=path,
        nodes=nodes,
        constants=constants,
        input=images[0].name,
        output=graph.output[0].name,
        outputs=tuple(one.name for one in graph.output),
        batch=batch,
        size=size,
        channels_last=channels_last,
        dtype=_dtype(path, images[0]),
        opset=max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1),
        digest=_digest(model, constants),
        model=model,
    )


def _leading_to(output: str, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs) - {""}
            kept.append(node)
    return tuple(reversed(kept))


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
    raise InvalidInput(f"{path} takes {given}; a recogniser takes images of 3 colours, (B, 3, H, W) or (B, H, W, 3)")


def _dtype(path: Path, images: onnx.ValueInfoProto) -> np.dtype[Any]:
    kind = images.type.tensor_type.elem_type
    found = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else np.dtype(np.float32)
    if found not in (np.float16, np.float32, np.float64, np.uint8):
        raise InvalidInput(f"{path} takes images of {found}; a recogniser takes float or uint8 pixels")
    return found


def _digest(model: onnx.ModelProto, constants: Mapping[str, Array]) -> str:
    """SHA-256 of the graph and of its weights, wherever they lie; what is noted beside them does not count."""
    bare, weights = onnx.ModelProto(), list(model.graph.initializer)
    model.graph.ClearField("initializer")  # a message of more than 2 GB can be neither copied nor written
    bare.CopyFrom(model)
    model.graph.initializer.extend(weights)
    for part in ("metadata_props", "doc_string", "producer_name", "producer_version"):
        bare.ClearField(part)
    whole = hashlib.sha256(bare.SerializeToString(deterministic=True))
    for name in sorted(constants):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(constants[name]).tobytes())
    return whole.hexdigest()


def read_properties(path: Path) -> dict[str, str]:
    """What is noted beside the graph (`metadata_props`, the first of each name); the graph itself is passed over.

    Raises SteadfaceError for a file that is not an ONNX model or ends too early.
    """
    refuse_other_than_onnx(path)
    found: dict[str, str] = {}
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for part in _noted(data):
                entry = onnx.StringStringEntryProto.FromString(part)
                found.setdefault(entry.key, entry.value)
    except Exception as error:  # protobuf's own among them, which share no base class
        raise InvalidInput(f"{path} is not a readable ONNX file ({first_line(error)}); it may be truncated") from error
    return found


NOTED = "steadface_network"
"""The entry of the metadata that holds what is `Noted`, and where the file comes from."""


def noted_in(file: OnnxFile) -> Noted | None:
    """What is noted in a file; None where we did not write it. Raises InvalidInput for what cannot be."""
    text = next((one.value for one in file.model.metadata_props if one.key == NOTED), None)
    return None if text is None else Noted.read(text, file.path)


def facts_in(path: Path) -> dict[str, Any]:
    """What was noted of where the file comes from; empty for a file that we did not write."""
    try:
        noted = json.loads(read_properties(path).get(NOTED, "{}"))
        return dict(noted.get("facts", {}))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{path}: its entry {NOTED} cannot be read ({error}); put the file back") from error


METADATA_PROPS = 14
"""The field's number in ModelProto."""

MOST_FIELDS = 1 << 12
"""Parts of a ModelProto; those of published models have ten, and some notes."""

MOST_NOTED = 16 << 20
"""Bytes of a note; contracts with guards have some 100,000."""


def _noted(data: mmap.mmap) -> Iterator[bytes]:
    """The metadata of a model, in place."""
    place = 0
    for _ in range(MOST_FIELDS):
        if place >= len(data):
            return
        start, place, number = field_at(data, place, len(data))
        if number == METADATA_PROPS:
            if place - start > MOST_NOTED:
                raise ValueError(f"a note of {place - start:,} bytes, beyond {MOST_NOTED:,}")
            yield data[start:place]
    raise ValueError(f"more than {MOST_FIELDS:,} parts")
