"""Pictures in any form become upright 8-bit RGB, and what cannot be one is refused before it takes memory.

`steadface.faces.pictures` says in which forms, `steadface.faces.arrays` by which rule arrays and tensors are read. The
header is read first: a picture of more than `MAX_PIXELS` is refused on what it claims. Only formats that cameras,
scanners and browsers write are tried; others (EPS, FITS, ...) bring interpreters of their own along.
"""

import errno
import io
import math
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from torch import Tensor

from steadface.data.faces import Image, UnreadableImage, kind_of
from steadface.data.pictureheader import MOST_SCANS, run_lengths, too_many_scans
from steadface.errors import short
from steadface.faces.arrays import pixels_of
from steadface.faces.pictures import IN_MEMORY, KINDS, MOST_BYTES, Given, encoded, is_data, name_of
from steadface.files import open_file

MAX_PIXELS = 120_000_000
"""The largest phone sensor in wide use has 108 million; decoded they take 0.9 GB for a moment."""

PART = 1 << 22
"""Pixels that are brought into 8-bit RGB at a time: what that needs in between would be several times the picture."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

JPEG = b"\xff\xd8\xff"
"""How the file begins."""
PLAIN = (b"P1", b"P2", b"P3")
"""How a PPM written as text does."""
MOST_COMMENTS = 1000
"""Of such a file; for each of them Pillow copies what comes after it."""

MOST_RUN_LENGTHS = 1 << 24
"""Pixels of a BMP packed by run lengths, which Pillow unpacks in Python, up to four million a second."""

BACKGROUND = 127
"""Grey behind what is transparent: neither black hair nor white paper draws a line there."""

ORIENTATION = 0x0112
"""The EXIF tag."""

TILE_WIDTH, TILE_LENGTH = 322, 323
"""Tags of TIFF."""

UPRIGHT: dict[int, Callable[[Image], Image]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
"""EXIF orientation (EXIF 2.32, 4.6.4) -> what brings the pixels upright; 1 is upright."""


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
        return _decoded(lambda: _upright(*_rgb(_within(source, name), name)), name)
    if isinstance(source, str | os.PathLike) and not is_data(source):
        with _existing(source, name) as file:
            return _from_file(file, name)
    return _from_file(io.BytesIO(encoded(source, name)), name)


def _existing(source: str | os.PathLike[str], name: str) -> BinaryIO:
    path = Path(source)
    try:
        file = open_file(path, most=MOST_BYTES)
    except FileNotFoundError:
        raise UnreadableImage(_no_file(path, name)) from None
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise UnreadableImage(_no_file(path, name)) from None
        kinds = f"; give {KINDS}" if error.errno == errno.ENAMETOOLONG else ""
        raise UnreadableImage(f"{name} cannot be read: {error.strerror or error}{kinds}") from None
    if not os.fstat(file.fileno()).st_size:
        file.close()
        raise UnreadableImage(f"{name} is empty (0 bytes); copy or download it again")
    return file


def _no_file(path: Path, name: str) -> str:
    if name and path.is_dir():
        return f"{name} is no file; give the photographs in it"
    if "://" in name[:12]:
        return f"{name} is an address, and nothing is downloaded here; fetch it and give its bytes"
    return f"there is no file {name}" if name else f"the name of the picture is empty; give {KINDS}"


def _from_file(stream: BinaryIO, name: str) -> Image:
    stream = _of_bounded_work(stream, name)

    def opened() -> Image:
        with PIL.Image.open(stream, formats=FORMATS) as picture:
            _within(picture, name).seek(0)
            pixels, orientation = _rgb(picture, name)
        return _upright(pixels, orientation)

    try:
        return _decoded(opened, name)
    except PIL.UnidentifiedImageError:
        stream.seek(0)
        kind = kind_of(stream.read(64)) or "give " + ", ".join(FORMATS)
        raise UnreadableImage(f"{name} is no photograph that can be read: {kind}") from None


def _of_bounded_work(stream: BinaryIO, name: str) -> BinaryIO:
    """The same from its start. Raises UnreadableImage for what would take long however few pixels it has."""
    head = stream.read(3)
    if head == JPEG or head[:2] in PLAIN:
        stream = io.BytesIO(head + stream.read())
        if too_many_scans(stream.getvalue()):
            raise UnreadableImage(f"{name} is a JPEG of more than {MOST_SCANS} scans; save it anew")
        if head != JPEG and stream.getvalue().count(b"#") > MOST_COMMENTS:
            raise UnreadableImage(f"{name} is a PPM of more than {MOST_COMMENTS} comments; save it anew")
    if head[:2] == b"BM" and math.prod(run_lengths(head + stream.read(64))) > MOST_RUN_LENGTHS:
        raise UnreadableImage(f"{name} is a BMP of run lengths of more than {MOST_RUN_LENGTHS:,} pixels; save it anew")
    stream.seek(0)
    return stream


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
    tags = getattr(picture, "tag_v2", {})  # of TIFF, of which a tile may be larger than the picture
    tile = tags.get(TILE_WIDTH, 1), tags.get(TILE_LENGTH, 1)
    if all(isinstance(side, int) and side > 0 for side in tile):
        _check_size(tile, name)
    return picture


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(_too_large(name, f"{width} x {height}"))
    if width * height == 0:
        raise UnreadableImage(f"{name} has no pixels ({width} x {height}); save it anew")


def _too_large(name: str, pixels: str) -> str:
    return f"{name} claims more than {MAX_PIXELS // 10**6} million pixels ({pixels}); save it smaller"


def _rgb(picture: PIL.Image.Image, name: str) -> tuple[Image, int]:
    """Any mode as RGB, as it is stored, and its EXIF orientation.

    Pillow has reduced 16-bit colour to 8 already, and inverted CMYK as Adobe writes it.
    """
    picture.load()
    _check_size(picture.size, name)
    if picture.mode == "F":
        raise UnreadableImage(f"{name} holds floating-point values of unknown range; save it with 8 or 16 bits")
    see_through = picture.has_transparency_data
    width, height = picture.size
    rows = max(1, PART // width)
    if height <= rows:
        return _part_rgb(picture, see_through, name), _orientation(picture)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        part = picture.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _part_rgb(part, see_through, name)
    return pixels, _orientation(picture)


def _part_rgb(picture: PIL.Image.Image, see_through: bool, name: str) -> Image:
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return _grey(_eight_bits(np.asarray(picture), name))
    if see_through:
        return _over_grey(np.asarray(picture.convert("RGBA")))
    if picture.mode in ("1", "L"):
        return _grey(np.asarray(picture.convert("L")))
    return np.array(picture.convert("RGB"))


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data around a sound picture, in as many ways as there are cameras
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(pixels: Image, orientation: int) -> Image:
    turn = UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


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
