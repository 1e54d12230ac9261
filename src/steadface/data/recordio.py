"""InsightFace training sets: `.rec` with its `.idx` and `property`."""

import hashlib
import mmap
import os
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import as_path
from steadface.data.faces import Image, UnreadableImage, decode_image
from steadface.data.listing import Skips, people_with_images
from steadface.data.recordformat import (
    DAMAGED,
    IMAGE_HEADER,
    MAGIC_BYTES,
    NO_IMAGE,
    PART_HEADER,
    DamagedRecord,
    RecordHeaders,
    read_headers,
    read_record,
    scan_records,
)
from steadface.errors import InvalidInput, unreadable
from steadface.files import open_file, read_file

LARGEST_LABEL = 2.0**31
MOST_INDEX_BYTES = 1 << 30
"""Of an `.idx`: fifty million lines."""
MOST_PROPERTY_BYTES = 4096


class RecordFile:
    """The faces of a `.rec` file, read lazily by offset; people are named by their label in the file.

    Record 0, when it carries labels of its own and nothing after them, is metadata: the images are the keys 1 ..
    int(label[0]) - 1, and what carries labels alone after those tells where each person's images lie.
    A missing `.idx` is rebuilt by walking the file. Left out and counted in `skipped`, with `messages` for people
    to read: images that the metadata or the `.idx` does not name, records beyond the end of a truncated file, damaged
    ones, ones without an image, ones listed twice, labels that are negative, not whole, or not below the class count of
    `property`, and people with fewer than `min_images` images.
    Raises `SteadfaceError` for a file that is not a `.rec`, an unusable `.idx`, and when nothing is left.
    """

    def __init__(self, path: str | os.PathLike[str], *, min_images: int = 1) -> None:
        self.path = as_path(path, "the .rec file")
        skips = Skips()
        classes = _class_count(self.path.with_name("property"))
        with _mapped(self.path) as data:
            index = self.path.with_suffix(".idx")
            listed = index.is_file() and index.stat().st_size > 0
            keys, offsets = read_index(index) if listed else _walked(data, skips)
            keys, offsets = _once_each(keys, offsets, skips)
            headers = read_headers(data, offsets)
            unlisted = _unlisted(data, offsets, headers) if listed else offsets[:0]
        skips.numbered(f"images that {index.name} does not list; delete it and it is rebuilt", "byte", unlisted)
        note = () if listed else (f"{index} is missing: rebuilt by walking the .rec",)
        problem = np.where(headers.problem == "", _label_problems(headers.label, classes), headers.problem)
        if (end := _metadata_end(keys, headers, skips)) is not None:
            problem = _beside_metadata(problem, keys, headers, end, listed)
            there = int(np.count_nonzero((keys >= 1) & (keys < end) if listed else ~headers.bare))
            if (absent := end - 1 - there - len(unlisted)) > 0:
                skips.add("images that the metadata promises and the file lacks", f"keys 1 to {end - 1}", count=absent)
        for reason in sorted(set(problem) - {"", NOT_MEANT}):
            skips.numbered(reason, "key", keys[problem == reason])
        sound = problem == ""
        values, labels = np.unique(headers.label[sound].astype(np.int64), return_inverse=True)
        names = [str(value) for value in values]
        wanted = people_with_images(labels, names, min_images, skips)
        kept = wanted[labels]
        self.skipped, self.messages = skips.counts, (*note, *skips.messages)
        if not kept.any():
            raise InvalidInput("; ".join((f"no faces in {self.path}", *self.messages)))
        self.keys = keys[sound][kept]
        self.offsets = offsets[sound][kept]
        self.sizes = headers.image_bytes[sound][kept]
        self.labels: NDArray[np.int64] = (np.cumsum(wanted) - 1)[labels[kept]]
        self.people = tuple(names[person] for person in np.flatnonzero(wanted))
        self._bytes = self.path.stat().st_size

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, index: int) -> Image:
        return decode_image(self.read_encoded(index), self.name(index))

    def read_encoded(self, index: int) -> bytes:
        try:
            with open_file(self.path) as file:
                payload = read_record(file, int(self.offsets[index]))
            flag = IMAGE_HEADER.unpack_from(payload)[0]
        except (OSError, DamagedRecord, struct.error) as error:
            raise UnreadableImage(f"{self.name(index)} cannot be read: {error}") from None
        return payload[IMAGE_HEADER.size + 4 * flag :]

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
        with open_file(path, most=MOST_INDEX_BYTES) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is nothing in it
            table = np.loadtxt(file, dtype=np.int64, ndmin=2)
    except OSError as error:
        raise unreadable(error, f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"{path} is damaged ({error}); delete it and it is rebuilt from the .rec") from None
    if table.shape[1] != 2:
        raise InvalidInput(f"{path} has {table.shape[1]} columns; 'key<tab>offset' is expected")
    return table[:, 0].copy(), table[:, 1].copy()


