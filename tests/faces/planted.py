"""A detector's file whose faces the test has put there."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from steadface.data.faces import Image
from steadface.faces.scrfd import STRIDES

OFFSETS = np.array([[-1, -1], [1, -1], [0, 0], [-0.8, 1], [0.8, 1]], np.float32)
"""Of the landmarks, in strides."""

SIDE = 64
PLANTED = {8: (2 * (3 * 8 + 5) + 1, (2, 2, 2, 4)), 32: (2 * (1 * 2 + 0), (1, 1, 1, 1))}
"""Stride -> anchor and its distances: column 5, row 3, second anchor; column 0, row 1, first anchor."""


def write_scrfd(path: Path, *, side: int | None = SIDE, outputs: int = 9, batched: bool = False) -> Path:
    """An SCRFD network for 64 x 64 that sees the two planted faces whatever it is shown, with the mean of the first
    channel of its input as their score, so that a test sees how pixels come in.
    """
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=1),
        helper.make_node("Slice", ["means", "zero", "one", "channels"], ["first"]),
        helper.make_node("Reshape", ["first", "single"], ["red"]),
    ]
    numbers = {"zero": [0], "one": [1], "channels": [1], "single": [1, 1]}
    tensors = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    found = []
    for kind in ("score", "distances", "offsets"):
        for stride in STRIDES:
            array, name = _anchors(kind, stride), f"{kind}_{stride}"
            tensors.append(numpy_helper.from_array(array[None] if batched else array, f"{name}_planted"))
            if kind == "score":
                nodes.append(helper.make_node("Mul", [f"{name}_planted", "red"], [name]))
            else:
                nodes.append(helper.make_node("Identity", [f"{name}_planted"], [name]))
            found.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side or "height", side or "width"])
    graph = helper.make_graph(nodes, "scrfd", [image], found[:outputs], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _anchors(kind: str, stride: int) -> NDArray[np.float32]:
    array = np.zeros((2 * (SIDE // stride) ** 2, {"score": 1, "distances": 4, "offsets": 10}[kind]), np.float32)
    if stride in PLANTED:
        place, distances = PLANTED[stride]
        array[place] = {"score": 1, "distances": distances, "offsets": OFFSETS.reshape(-1)}[kind]
    return array


def red(height: int, width: int) -> Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = 255
    return pixels
