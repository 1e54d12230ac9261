"""Pictures of any kind become aligned faces: photographs through a detector, aligned faces as they are."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image
from steadface.errors import SteadfaceError
from steadface.faces.alignment import align
from steadface.faces.detection import Detector, Face, is_clear
from steadface.faces.photograph import Photograph, read_photograph
from steadface.faces.quality import assess
from steadface.recognition.answers import SeenFace

Picture = Path | str | bytes | NDArray[np.uint8] | Photograph
"""A file, its bytes, pixels (H, W, 3) RGB, or what `read_photograph` made of any of them."""

ASPECTS = (1.0, 112 / 96)
"""Height by width of aligned faces: the square template and the older crop."""


class NoFace(SteadfaceError):
    """A photograph without a face that the detector finds; the message names it."""


class Seeing:
    """Finds, judges and aligns faces to `size` (height, width). The detector is opened when it is first needed."""

    def __init__(self, open_detector: Callable[[], Detector], size: tuple[int, int]) -> None:
        self._open_detector, self.size = open_detector, size

    @cached_property
    def detector(self) -> Detector:
        return self._open_detector()

    def faces(self, picture: Picture, *, aligned: bool = False) -> tuple[Photograph, list[SeenFace]]:
        """The picture and all faces in it, largest first. Raises UnreadableImage."""
        photograph = opened(picture)
        if aligned:
            return photograph, [_given(photograph)]
        found = self.detector.detect(photograph.pixels)
        return photograph, [self._seen(photograph, face, len(found) - 1) for face in found]

    def face(self, picture: Picture, *, aligned: bool = False, clear: bool = False) -> SeenFace:
        """The largest face. Raises UnreadableImage, NoFace where there is none, and SteadfaceError where it has to be
        `clear` whom the photograph is of and two faces are about as large.
        """
        photograph = opened(picture)
        if aligned:
            return _given(photograph)
        found = self.detector.detect(photograph.pixels)
        if not found:
            raise NoFace(_no_face(photograph))
        if clear and not is_clear(found):
            raise SteadfaceError(
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


def opened(picture: Picture) -> Photograph:
    """The pixels of a picture, upright. Raises UnreadableImage, and SteadfaceError for arrays that are no image."""
    if isinstance(picture, Photograph):
        return picture
    if not isinstance(picture, np.ndarray):
        return read_photograph(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise SteadfaceError(f"pixels are {picture.dtype} of shape {picture.shape}; give uint8 RGB (H, W, 3)")
    pixels: Image = picture
    return Photograph(pixels=pixels, name=f"a picture of {pixels.shape[1]} x {pixels.shape[0]}")


def _given(photograph: Photograph) -> SeenFace:
    height, width = photograph.pixels.shape[:2]
    if min(abs(height / width - aspect) for aspect in ASPECTS) > 0.01:
        raise SteadfaceError(
            f"{photograph.name} of {width} x {height} pixels is no aligned face, which is square or 96 x 112; leave "
            "out `aligned`, so that the face is found first"
        )
    return SeenFace(name=photograph.name, aligned=photograph.pixels)


def _no_face(photograph: Photograph) -> str:
    height, width = photograph.pixels.shape[:2]
    return (
        f"no face was found in {photograph.name} ({width} x {height} pixels); give a picture that shows one from "
        "the front, or say that it is an aligned face already"
    )
