"""YuNet through OpenCV.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. Boxes, five landmarks
and scores at strides 8, 16 and 32 from a network of 76 thousand parameters; `cv2.FaceDetectorYN` decodes them.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from steadface.data.faces import Image
from steadface.errors import SteadfaceError
from steadface.faces.detection import LEAST_SCORE, SAME_IOU, Face

SMALLEST = 12.0
"""Pixels of the longer side of the smallest faces that it sees reliably."""
MOST_FACES = 5000

OUTPUTS = frozenset(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
"""Names of the network's outputs, by which `cv2.FaceDetectorYN` finds them."""


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
        """The faces of `image` (H, W, 3) RGB as it is."""
        network = self._network()
        network.setInputSize((image.shape[1], image.shape[0]))
        found = network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        return [] if found is None else [_face(row) for row in found if np.isfinite(row).all()]

    def _network(self) -> Any:
        if not hasattr(self._own, "network"):
            self._own.network = _created(self.model)
        return self._own.network


def open_yunet(path: Path) -> YuNet:
    """Raises SteadfaceError for a file with which OpenCV finds no faces."""
    look = YuNet(model=path.read_bytes(), name=path.name)
    try:
        look(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        raise SteadfaceError(
            f"{path} does not work as a YuNet detector in OpenCV {cv2.__version__} ({error.err}); take "
            "face_detection_yunet_2023mar.onnx"
        ) from None
    return look


_one_by_one = threading.Lock()
"""The level of OpenCV's log is the whole process's."""


def _created(model: bytes) -> Any:
    weights, nothing = np.frombuffer(model, np.uint8), np.empty(0, np.uint8)
    # OpenCV 5 warns on stderr that its new engine knows no targets, of which it has been asked for none.
    with _one_by_one:
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            return cv2.FaceDetectorYN.create("onnx", weights, nothing, (64, 64), LEAST_SCORE, SAME_IOU, MOST_FACES)
        finally:
            cv2.utils.logging.setLogLevel(level)


def _face(row: Any) -> Face:
    left, top, width, height = map(float, row[:4])
    return Face(
        box=(left, top, left + width, top + height),
        landmarks=row[4:14].reshape(5, 2).astype(np.float32),
        score=float(min(row[14], 1.0)),
    )
