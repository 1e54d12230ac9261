"""An ONNX file is counted and looked at before it is read: bombs, loops, functions, and what lies beside it."""

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.graphs.reading import MOST_PARTS, read_model


def model(*nodes: NodeProto, constants: dict[str, object] | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(path: Path, content: onnx.ModelProto | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


FLAT = helper.make_node("Flatten", ["x"], ["y"])


def part(number: int, content: bytes) -> bytes:
    length, coded = len(content), b""
    while length > 127:
        coded += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + coded + bytes([length]) + content


@pytest.mark.parametrize(
    "inner", [b"\x0a\0", b"\x2a\0", b"\x5a\0", b"\x08\1"], ids=["nodes", "tensors", "inputs", "numbers"]
)
def test_small_parts_without_end_are_counted_not_read(inner: bytes, tmp_path: Path) -> None:
    bomb = part(7, inner * 1_500_000) if inner[:1] != b"\x08" else part(7, part(5, inner * 1_500_000))
    file = written(tmp_path / "bomb.onnx", model(FLAT).SerializeToString() + bomb)
    start = time.process_time()
    with pytest.raises(InvalidInput, match=f"more than {MOST_PARTS:,} parts"):
        read_model(file)
    assert time.process_time() - start < 5


def body(*nodes: NodeProto) -> GraphProto:
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("i", "c", "s", "d", "t")}
    return helper.make_graph(list(nodes), "body", [values[name] for name in "ics"], [values[name] for name in "dt"])


LOOP = helper.make_node("Loop", ["n", "on", "x"], ["y"], body=body(helper.make_node("Identity", ["s"], ["t"])))
INSIDE = helper.make_graph([LOOP], "inside", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])


@pytest.mark.parametrize(
    "node",
    [
        LOOP,
        helper.make_node("If", ["on"], ["y"], then_branch=INSIDE, else_branch=INSIDE),
        helper.make_node("Scan", ["x"], ["y"], body=body(), num_scan_inputs=1),
        helper.make_node("BeamSearch", ["x"], ["y"], domain="com.microsoft", decoder=body()),
    ],
    ids=lambda node: node.op_type,
)
def test_what_repeats_is_refused(node: NodeProto, tmp_path: Path) -> None:
    constants = {"n": np.array(2**62), "on": np.array(True)}
    with pytest.raises(Unsupported, match=r"may repeat without end.*path/to/file.py:function"):
        read_model(written(tmp_path / "loop.onnx", model(node, constants=constants)))


def test_functions_that_double_are_refused(tmp_path: Path) -> None:
    whole, opsets = model(helper.make_node("F30", ["x"], ["y"], domain="own")), [helper.make_opsetid("own", 1)]
    for i in range(1, 31):
        nodes = [helper.make_node(f"F{i - 1}", [a], [b], domain="own") for a, b in ("ab", "bc")]
        whole.functions.append(helper.make_function("own", f"F{i}", ["a"], ["c"], nodes, opsets))
    with pytest.raises(Unsupported, match="functions of its own"):
        read_model(written(tmp_path / "functions.onnx", whole))


@pytest.mark.parametrize("inside", [True, False])
def test_sparse_constants_are_refused(inside: bool, tmp_path: Path) -> None:
    sparse = onnx.SparseTensorProto(dims=[4 * 10**9])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([5]), "places"))
    whole = model(FLAT, *([helper.make_node("Constant", [], ["w"], sparse_value=sparse)] if inside else []))
    if not inside:
        whole.graph.sparse_initializer.append(sparse)
    with pytest.raises(Unsupported, match="sparse"):
        read_model(written(tmp_path / "sparse.onnx", whole))


def test_thousands_of_outputs_are_refused(tmp_path: Path) -> None:
    whole = model(FLAT)
    whole.graph.output.extend(helper.make_tensor_value_info(f"\x1b{i}", TensorProto.FLOAT, None) for i in range(5000))
    with pytest.raises(InvalidInput, match="5,001 outputs"):
        read_model(written(tmp_path / "outputs.onnx", whole))


def beside(path: Path, **told: str) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    whole = model(helper.make_node("Add", ["x", "w"], ["y"]))
    whole.graph.initializer.append(tensor)
    return written(path, whole)


OUTSIDE = {
    "above": {"location": "../w.data"},
    "elsewhere": {"location": "/etc/hostname"},
    "a device": {"location": "/dev/zero"},
    "a link to a device": {"location": "zero"},
    "a pipe": {"location": "pipe", "length": "16"},
    "the folder": {"location": "."},
    "nowhere": {"location": "absent\x1b[2J"},
    "no place": {},
    "terabytes": {"location": "huge.data"},
    "more than the constant": {"location": "huge.data", "length": str(10 << 30)},
    "beyond its end": {"location": "w.data", "offset": str(2**62), "length": "16"},
    "before its beginning": {"location": "w.data", "offset": "-5", "length": "16"},
    "no number": {"location": "w.data", "offset": "x"},
}


@pytest.mark.parametrize("told", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_what_lies_beside_a_file_is_looked_at_first(told: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path / "w.data", folder / "w.data", folder / "huge.data"):
        place.write_bytes(bytes(16))
    os.truncate(folder / "huge.data", 1 << 40)
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    with pytest.raises(InvalidInput) as caught:
        read_model(beside(folder / "w.onnx", **told))
    assert str(caught.value).isprintable()


def test_constants_beside_a_file_are_read(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32)
    (tmp_path / "w.data").write_bytes(numbers.tobytes())
    found = read_model(beside(tmp_path / "w.onnx", location="w.data", offset="8", length="16"))
    assert np.array_equal(numpy_helper.to_array(found.graph.initializer[0]), numbers[2:])


def test_damaged_bytes_anywhere_are_never_more_than_a_refusal(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Flatten", ["c"], ["y"])]
    whole = np.frombuffer(model(*nodes, constants=weights).SerializeToString(), np.uint8)
    refused = 0
    for _ in range(300):
        damaged = whole.copy()
        places = random.integers(0, len(whole), random.integers(1, 4))
        damaged[places] = random.integers(0, 256, len(places))
        try:
            read_model(written(tmp_path / "w.onnx", damaged.tobytes()))
        except SteadfaceError:
            refused += 1
    assert 0 < refused < 300
