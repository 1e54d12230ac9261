"""How many pixels an encoded picture claims, read from its first bytes: before a decoder makes room for them; and how
often a JPEG goes over them.

Of the formats that cameras, scanners and browsers write, each as its decoder reads it: of JPEG the first frame header
(ITU-T T.81, B.2.2), of PNG the first chunk, of WebP the canvas (RFC 9649), of GIF the screen, of BMP the information
header, of PPM the first three numbers, of TIFF the largest of what its first directory says, tiles included.
"""

import re
import struct
from collections.abc import Callable

MOST_ENTRIES = 4096
"""Of a TIFF directory; one has 20 or 30."""

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG whose segment says how large the picture is."""
BARE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
"""Those without a segment, and a byte that is none."""
FILL, SCAN, END = 0xFF, 0xDA, 0xD9
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
MOST_SCANS = 100
"""Of a JPEG; progressive ones have ten, and each takes as long as the picture is large."""
SEGMENT, SIDES = struct.Struct(">BH"), struct.Struct(">HH")

PNG = b"\x89PNG\r\n\x1a\n"

WIDTHS, HEIGHTS = (256, 322), (257, 323)
"""Tags of TIFF: of the picture, and of a tile."""
WIDE = {3: 2, 8: 2, 4: 4, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of each type of number, signed or not, but those of one."""

NUMBERS = re.compile(rb"P[1-6](?:\s|#[^\n\r]*[\n\r])+(\d{1,9})(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})\s")

Size = tuple[int, int]
"""Width and height, in either order."""


def claimed_size(encoded: bytes) -> Size | None:
    """Width and height that the header claims; None for no format of these, and where it is too damaged to say."""
    for magic, read in FORMATS:
        if encoded.startswith(magic):
            try:
                return read(encoded)
            except (struct.error, OverflowError):  # it ends before, by far perhaps
                return None
    return None


def _jpeg(encoded: bytes) -> Size | None:
    place = 2
    while (place := encoded.find(b"\xff", place)) >= 0:
        marker, length = SEGMENT.unpack_from(encoded, place + 1)
        if marker in FRAMES:
            height, width = SIDES.unpack_from(encoded, place + 5)
            return width, height
        if marker in (SCAN, END):
            return None
        place += 1 if marker == FILL else 2 if marker in BARE else 2 + max(2, length)
    return None


def too_many_scans(encoded: bytes) -> bool:
    """Whether a JPEG goes over the picture more than `MOST_SCANS` times, each time in as little as ten bytes."""
    if not encoded.startswith(b"\xff\xd8\xff") or encoded.count(b"\xff\xda") <= MOST_SCANS:
        return False
    place, scans = 2, 0  # in thumbnails, and in films that phones add at the end, these bytes mean nothing
    while (found := MARKER.search(encoded, place)) is not None and scans <= MOST_SCANS:
        place, marker = found.end(), encoded[found.end() - 1]
        if marker == END:
            break
        scans += marker == SCAN
        place += 0 if marker in BARE else max(2, int.from_bytes(encoded[place : place + 2], "big"))
    return scans > MOST_SCANS


def _png(encoded: bytes) -> Size | None:
    """None, too, for a chunk that claims to be longer than the file: its decoder makes room for that first."""
    place = 8
    while place + 8 <= len(encoded) and encoded[place + 4 : place + 8] != b"IEND":
        place += 12 + int.from_bytes(encoded[place : place + 4], "big")
    if place > len(encoded) or encoded[12:16] != b"IHDR":
        return None
    return struct.unpack_from(">II", encoded, 16)


def without_profile(encoded: bytes) -> bytes:
    """A PNG without its colour profile, which is not applied; other pictures as they are. Of a faulty one libpng tells
    the terminal, by the name that stands in it.
    """
    if not encoded.startswith(PNG) or b"iCCP" not in encoded:
        return encoded
    kept, place = [PNG], len(PNG)
    while place < len(encoded):
        chunk = encoded[place : place + 12 + int.from_bytes(encoded[place : place + 4], "big")]
        kept += [] if chunk[4:8] == b"iCCP" else [chunk]
        place += len(chunk)
    return b"".join(kept)


def _webp(encoded: bytes) -> Size | None:
    if len(encoded) < 30:
        return None
    match encoded[8:16]:
        case b"WEBPVP8X":
            return 1 + int.from_bytes(encoded[24:27], "little"), 1 + int.from_bytes(encoded[27:30], "little")
        case b"WEBPVP8 ":
            width, height = struct.unpack_from("<HH", encoded, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"WEBPVP8L":
            (bits,) = struct.unpack_from("<I", encoded, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _gif(encoded: bytes) -> Size | None:
    return struct.unpack_from("<HH", encoded, 6)


def _bmp(encoded: bytes) -> Size | None:
    (size,) = struct.unpack_from("<I", encoded, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", encoded, 18)
    return abs(width), abs(height)


def run_lengths(encoded: bytes) -> Size:
    """Width and height of a BMP that is packed by run lengths (compression 1 or 2); none of any other."""
    if len(encoded) < 34 or encoded[14:18] == b"\x0c\0\0\0" or encoded[30:34] not in (b"\1\0\0\0", b"\2\0\0\0"):
        return 0, 0
    return _bmp(encoded) or (0, 0)


def _ppm(encoded: bytes) -> Size | None:
    found = NUMBERS.match(encoded[:4096])
    return None if found is None else (int(found[1]), int(found[2]))


def _tiff(encoded: bytes) -> Size | None:
    order = "<" if encoded[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", encoded, 2)[0] == 43
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), encoded, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), encoded, place)
    if count > MOST_ENTRIES:
        return None
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    start = place + (8 if big else 2)
    table = entry.iter_unpack(encoded[start : start + count * entry.size])
    found = [(tag, _value(order, kind, field, big)) for tag, kind, _, field in table if tag in WIDTHS + HEIGHTS]
    width, height = (max((value for tag, value in found if tag in tags), default=0) for tags in (WIDTHS, HEIGHTS))
    return width, height


def _value(order: str, kind: int, field: int, big: bool) -> int:
    """The first number of an entry, which stands at the beginning of its field.

    Raises OverflowError for one that has no room there, but lies elsewhere in the file.
    """
    width, size = 8 if big else 4, WIDE.get(kind, 1)
    if size > width:
        raise OverflowError("a number beside its directory")
    return field >> 8 * (width - size) if order == ">" else field & (1 << 8 * size) - 1


FORMATS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (PNG, _png),
    (b"RIFF", _webp),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    *((b"P%d" % kind, _ppm) for kind in range(1, 7)),
    *((magic, _tiff) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
"""By the first bytes of a file."""
