"""InsightFace training sets: `.rec` with its `.idx` and `property`."""

import hashlib
import mmap
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image, UnreadableImage, decode_image
from steadface.data.listing import Skips, people_with_images
from steadface.data.recordformat import (
    IMAGE_HEADER,
    MAGIC_BYTES,
    PART_HEADER,
    DamagedRecord,
    read_headers,
    read_record,
    scan_records,
)
from steadface.errors import SteadfaceError

LARGEST_LABEL = 2.0**31


class RecordFile:
    """The faces of a `.rec` file, read lazily by offset; people are named by their label in the file.

    Record 0, when it carries labels of its own, is metadata: the images are the keys 1 .. int(label[0]) - 1.
    A missing `.idx` is rebuilt by walking the file. Left out and counted in `skipped`, with `messages` for people
    to read: records beyond the end of a truncated file, damaged ones, ones without an image, labels that are
    negative, not whole, or not below the class count of `property`, and people with fewer than `min_images` images.
    Raises `SteadfaceError` for a file that is no `.rec`, an unusable `.idx`, and when nothing is left.
    """

    def __init__(self, path: str | os.PathLike[str], *, min_images: int = 1) -> None:
        self.path = Path(path)
        skips = Skips()
        classes = _class_count(self.path.with_name("property"))
        with _mapped(self.path) as data:
            keys, offsets, note = _index(self.path.with_suffix(".idx"), data, skips)
            keys, offsets = _image_records(data, keys, offsets, skips)
            headers = read_headers(data, offsets)
        problem = np.where(headers.problem == "", _label_problems(headers.label, classes), headers.problem)
        for reason in np.unique(problem[problem != ""]):
            skips.extend(str(reason), (f"key {key}" for key in keys[problem == reason]))
        sound = problem == ""
        values, labels = np.unique(headers.label[sound].astype(np.int64), return_inverse=True)
        names = [str(value) for value in values]
        wanted = people_with_images(labels, names, min_images, skips)
        kept = wanted[labels]
        self.skipped, self.messages = skips.counts, (*note, *skips.messages)
        if not kept.any():
            raise SteadfaceError("; ".join((f"no faces in {self.path}", *self.messages)))
        self.keys = keys[sound][kept]
        self.offsets = offsets[sound][kept]
        self.labels: NDArray[np.int64] = (np.cumsum(wanted) - 1)[labels[kept]]
        self.people = tuple(names[person] for person in np.flatnonzero(wanted))
        self._bytes = self.path.stat().st_size

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, index: int) -> Image:
        try:
            with self.path.open("rb") as file:
                payload = read_record(file, int(self.offsets[index]))
            flag = IMAGE_HEADER.unpack_from(payload)[0]
        except (OSError, DamagedRecord, struct.error) as error:
            raise UnreadableImage(f"{self.name(index)} cannot be read: {error}") from None
        return decode_image(payload[IMAGE_HEADER.size + 4 * flag :], self.name(index))

    def name(self, index: int) -> str:
        return f"key {self.keys[index]} of {self.path}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(str(self._bytes).encode())
        for array in (self.keys, self.offsets, self.labels):
            digest.update(array.tobytes())
        return digest.hexdigest()


def read_index(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys (n,) and byte offsets (n,) from lines `key<tab>offset`. Raises `SteadfaceError`."""
    try:
        table = np.loadtxt(path, dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise SteadfaceError(f"{path} is damaged ({error}); delete it and it is rebuilt from the .rec") from None
    if table.shape[1] != 2:
        raise SteadfaceError(f"{path} has {table.shape[1]} columns; 'key<tab>offset' is expected")
    return table[:, 0].copy(), table[:, 1].copy()


def _index(path: Path, data: mmap.mmap, skips: Skips) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Keys and offsets from the `.idx`, else from a walk through the `.rec`; with a note when walked."""
    if path.is_file() and path.stat().st_size:
        return *read_index(path), ()
    offsets, damage = scan_records(data)
    skips.extend("stretches that hold no record", damage)
    return np.arange(len(offsets)), offsets, (f"{path} is missing: rebuilt by walking the .rec",)


def _image_records(
    data: mmap.mmap, keys: NDArray[np.int64], offsets: NDArray[np.int64], skips: Skips
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Without the metadata record and the per-person records that it says come after the images."""
    zero = np.flatnonzero(keys == 0)
    end = _metadata_end(data, int(offsets[zero[0]])) if len(zero) else None
    if end is None:
        return keys, offsets
    images = (keys >= 1) & (keys < end)
    absent = end - 1 - int(images.sum())
    if absent > 0:
        skips.add("images that the metadata promises and the file lacks", f"keys 1 to {end - 1}", count=absent)
    return keys[images], offsets[images]


def _metadata_end(data: mmap.mmap, offset: int) -> int | None:
    """int(label[0]) of record 0 when it is metadata, which its flag tells; else None."""
    at = offset + PART_HEADER.size
    if offset < 0 or at + IMAGE_HEADER.size + 4 > len(data):
        return None
    flag = IMAGE_HEADER.unpack_from(data, at)[0]
    end: float = struct.unpack_from("<f", data, at + IMAGE_HEADER.size)[0]
    return int(end) if flag > 0 and np.isfinite(end) else None


def _label_problems(label: NDArray[np.float32], classes: int | None) -> NDArray[np.str_]:
    problem = np.full(len(label), "", dtype="U64")
    if classes is None:
        problem[label >= LARGEST_LABEL] = "labels too large to be true"
    else:
        problem[label >= classes] = f"labels beyond the {classes} classes of the property file"
    problem[label < 0] = "negative labels"
    problem[~np.isfinite(label) | (np.floor(label) != label)] = "labels that are not whole numbers"
    return problem


def _class_count(path: Path) -> int | None:
    """The first number of `property` (`classes,height,width`); None where the file is missing."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        return int(text.split(",")[0])
    except ValueError:
        raise SteadfaceError(f"{path} says {text[:40]!r}; 'classes,112,112' is expected") from None


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise SteadfaceError(f"cannot read {path}: {error}") from None
    if data[:4] != MAGIC_BYTES:
        data.close()
        raise SteadfaceError(f"{path} is not a .rec file: it does not start with the RecordIO magic")
    return data
