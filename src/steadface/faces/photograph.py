"""Pictures in any form become upright 8-bit RGB, and what cannot be one is refused before it takes memory.

`steadface.faces.pictures` says in which forms, `steadface.faces.arrays` by which rule arrays and tensors are read. The
header is read first: a picture of more than `MAX_PIXELS` is refused on what it claims. Only formats that cameras,
scanners and browsers write are tried; others (EPS, FITS, ...) bring interpreters of their own along.
"""

import errno
import io
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Transpose
from torch import Tensor

from steadface.data.faces import Image, UnreadableImage, kind_of
from steadface.errors import short
from steadface.faces.arrays import pixels_of
from steadface.faces.pictures import IN_MEMORY, KINDS, Given, encoded, is_data, name_of

MAX_PIXELS = 120_000_000
"""The largest phone sensor in wide use has 108 million; decoded they take 0.9 GB for a moment."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

BACKGROUND = 127
"""Grey behind what is transparent: neither black hair nor white paper draws a line there."""

ORIENTATION = 0x0112
"""The EXIF tag."""

UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF orientation (EXIF 2.32, 4.6.4) -> what brings the picture upright; 1 is upright."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """`pixels` (H, W, 3) uint8 RGB, upright; `name` is what to call it in a message."""

    pixels: Image
    name: str


Picture = Given | Photograph
"""What is taken wherever a picture is."""


def read_photograph(source: Picture, *, name: str | None = None) -> Photograph:
    """The photograph in a file, in its bytes or in memory; of an animation the first picture.

    Raises UnreadableImage, which names the file and the remedy, for what is missing, empty, damaged, too large or no
    photograph, and SteadfaceError for what is no picture in any form.
    """
    if isinstance(source, Photograph):
        return source
    name = short(name, 200) if name else name_of(source)
    if isinstance(source, np.ndarray | Tensor):
        return _from_array(source, name)
    with _silence:
        return Photograph(pixels=_pixels(source, name), name=name)


def _from_array(array: NDArray[Any] | Tensor, name: str) -> Photograph:
    pixels = pixels_of(array, name)
    height, width, channels = pixels.shape
    _check_size((width, height), name)
    rgb = pixels if channels == 3 else _over_grey(pixels) if channels == 4 else _grey(pixels)
    return Photograph(pixels=rgb, name=f"a picture of {width} x {height}" if name == IN_MEMORY else name)


def _pixels(source: Given, name: str) -> Image:
    if isinstance(source, PIL.Image.Image):
        return _decoded(lambda: _rgb(_as_shown(_within(source, name)), name), name)
    if isinstance(source, str | os.PathLike) and not is_data(source):
        return _from_file(_existing(source, name), name)
    return _from_file(io.BytesIO(encoded(source, name)), name)


def _existing(source: str | os.PathLike[str], name: str) -> Path:
    path = Path(source)
    try:
        if not path.is_file():
            raise UnreadableImage(_no_file(path, name))
        size = path.stat().st_size
    except OSError as error:
        kinds = f"; give {KINDS}" if error.errno == errno.ENAMETOOLONG else ""
        raise UnreadableImage(f"{name} cannot be read: {error.strerror or error}{kinds}") from None
    if not size:
        raise UnreadableImage(f"{name} is empty (0 bytes); copy or download it again")
    return path


def _no_file(path: Path, name: str) -> str:
    if path.is_dir() and name:
        return f"{name} is no file; give the photographs in it"
    if "://" in name[:12]:
        return f"{name} is an address, and nothing is downloaded here; fetch it and give its bytes"
    return f"there is no file {name}" if name else f"the name of the picture is empty; give {KINDS}"


def _from_file(stream: Path | io.BytesIO, name: str) -> Image:
    def opened() -> Image:
        with PIL.Image.open(stream, formats=FORMATS) as picture:
            _within(picture, name).seek(0)
            return _rgb(_as_shown(picture), name)

    try:
        return _decoded(opened, name)
    except PIL.UnidentifiedImageError:
        raise UnreadableImage(f"{name} is no photograph that can be read: {_instead(stream)}") from None


def _decoded(decode: Callable[[], Image], name: str) -> Image:
    try:
        return decode()
    except (UnreadableImage, PIL.UnidentifiedImageError):
        raise
    except PIL.Image.DecompressionBombError:
        raise UnreadableImage(_too_large(name, "many more than that")) from None
    except PermissionError as error:
        raise UnreadableImage(f"{name} cannot be read: {error.strerror}") from None
    # Decoders of damaged files raise whatever their parsing stumbled on: struct.error, IndexError, zlib.error, ...
    except Exception as error:
        raise UnreadableImage(f"{name} is damaged ({short(str(error))}); copy it again or save it anew") from None


def _within(picture: PIL.Image.Image, name: str) -> PIL.Image.Image:
    _check_size(picture.size, name)
    return picture


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(_too_large(name, f"{width} x {height}"))
    if width * height == 0:
        raise UnreadableImage(f"{name} has no pixels ({width} x {height}); save it anew")


def _too_large(name: str, pixels: str) -> str:
    return f"{name} claims more than {MAX_PIXELS // 10**6} million pixels ({pixels}); save it smaller"


def _instead(stream: Path | io.BytesIO) -> str:
    """What to do about a file that no decoder knows."""
    if isinstance(stream, Path):
        with stream.open("rb") as file:
            head = file.read(64)
    else:
        head = stream.getvalue()[:64]
    return kind_of(head) or "give " + ", ".join(FORMATS)


def _as_shown(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Upright, as its EXIF orientation says."""
    picture.load()
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data around a sound picture, in as many ways as there are cameras
        return picture
    method = UPRIGHT.get(orientation)
    return picture if method is None else picture.transpose(method)


def _rgb(picture: PIL.Image.Image, name: str) -> Image:
    """Any mode as RGB. Pillow has reduced 16-bit colour to 8 already, and inverted CMYK as Adobe writes it."""
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return _grey(_eight_bits(np.asarray(picture), name))
    if picture.mode == "F":
        raise UnreadableImage(f"{name} holds floating-point values of unknown range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        return _over_grey(np.asarray(picture.convert("RGBA")))
    if picture.mode in ("1", "L"):
        return _grey(np.asarray(picture.convert("L")))
    return np.array(picture.convert("RGB"))


def _eight_bits(values: np.ndarray[Any, Any], name: str) -> Image:
    """(H, W) of 16 bits as 8, rounded; Pillow widens them to 32 for some files."""
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(f"{name} holds 32-bit values of unknown range; save it with 8 or 16 bits")
    eight: Image = np.rint(values / 257.0).astype(np.uint8)
    return eight


def _grey(values: Image) -> Image:
    return cast(Image, cv2.cvtColor(values, cv2.COLOR_GRAY2RGB))


def _over_grey(pixels: Image) -> Image:
    """RGBA composited over the background."""
    alpha = pixels[:, :, 3:].astype(np.float32) / 255
    over: Image = np.rint(pixels[:, :, :3] * alpha + BACKGROUND * (1 - alpha)).astype(np.uint8)
    return over


class _Silence:
    """No warnings while anybody is inside: what Pillow says of odd files goes into errors, or is of no consequence.

    `warnings.catch_warnings` alone leaves its filter behind when threads overlap; here the first in sets it and the
    last out takes it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._caught: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._caught is not None:
                self._caught.__exit__(None, None, None)
                self._caught = None


_silence = _Silence()
