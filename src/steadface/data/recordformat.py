"""The dmlc RecordIO container and the image records in it, as InsightFace's `.rec` files use them.

Little-endian and aligned to 4 bytes:

    uint32 magic 0xced7230a | uint32 (cflag << 29 | length) | payload padded to 4 bytes

cflag 0 is a whole record; 1, 2, 3 are the first, middle and last part of one whose payload held the magic, which
is cut out there and has to be put back between the parts. The payload is `struct 'IfQQ'` (flag, label, id, id2),
flag x float32 labels when flag > 0, then the encoded image.
"""

import mmap
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import MOST_ENCODED

MAGIC = 0xCED7230A
LENGTH_MASK = (1 << 29) - 1
MAGIC_BYTES = struct.pack("<I", MAGIC)
WHOLE, FIRST, MIDDLE, LAST = range(4)
PART_HEADER = struct.Struct("<II")
IMAGE_HEADER = struct.Struct("<IfQQ")
MOST_RECORD = MOST_ENCODED + (1 << 20)
"""Bytes of a record: an image, and as many labels as anybody has."""


class DamagedRecord(Exception):
    """A record that breaks the format; the message says how."""


@dataclass(frozen=True, kw_only=True)
class RecordHeaders:
    """What stands at the head of n records, each (n,).

    `label` is the first label, `problem` is '' where an image follows the labels, `image_bytes` its size (negative
    where not even the labels are whole), and `end` the offset after the record.
    """

    label: NDArray[np.float32]
    problem: NDArray[np.object_]
    image_bytes: NDArray[np.int64]
    end: NDArray[np.int64]

    @property
    def bare(self) -> NDArray[np.bool_]:
        """Where labels are all there is."""
        bare: NDArray[np.bool_] = (self.problem == NO_IMAGE) & (self.image_bytes == 0)
        return bare


def scan_records(data: mmap.mmap, start: int = 0, stop: int | None = None) -> tuple[NDArray[np.int64], list[str]]:
    """Offsets of the records from `start` to `stop` in file order, by walking from header to header; and where the walk
    lost its way.

    After damage it goes on at the next aligned magic, which cannot lie inside an image.
    """
    offsets: list[int] = []
    damage: list[str] = []
    position, stop = start, len(data) if stop is None else stop
    while position + PART_HEADER.size <= stop:
        magic, word = PART_HEADER.unpack_from(data, position)
        if magic != MAGIC:
            lost, position = position, _next_magic(data, position)
            damage.append(f"bytes {lost} to {position}")
            continue
        if word >> 29 in (WHOLE, FIRST):
            offsets.append(position)
        position += PART_HEADER.size + _padded(word)
    return np.asarray(offsets, dtype=np.int64), damage


def read_record(file: BinaryIO | mmap.mmap, offset: int) -> bytes:
    """The payload of the record at `offset`, its parts joined. Raises `DamagedRecord` or `OSError`."""
    file.seek(offset)
    parts: list[bytes] = []
    total = 0
    while True:
        header = file.read(PART_HEADER.size)
        if len(header) < PART_HEADER.size:
            raise DamagedRecord("it is cut off by the end of the file")
        magic, word = PART_HEADER.unpack(header)
        kind, length = word >> 29, word & LENGTH_MASK
        if magic != MAGIC or kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise DamagedRecord("no record starts where one should")
        if (total := total + length) > MOST_RECORD:
            raise DamagedRecord(f"it is longer than {MOST_RECORD:,} bytes")
        payload = file.read(_padded(word))[:length]
        if len(payload) < length:
            raise DamagedRecord("it is cut off by the end of the file")
        parts.append(payload)
        if kind in (WHOLE, LAST):
            return MAGIC_BYTES.join(parts)


def read_headers(data: mmap.mmap, offsets: NDArray[np.int64]) -> RecordHeaders:
    """Labels and problems of the records at `offsets`, without touching the images of whole ones."""
    words = np.frombuffer(data, dtype="<u4", count=len(data) // 4)
    inside = (offsets >= 0) & (offsets // 4 + 2 <= len(words))
    start = np.where(inside, offsets // 4, 0)
    # The labels stand after the eight words that reach from the magic through the image header.
    magic, word, flag = (_words_at(words, start + place) for place in range(3))
    label = _words_at(words, start + np.where(flag > 0, 8, 3)).view("<f4").astype(np.float32)
    kind, length = word >> 29, (word & LENGTH_MASK).astype(np.int64)
    image_bytes = length - IMAGE_HEADER.size - 4 * flag.astype(np.int64)
    end = start * 4 + PART_HEADER.size + (length + 3) // 4 * 4
    problem = np.full(len(offsets), "", dtype=np.object_)  # as text each would take 320 bytes
    problem[image_bytes <= 0] = NO_IMAGE
    problem[start * 4 + PART_HEADER.size + length > len(data)] = _CUT_OFF
    problem[(magic != MAGIC) | (kind > FIRST) | (offsets % 4 != 0)] = DAMAGED
    problem[~inside] = _CUT_OFF
    left = len(data)  # to be read: records that do not overlap are not longer together than the file
    for index in np.flatnonzero((problem != DAMAGED) & inside & (kind == FIRST)):
        if left < 0:
            problem[index] = DAMAGED
            continue
        label[index], problem[index], image_bytes[index], end[index] = _parts_header(data, int(offsets[index]))
        left -= data.tell() - int(offsets[index])
    problem[(problem == "") & (image_bytes > MOST_ENCODED)] = TOO_LONG
    return RecordHeaders(label=label, problem=problem, image_bytes=image_bytes, end=end)


def _parts_header(data: mmap.mmap, offset: int) -> tuple[float, str, int, int]:
    """(label, problem, image bytes, end) of a record in parts: rare, and its header may itself be split."""
    try:
        payload = read_record(data, offset)
        flag, label, _, _ = IMAGE_HEADER.unpack_from(payload)
        if flag > 0:
            (label,) = struct.unpack_from("<f", payload, IMAGE_HEADER.size)
    except (DamagedRecord, struct.error):
        return 0.0, _CUT_OFF, 0, offset + PART_HEADER.size
    image_bytes = len(payload) - IMAGE_HEADER.size - 4 * flag
    return label, "" if image_bytes > 0 else NO_IMAGE, image_bytes, data.tell()


NO_IMAGE = "records without an image"
DAMAGED = "damaged records"
TOO_LONG = f"images of more than {MOST_ENCODED:,} bytes"
_CUT_OFF = "records cut off by the end of the file (is the .rec truncated?)"
PROBLEMS = ("", NO_IMAGE, DAMAGED, TOO_LONG, _CUT_OFF)
"""Every problem that a record can have."""


def _words_at(words: NDArray[np.uint32], positions: NDArray[np.int64]) -> NDArray[np.uint32]:
    taken: NDArray[np.uint32] = words[np.minimum(positions, len(words) - 1)]
    return taken


def _next_magic(data: mmap.mmap, position: int) -> int:
    position = -(-(position + 1) // 4) * 4
    while (position := data.find(MAGIC_BYTES, position)) >= 0:
        if position % 4 == 0:
            return position
        position += 1
    return len(data)


def _padded(word: int) -> int:
    """Bytes of the payload in the file, from the header's second word."""
    return ((word & LENGTH_MASK) + 3) // 4 * 4
