"""SCRFD through ONNX Runtime, from files as InsightFace publishes them (det_10g.onnx and its relatives).

Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022. At strides 8, 16 and 32,
two anchors at every place (x, y), row by row, have

    a score        in 0..1
    four distances (left, top, right, bottom) from the anchor's centre (stride x, stride y) to the box's sides, / stride
    five offsets   (dx, dy) from there to the landmarks, / stride

Nine outputs: scores, distances and offsets in that order, each from the finest stride to the coarsest. A file of six
has no landmarks, without which no face can be aligned.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.devices import open_session
from steadface.errors import InvalidInput, Unsupported, first_line
from steadface.faces.detection import FARTHEST, LEAST_SCORE, Face, distinct

SMALLEST = 12.0
"""Pixels of the longer side of the smallest faces that it sees reliably."""
STRIDES = (8, 16, 32)
ANCHORS = 2
WIDTHS = (1, 1, 1, 4, 4, 4, 10, 10, 10)
"""Numbers of an anchor in each of the outputs."""
MOST_FACES = 1000
"""Anchors taken to the suppression: one face has some ten."""

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scrfd:
    """A `Look`. `fixed` is the (height, width) of a network that takes no other; pictures are then letterboxed."""

    session: Any = field(repr=False)
    fixed: tuple[int, int] | None

    @property
    def smallest(self) -> float:
        return SMALLEST

    def __call__(self, image: Image) -> list[Face]:
        """The faces of `image` (H, W, 3) RGB as it is, or as far as a network of fixed size has room for it.

        Raises Unsupported where the network takes no picture of that size.
        """
        boxed, scale = letterboxed(image, self.fixed)
        pixels = (boxed.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 128
        height, width = shape = boxed.shape[:2]
        try:
            outputs = self.session.run(None, {self.session.get_inputs()[0].name: pixels})
        except Exception as error:  # onnxruntime's own exceptions share no other base
            raise Unsupported(f"the detector takes no picture of {height} x {width}: {first_line(error)}") from None
        if [len(_rows(output)) for output in outputs] != 3 * _anchors(shape):
            raise Unsupported(f"the detector has outputs of other sizes than a picture of {height} x {width} asks for")
        return distinct(decoded([_rows(output) for output in outputs], shape, scale))


def open_scrfd(path: Path) -> Scrfd:
    """Raises SteadfaceError for a file that is no SCRFD detector with landmarks."""
    try:
        session = open_session(path)
    except Exception as error:  # onnxruntime's own exceptions share no other base
        raise InvalidInput(f"{path} cannot be opened as a face detector: {first_line(error)}") from None
    if len(session.get_outputs()) == 6:
        raise Unsupported(
            f"{path} is an SCRFD detector without landmarks (6 outputs), and faces are aligned by landmarks; take one "
            "with keypoints (9 outputs), such as det_10g.onnx or a file whose name ends in _kps"
        )
    look = Scrfd(session=session, fixed=_fixed(session))
    _check(look, path)
    return look


def letterboxed(image: Image, fixed: tuple[int, int] | None) -> tuple[Image, float]:
    """`image` in the upper left corner of a black one of `fixed` (height, width), shrunk where it has to be, or of the
    next multiples of 32; and its scale there.
    """
    scale = 1.0
    height, width = image.shape[:2]
    if fixed is not None:
        scale = min(fixed[0] / height, fixed[1] / width, 1.0)
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rows, columns = fixed or (-height % 32 + height, -width % 32 + width)
    boxed = np.zeros((rows, columns, 3), np.uint8)
    boxed[:height, :width] = image
    return boxed, scale


def decoded(outputs: list[Array], shape: tuple[int, ...], scale: float) -> list[Face]:
    """The `MOST_FACES` surest faces of nine `outputs`, (anchors, 1 | 4 | 10) each, over an input of `shape` (height,
    width) at `scale`. One face comes up several times.
    """
    scores, boxes, landmarks = [], [], []
    for level, stride in enumerate(STRIDES):
        score = outputs[level].reshape(-1)
        sure = np.flatnonzero(score >= LEAST_SCORE)
        centres = _centres(shape, stride)[sure]
        with np.errstate(over="ignore"):
            distances, offsets = outputs[level + 3][sure] * stride, outputs[level + 6][sure] * stride
        scores.append(score[sure])
        boxes.append(np.hstack([centres - distances[:, :2], centres + distances[:, 2:]]))
        landmarks.append(centres[:, None] + offsets.reshape(-1, 5, 2))
    all_scores, all_boxes, all_landmarks = map(np.concatenate, (scores, boxes, landmarks))
    return [
        _face(float(all_scores[index]), all_boxes[index] / scale, all_landmarks[index] / scale)
        for index in np.argsort(-all_scores, kind="stable")[:MOST_FACES]
        if max(np.abs(all_boxes[index]).max(), np.abs(all_landmarks[index]).max()) < FARTHEST  # and no NaN
    ]


def _face(score: float, box: Array, landmarks: Array) -> Face:
    left, top, right, bottom = map(float, box)
    return Face(box=(left, top, right, bottom), landmarks=landmarks.astype(np.float32), score=min(score, 1.0))


def _centres(shape: tuple[int, ...], stride: int) -> Array:
    """(anchors, 2) x and y of every anchor, in the order of the outputs."""
    rows, columns = (-(-side // stride) for side in shape)
    y, x = np.mgrid[:rows, :columns]
    centres: Array = np.repeat(np.stack([x, y], -1).reshape(-1, 2) * stride, ANCHORS, 0).astype(np.float32)
    return centres


def _anchors(shape: tuple[int, ...]) -> list[int]:
    return [ANCHORS * math.prod(-(-side // stride) for side in shape) for stride in STRIDES]


def _rows(output: Array) -> Array:
    """(anchors, numbers) of an output with or without a batch."""
    return output.reshape(-1, output.shape[-1]) if output.ndim > 1 else output.reshape(-1, 1)


def _fixed(session: Any) -> tuple[int, int] | None:
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(shape) == 4 and isinstance(shape[2], int) and isinstance(shape[3], int) and shape[2] > 0 < shape[3]:
        return shape[2], shape[3]
    return None


def _check(look: Scrfd, path: Path) -> None:
    """Runs it once: what a file's outputs are is seldom written in it."""
    side = look.fixed or (64, 64)
    try:
        name = look.session.get_inputs()[0].name
        outputs = look.session.run(None, {name: np.zeros((1, 3, *side), np.float32)})
    except Exception as error:  # as in open_scrfd
        raise InvalidInput(f"{path} takes no picture as an SCRFD detector does: {first_line(error)}") from None
    found = tuple(output.shape[-1] if output.ndim > 1 else 1 for output in outputs)
    if found != WIDTHS or [len(_rows(output)) for output in outputs] != 3 * _anchors(side):
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise InvalidInput(
            f"{path} is neither a YuNet nor an SCRFD detector: its outputs are {shapes}; give a file such as "
            "face_detection_yunet_2023mar.onnx or det_10g.onnx"
        )
