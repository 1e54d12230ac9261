"""YuNet through OpenCV.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. Boxes, five landmarks
and scores at strides 8, 16 and 32 from a network of 76 thousand parameters. At place (x, y) of the map of a stride

    cls, obj   score = sqrt(cls obj), both clamped to 0..1
    bbox       centre = (x + b0, y + b1) stride, size = (exp b2, exp b3) stride
    kps        landmark i = (x + k_2i, y + k_2i+1) stride

which `cv2.FaceDetectorYN` decodes likewise. It believes the file, though: NaN among the scores, or outputs smaller than
the picture asks for, take it beyond the ends of its arrays, and the process with it.
"""

import ctypes
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.errors import Unsupported
from steadface.faces.detection import FARTHEST, LEAST_SCORE, MOST_SEEN, SAME_IOU, Face

SMALLEST = 12.0
"""Pixels of the longer side of the smallest faces that it sees reliably."""
MOST_CANDIDATES = 5000
"""Places taken to the suppression, the surest: one face has some ten."""

STRIDES = (8, 16, 32)
NUMBERS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Of each place of a map."""
OUTPUTS = tuple(f"{kind}_{stride}" for kind in NUMBERS for stride in STRIDES)
"""Names of the network's outputs."""

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class YuNet:
    """A `Look`; each thread has a network of its own, since OpenCV's keeps the picture it works on."""

    model: bytes = field(repr=False)
    name: str
    _own: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def smallest(self) -> float:
        return SMALLEST

    def __call__(self, image: Image) -> list[Face]:
        """The faces of `image` (H, W, 3) RGB as it is.

        Raises Unsupported where the network takes no picture of that size.
        """
        bottom, right = (-side % STRIDES[-1] for side in image.shape[:2])
        boxed = cv2.copyMakeBorder(
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR), 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0)
        )
        return [_face(row) for row in decoded(self._outputs(boxed), boxed.shape[:2])[:MOST_SEEN]]

    def _outputs(self, boxed: Image) -> dict[str, Array]:
        """(places, numbers) of every output."""
        network = self._network()
        try:
            network.setInput(cv2.dnn.blobFromImage(boxed))
            found = dict(zip(OUTPUTS, network.forward(list(OUTPUTS)), strict=True))
            return {name: _places(found[name], name, boxed.shape[:2]) for name in OUTPUTS}
        except (cv2.error, ValueError) as error:
            reason = error.err if isinstance(error, cv2.error) else str(error)
            height, width = boxed.shape[:2]
            raise Unsupported(
                f"{self.name} does not work as a YuNet detector on {height} x {width} pixels in OpenCV "
                f"{cv2.__version__} ({reason}); take face_detection_yunet_2023mar.onnx"
            ) from None

    def _network(self) -> Any:
        if not hasattr(self._own, "network"):
            self._own.network = _created(self.model)
        return self._own.network


def open_yunet(path: Path) -> YuNet:
    """Raises SteadfaceError for a file with which OpenCV finds no faces."""
    look = YuNet(model=path.read_bytes(), name=str(path))
    try:
        look(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        raise Unsupported(
            f"{path} does not work as a YuNet detector in OpenCV {cv2.__version__} ({error.err}); take "
            "face_detection_yunet_2023mar.onnx"
        ) from None
    return look


def decoded(outputs: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    """(N, 15) faces of `outputs` over a picture of `shape` (height, width), the surest first: left, top, width, height,
    five landmarks and score, in float32 as `cv2.FaceDetectorYN` has them. Those that are no numbers are left out.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.concatenate([_rows_of(outputs, shape, stride) for stride in STRIDES])
    rows = rows[np.isfinite(rows).all(1) & (np.abs(rows) < FARTHEST).all(1)]
    if len(rows) < 2:
        return np.asarray(rows)
    boxes = rows[:, :4].astype(np.int32).tolist()
    kept = cv2.dnn.NMSBoxes(boxes, rows[:, 14].tolist(), LEAST_SCORE, SAME_IOU, 1.0, MOST_CANDIDATES)
    found: Array = rows[np.asarray(kept, dtype=np.int64).reshape(-1)]
    return found


def _rows_of(outputs: Mapping[str, Array], shape: tuple[int, ...], stride: int) -> Array:
    cls, obj, bbox, kps = (outputs[f"{kind}_{stride}"] for kind in NUMBERS)
    score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
    sure = np.flatnonzero(score >= np.float32(LEAST_SCORE))
    y, x = np.divmod(sure, shape[1] // stride)
    place, pace = np.stack([x, y], 1).astype(np.float32), np.float32(stride)
    centre = (place + bbox[sure, :2]) * pace
    size = _exp(bbox[sure, 2:]) * pace
    landmarks = (kps[sure] + np.tile(place, 5)) * pace
    return np.hstack([centre - size / np.float32(2), size, landmarks, score[sure, None]])


def _exp(values: Array) -> Array:
    """By the C library's function of floats, OpenCV's own: any other differs in the last digit now and then."""
    found: Array = np.array([_expf()(value) for value in values.reshape(-1).tolist()], dtype=np.float32)
    return found.reshape(values.shape)


@cache
def _expf() -> Callable[[float], float]:
    try:
        expf = ctypes.CDLL(None).expf
    except (AttributeError, OSError, TypeError):  # where the process itself is no library
        return lambda value: float(np.exp(value))
    expf.restype, expf.argtypes = ctypes.c_float, [ctypes.c_float]
    found: Callable[[float], float] = expf
    return found


def _places(output: Array, name: str, shape: tuple[int, ...]) -> Array:
    """(places, numbers). Raises ValueError where they are others than the picture asks for."""
    kind, _, stride = name.partition("_")
    count = math.prod(side // int(stride) for side in shape)
    if output.dtype != np.float32 or output.size != count * NUMBERS[kind]:
        raise ValueError(f"its output {name} has {output.size} numbers, not {count} x {NUMBERS[kind]}")
    return output.reshape(count, NUMBERS[kind])


_one_by_one = threading.Lock()
"""The level of OpenCV's log is the whole process's."""


def _created(model: bytes) -> Any:
    weights, nothing = np.frombuffer(model, np.uint8), np.empty(0, np.uint8)
    # OpenCV 5 warns on stderr that its new engine knows no targets, of which it has been asked for none.
    with _one_by_one:
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            return cv2.dnn.readNet("onnx", weights, nothing)
        finally:
            cv2.utils.logging.setLogLevel(level)


def _face(row: Array) -> Face:
    left, top, width, height = map(float, row[:4])
    return Face(
        box=(left, top, left + width, top + height),
        landmarks=row[4:14].reshape(5, 2).astype(np.float32),
        score=float(min(row[14], 1.0)),
    )
