"""Pictures of any kind become aligned faces: photographs through a detector, aligned faces as they are."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TypeGuard

import numpy as np
import PIL.Image
from torch import Tensor

from steadface.errors import InvalidInput, quoted
from steadface.faces.alignment import align
from steadface.faces.detection import Detector, Face, is_clear
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import Photograph, Picture, read_photograph
from steadface.faces.pictures import KINDS
from steadface.faces.quality import assess
from steadface.recognition.answers import SeenFace

Pictures = Picture | Iterable[Picture]
"""One or several: a path, bytes or an array (H, W, 3) is one picture, (N, H, W, 3) are N."""

ASPECTS = (1.0, 112 / 96)
"""Height by width of aligned faces: the square template and the older crop."""


LEAST_SIDE = 16
"""Pixels: no recogniser is made for less, and nobody knows a face in less."""


class NoFace(InvalidInput):
    """A photograph without a face that the detector finds, or no aligned face; the message names it."""

    http_status = 422


class Seeing:
    """Finds, judges and aligns faces to `size` (height, width). The detector is opened when it is first needed."""

    def __init__(self, open_detector: Callable[[], Detector], size: tuple[int, int]) -> None:
        self._open_detector, self.size = open_detector, size

    @classmethod
    def with_detector(cls, detector: str | os.PathLike[str] | Detector | None, size: tuple[int, int]) -> "Seeing":
        """With a YuNet or SCRFD file, which is opened at once, or an opened one; None is looked for when needed."""
        if detector is None:
            return cls(open_detector, size)
        if isinstance(detector, str | os.PathLike):
            detector = open_detector(detector)
        if not callable(getattr(detector, "detect", None)):
            raise InvalidInput(f"the detector is {quoted(detector)}; give a YuNet or SCRFD file, or leave it out")
        return cls(lambda: detector, size)

    def through(self, wrapped: Callable[[Detector], Detector]) -> "Seeing":
        """The same, with what `wrapped` makes of the detector."""
        return Seeing(lambda: wrapped(self.detector), self.size)

    @cached_property
    def detector(self) -> Detector:
        return self._open_detector()

    def faces(self, picture: Picture, *, aligned: bool = False) -> tuple[Photograph, list[SeenFace]]:
        """The picture and all faces in it, largest first. Raises UnreadableImage."""
        photograph = read_photograph(picture)
        if aligned:
            return photograph, [_given(photograph)]
        found = self.detector.detect(photograph.pixels)
        return photograph, [self._seen(photograph, face, len(found) - 1) for face in found]

    def face(self, picture: Picture, *, aligned: bool = False, clear: bool = False) -> SeenFace:
        """The largest face. Raises UnreadableImage, NoFace where there is none, and SteadfaceError where it has to be
        `clear` whom the photograph is of and two faces are about as large.
        """
        photograph = read_photograph(picture)
        if aligned:
            return _given(photograph)
        found = self.detector.detect(photograph.pixels)
        if not found:
            raise NoFace(_no_face(photograph))
        if clear and not is_clear(found):
            raise InvalidInput(
                f"{photograph.name} shows {len(found)} faces and two of them are about as large, so it is not clear "
                "whom it is of; crop it to the one person"
            )
        return self._seen(photograph, found[0], len(found) - 1)

    def _seen(self, photograph: Photograph, face: Face, others: int) -> SeenFace:
        aligned = align(photograph.pixels, face.landmarks, self.size)
        return SeenFace(
            name=photograph.name,
            aligned=aligned,
            face=face,
            quality=assess(photograph.pixels, face, aligned),
            others=others,
        )


def listed(pictures: Pictures, whose: str = "") -> list[Picture]:
    """One picture or several as a list. Raises SteadfaceError where there are none."""
    if isinstance(pictures, np.ndarray) and pictures.dtype.kind in "OUS" and pictures.ndim == 1:  # of paths, say
        found = list(pictures.tolist())
    elif isinstance(pictures, np.ndarray | Tensor):
        found = list(pictures) if pictures.ndim == 4 else [pictures]
    elif _is_one(pictures):
        found = [pictures]
    elif isinstance(pictures, Iterable) and not isinstance(pictures, Mapping):
        found = list(pictures)
    else:
        raise InvalidInput(f"the pictures{whose} are a {type(pictures).__name__}; give a list of them, each {KINDS}")
    if not found:
        raise InvalidInput(f"there are no pictures{whose}; give one or more")
    return found


def _is_one(pictures: object) -> TypeGuard[Picture]:
    """Whether they are one picture, though some of these could be gone through: a text, bytes, the lines of a file."""
    one = (str, os.PathLike, bytes, bytearray, memoryview, PIL.Image.Image, Photograph)
    return isinstance(pictures, one) or callable(getattr(pictures, "read", None))


def _given(photograph: Photograph) -> SeenFace:
    height, width = photograph.pixels.shape[:2]
    if min(abs(height / width - aspect) for aspect in ASPECTS) > 0.01:
        raise NoFace(
            f"{photograph.name} of {width} x {height} pixels is not an aligned face, which is square or 96 x 112; "
            "leave out `aligned`, so that the face is found first"
        )
    if min(height, width) < LEAST_SIDE:
        raise NoFace(
            f"{photograph.name} of {width} x {height} pixels is too small for an aligned face; give one of "
            f"{LEAST_SIDE} x {LEAST_SIDE} or more, best 112 x 112"
        )
    return SeenFace(name=photograph.name, aligned=photograph.pixels)


def _no_face(photograph: Photograph) -> str:
    height, width = photograph.pixels.shape[:2]
    return (
        f"no face was found in {photograph.name} ({width} x {height} pixels); give a picture that shows one from "
        "the front, or say that it is an aligned face already"
    )
