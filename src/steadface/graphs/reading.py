"""An ONNX file as a message, read only once its parts are counted and what lies outside of it has been looked at.

Facts of the format: a protobuf message, in which an empty part of two bytes becomes an object of hundreds; constants
whose numbers may lie in files beside it; control flow, functions and sparse constants, which recognisers and detectors
do without and which cost what they say, not what they weigh.
"""

import math
import mmap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, helper

from steadface.errors import InvalidInput, SteadfaceError, Unsupported, first_line, quoted

LARGEST = 2 << 30
"""Bytes of a file, which is protobuf's own bound; IResNet-200 has 0.5 GB."""
LARGEST_BESIDE = 4 << 30
"""Bytes of all constants that lie outside of it."""
MOST_PARTS = 1 << 18
"""Fields of all messages in a file: IResNet-200 has 20,000, and each may take some 500 bytes of memory."""
MOST_OUTPUTS = 256

VARINT, DELIMITED, FIXED = 0, 2, {1: 8, 5: 4}
"""Wire types of protobuf; of a fixed one the bytes."""

ELSEWHERE = "give code that runs it as path/to/file.py:function"


def read_model(path: Path, *, beside: bool = True) -> onnx.ModelProto:
    """The model in a file, with the constants that lie `beside` it or without them.

    Raises InvalidInput for what is no ONNX model, is damaged or beyond the bounds above, and Unsupported for one that
    has loops, functions or sparse constants.
    """
    try:
        _check_parts(path)
        model = onnx.load(path, load_external_data=False)
        _check_kinds(model, path)
        _check_beside(model, path)
        if beside:
            onnx.load_external_data_for_model(model, str(path.parent))
    except SteadfaceError:
        raise
    except Exception as error:  # protobuf's and onnx's own, which share no base class
        raise InvalidInput(f"{path} is not a readable ONNX file ({first_line(error)}); it may be truncated") from error
    return model


def _check_parts(path: Path) -> None:
    """Counts the fields of all messages, in place."""
    size = path.stat().st_size
    if not 0 < size <= LARGEST:
        raise InvalidInput(f"{path} has {size:,} bytes, and an ONNX file has 1 to {LARGEST:,}; fetch it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        waiting: list[tuple[int, int, Any]] = [(0, size, onnx.ModelProto.DESCRIPTOR)]
        count = 0
        while waiting:
            place, end, kind = waiting.pop()
            inner = _messages(kind)
            while place < end:
                count += 1
                if count > MOST_PARTS:
                    raise InvalidInput(
                        f"{path} has more than {MOST_PARTS:,} parts, which no network needs; {ELSEWHERE}"
                    )
                start, place, number = field_at(data, place, end)
                if number in inner:
                    waiting.append((start, place, inner[number]))


def field_at(data: mmap.mmap, place: int, end: int) -> tuple[int, int, int]:
    """Where the content of the field at `place` begins and ends, and its number, 0 for what holds neither message nor
    text (https://protobuf.dev/programming-guides/encoding).

    Raises ValueError or IndexError for what is no field, or does not end before `end`.
    """
    tag, start = _varint(data, place)
    number, kind = divmod(tag, 8)
    if number < 1:
        raise ValueError("a field without a number")
    if kind == VARINT:
        length = _varint(data, start)[1] - start
    elif kind == DELIMITED:
        length, start = _varint(data, start)
    elif kind in FIXED:
        length = FIXED[kind]
    else:
        raise ValueError(f"a part of the kind {kind}")
    if start + length > end:
        raise ValueError(f"a part of {length:,} bytes ends beyond that in which it lies")
    return start, start + length, number if kind == DELIMITED else 0


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


@cache
def _messages(kind: Any) -> dict[int, Any]:
    """The fields of a message that are messages themselves, by number."""
    return {number: one.message_type for number, one in kind.fields_by_number.items() if one.message_type}


def _check_kinds(model: onnx.ModelProto, path: Path) -> None:
    if model.functions:
        raise Unsupported(
            f"{path} has functions of its own, which are not followed; inline them with onnx.inliner, or {ELSEWHERE}"
        )
    if len(model.graph.output) > MOST_OUTPUTS:
        raise InvalidInput(
            f"{path} has {len(model.graph.output):,} outputs, and {MOST_OUTPUTS} are the most; {ELSEWHERE}"
        )
    for graph in _graphs(model.graph):
        if graph.sparse_initializer:
            raise Unsupported(f"{path} has sparse constants, which are not read; save them as dense ones")
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    raise Unsupported(f"{path} has sparse constants, which are not read; save them as dense ones")
                if (attribute.HasField("g") or attribute.graphs) and (node.op_type, node.domain) != ("If", ""):
                    raise Unsupported(
                        f"{path} has the operation {quoted(node.op_type)}, which may repeat without end; recognisers "
                        f"and detectors have none: {ELSEWHERE}"
                    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for attribute in _attributes(graph):
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _graphs(inner)


def _attributes(graph: onnx.GraphProto) -> Iterator[AttributeProto]:
    return (attribute for node in graph.node for attribute in node.attribute)


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for attribute in _attributes(graph):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_beside(model: onnx.ModelProto, path: Path) -> None:
    """What lies outside of the file must be in a plain file in its folder, as long as the constant says, and whole."""
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in tensor.external_data}
        where = told.get("location", "")
        place, folder = (path.parent / where).resolve(), path.parent.resolve()
        if not where or not place.is_relative_to(folder) or not place.is_file():
            raise InvalidInput(
                f"{path} keeps a constant in {quoted(where)}, which is no file in its folder; put them side by side"
            )
        start, held = int(told.get("offset", 0)), place.stat().st_size
        length = int(told["length"]) if "length" in told else held - start
        if start < 0 or length < 0 or start + length > held or length != _bytes_of(tensor):
            raise InvalidInput(
                f"{path} keeps a constant of {length:,} bytes in {quoted(where)}, which does not hold it so; fetch "
                "both again"
            )
        total += length
    if total > LARGEST_BESIDE:
        raise InvalidInput(f"{path} has {total:,} bytes of constants beside it, and {LARGEST_BESIDE:,} are the most")


def _bytes_of(tensor: TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    name = TensorProto.DataType.Name(tensor.data_type)
    if name.startswith(("INT4", "UINT4", "FLOAT4", "INT2", "UINT2")):
        return -(-count * int(name.lstrip("UINTFLOA")[0]) // 8)
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
