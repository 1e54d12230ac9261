"""Detectors whose faces the test has put there: a file, and a network that sees any face whichever way up it is."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from steadface.data.faces import TEMPLATE, Image
from steadface.faces.detection import LEAST_SCORE, Face
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


def write_yunet(path: Path, seed: int = 0, *, short: bool = False) -> Path:
    """A network with YuNet's outputs: one convolution for each of them. Faces are where it pleases; `short` outputs are
    too small.
    """
    rng, nodes, tensors, found = np.random.default_rng(seed), [], [], []
    for stride in (8, 16, 32):
        for kind, count in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            name = f"{kind}_{stride}"
            weights = rng.normal(0, 0.1 / stride, (count, 3, stride, stride)) / 16
            tensors.append(numpy_helper.from_array(weights.astype(np.float32), f"{name}/w"))
            tensors.append(numpy_helper.from_array(np.array([1, -1, count], np.int64), f"{name}/shape"))
            convolved = helper.make_node("Conv", ["input", f"{name}/w"], [f"{name}/c"], strides=[stride, stride])
            nodes.insert(0, convolved)
            nodes.append(helper.make_node("Transpose", [f"{name}/c"], [f"{name}/t"], perm=[0, 2, 3, 1]))
            end = f"{name}/r" if count == 1 else name
            nodes.append(helper.make_node("Reshape", [f"{name}/t", f"{name}/shape"], [end]))
            nodes += [helper.make_node("Sigmoid", [end], [name])] if count == 1 else []
            found.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, name, count]))
    if short:
        nodes = [node for node in nodes if "kps_8" not in node.output]
        tensors.append(numpy_helper.from_array(np.ones((1, 3, 10), np.float32), "few"))
        nodes.append(helper.make_node("Identity", ["few"], ["kps_8"]))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "yunet", [image], found, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _anchors(kind: str, stride: int) -> NDArray[np.float32]:
    array = np.zeros((2 * (SIDE // stride) ** 2, {"score": 1, "distances": 4, "offsets": 10}[kind]), np.float32)
    if stride in PLANTED:
        place, distances = PLANTED[stride]
        array[place] = {"score": 1, "distances": distances, "offsets": OFFSETS.reshape(-1)}[kind]  # type: ignore[call-overload]
    return array


def red(height: int, width: int) -> Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = 255
    return pixels


ROLLS = [0, 30, 45, 60, 90, 120, 135, 180]
SCORES = [0.93, 0.91, 0.87, 0.81, 0.69, 0.80, 0.84, 0.86]
"""What YuNet gives a face that is turned by so many degrees, the medians of 80 photographs."""
TRUE = 30.0
"""Degrees up to which it sees a face's own landmarks; beyond, an upright face's in the same box."""


@dataclass
class Discs:
    """A `Look` that behaves as YuNet does: discs are faces, a blue spot in each is where the chin is."""

    scores: list[float] = field(default_factory=lambda: SCORES)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def smallest(self) -> float:
        return 12.0

    def __call__(self, image: Image) -> list[Face]:
        self.shapes.append(image.shape[:2])
        _, labels, stats, centres = cv2.connectedComponentsWithStats((image[:, :, 1] > 127).astype(np.uint8))
        faces = [
            self._face(image[:, :, 2] * (labels == label), stats[label], centres[label])
            for label in range(1, len(stats))
            if 12 <= max(stats[label][2:4]) <= 330
        ]
        return [face for face in faces if face.score >= LEAST_SCORE]

    def _face(self, blue: Image, row: NDArray[np.int32], centre: NDArray[np.float64]) -> Face:
        y, x = np.average(np.indices(blue.shape).reshape(2, -1), 1, weights=blue.ravel() + 1e-9)
        roll = float(np.degrees(np.arctan2(centre[0] - x, y - centre[1])))
        left, top, width, height = map(float, row[:4])
        return Face(
            box=(left, top, left + width, top + height),
            landmarks=marks(*centre, max(width, height) / 2, roll if abs(roll) <= TRUE else 0.0),  # type: ignore[call-arg]
            score=float(np.interp(abs(roll), ROLLS, self.scores)),
        )


class DiscsSession:
    """The same as a session of ONNX Runtime would give it for an SCRFD file: every face at the anchor next to it."""

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="image")]

    def run(self, _: None, given: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        pixels = np.rint(given["image"][0] * 128 + 127.5).astype(np.uint8).transpose(1, 2, 0)
        places = [pixels.shape[0] // stride * (pixels.shape[1] // stride) * 2 for stride in STRIDES]
        outputs = [np.zeros((count, width), np.float32) for width in (1, 4, 10) for count in places]
        stride = STRIDES[0]
        for face in Discs()(pixels):
            column, row = int(face.centre[0] // stride), int(face.centre[1] // stride)
            place, anchor = 2 * (row * (pixels.shape[1] // stride) + column), stride * np.array([column, row])
            box = np.array(face.box)
            outputs[0][place] = face.score
            outputs[3][place] = np.concatenate([anchor - box[:2], box[2:] - anchor]) / stride
            outputs[6][place] = ((face.landmarks - anchor) / stride).reshape(-1)
        return outputs


def marks(x: float, y: float, radius: float, roll: float) -> NDArray[np.float32]:
    """The landmarks of a disc whose chin is turned clockwise by `roll` degrees."""
    points = (TEMPLATE - 56) @ [1, 1j] * np.exp(1j * np.radians(roll)) * radius / 56 + complex(x, y)
    return np.stack([points.real, points.imag], 1).astype(np.float32)


def discs(width: int, height: int, *faces: tuple[int, int, int, float]) -> Image:
    """Black, with a face (x, y, radius, roll) at each place."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for x, y, radius, roll in faces:
        cv2.circle(pixels, (x, y), radius, (0, 255, 0), -1)
        way = np.radians(roll)
        chin = round(x - 0.6 * radius * np.sin(way)), round(y + 0.6 * radius * np.cos(way))
        cv2.circle(pixels, chin, round(0.25 * radius), (0, 255, 255), -1)
    return pixels
