"""InsightFace training sets: `.rec` with its `.idx` and `property`."""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import as_path
from steadface.data.faces import Image, UnreadableImage, as_text, decode_image
from steadface.data.listing import Skips, people_with_images
from steadface.data.recordformat import (
    DAMAGED,
    IMAGE_HEADER,
    PROBLEMS,
    DamagedRecord,
    RecordHeaders,
    read_record,
)
from steadface.data.recordindex import record_index
from steadface.errors import InvalidInput, unreadable
from steadface.files import open_file, read_file

LARGEST_LABEL = 2.0**31
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
        classes = _class_count(self.path.with_name("property"))
        index = self.path.with_suffix(".idx")
        listed = index.is_file() and index.stat().st_size > 0
        found = record_index(self.path, index if listed else None)
        skips, columns = found.skips, found.columns
        keys, offsets, unlisted = columns["key"], columns["offset"], columns["unlisted"]
        headers = RecordHeaders(
            label=columns["label"],
            problem=np.array(PROBLEMS, dtype=np.object_)[columns["problem"]],
            image_bytes=columns["image_bytes"],
            end=columns["end"],
        )
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

    def place(self, index: int) -> tuple[str, str | None]:
        """The file that an image lies in, and its key, as `FaceFiles.place` has it."""
        return as_text(self.path.name), str(self.keys[index])

    def fingerprint(self) -> str:
        digest = hashlib.sha256(str(self._bytes).encode())
        for array in (self.keys, self.offsets, self.labels):
            digest.update(array.tobytes())
        return digest.hexdigest()


NOT_MEANT = "no image and not meant to be one"


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