NOT_MEANT = "no image and not meant to be one"


def _walked(data: mmap.mmap, skips: Skips) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and offsets from a walk through the `.rec`."""
    offsets, damage = scan_records(data)
    skips.extend("stretches that hold no record", damage)
    return np.arange(len(offsets)), offsets


def _once_each(
    keys: NDArray[np.int64], offsets: NDArray[np.int64], skips: Skips
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Without the lines of an `.idx` that name a record again."""
    first = np.sort(np.unique(offsets, return_index=True)[1])
    again = np.setdiff1d(np.arange(len(keys)), first)
    skips.numbered("lines of the .idx that name a record again", "key", keys[again])
    return keys[first], offsets[first]


def _unlisted(data: mmap.mmap, offsets: NDArray[np.int64], headers: RecordHeaders) -> NDArray[np.int64]:
    """Offsets of the images between and after the records at `offsets`, which an `.idx` lists."""
    whole = np.flatnonzero((headers.problem == "") | (headers.problem == NO_IMAGE))
    whole = whole[np.argsort(offsets[whole])]
    starts = np.concatenate(([0], headers.end[whole]))
    stops = np.concatenate((offsets[whole], [len(data)]))
    gaps = np.flatnonzero(stops - starts >= PART_HEADER.size)
    found = [scan_records(data, int(starts[gap]), int(stops[gap]))[0] for gap in gaps]
    between = np.setdiff1d(np.concatenate([offsets[:0], *found]), offsets)
    images: NDArray[np.int64] = between[read_headers(data, between).problem == ""]
    return images


def _metadata_end(keys: NDArray[np.int64], headers: RecordHeaders, skips: Skips) -> int | None:
    """int(label[0]) of record 0 when labels are all it holds; None where it is an image or names none that is there."""
    metadata = np.flatnonzero((keys == 0) & headers.bare)
    if not len(metadata):
        return None
    label = headers.label[metadata[0]]
    end = int(label) if np.isfinite(label) else 0
    image = headers.problem == ""
    if (image & (keys >= 1) & (keys < end)).any() or not image.any():
        return end
    skips.add("metadata that names none of the images, so all are taken", f"key 0: images up to {label:g}")
    return None


def _beside_metadata(
    problem: NDArray[np.object_], keys: NDArray[np.int64], headers: RecordHeaders, end: int, listed: bool
) -> NDArray[np.object_]:
    """`problem`, (n,), now that the metadata says that images are the keys 1 .. end - 1."""
    named, image = (keys >= 1) & (keys < end), headers.problem == ""
    # Without an .idx the keys count what is there, so that damage shifts them.
    expected = headers.bare if not listed else ~named & ~image & (headers.problem != DAMAGED)
    beyond = f"images beyond the keys 1 to {end - 1} that the metadata names"
    return np.where(expected, NOT_MEANT, np.where(image & ~named & listed, beyond, problem))


def _label_problems(label: NDArray[np.float32], classes: int | None) -> NDArray[np.object_]:
    problem = np.full(len(label), "", dtype=np.object_)
    if classes is None:
        problem[label >= LARGEST_LABEL] = "labels too large to be true"
    else:
        problem[label >= classes] = f"labels beyond the {classes} classes of the property file"
    problem[label < 0] = "negative labels"
    with np.errstate(invalid="ignore"):  # of NaN that signals
        problem[~np.isfinite(label) | (np.floor(label) != label)] = "labels that are not whole numbers"
    return problem


def _class_count(path: Path) -> int | None:
    """The first number of `property` (`classes,height,width`); None where the file is missing."""
    if not path.is_file():
        return None
    try:
        text = read_file(path, most=MOST_PROPERTY_BYTES).decode("utf-8", "replace").strip()
        classes = int(text.split(",")[0])
    except OSError as error:
        raise unreadable(error, f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        classes = 0
    if not 0 < classes <= LARGEST_LABEL:
        raise InvalidInput(f"{path} says {text[:40]!r}; 'classes,112,112' is expected")
    return classes


def _mapped(path: Path) -> mmap.mmap:
    try:
        with open_file(path) as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise unreadable(error, f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if data[:4] != MAGIC_BYTES:
        data.close()
        raise InvalidInput(f"{path} is not a .rec file: it does not start with the RecordIO magic")
    return data
