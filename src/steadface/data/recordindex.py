"""Where the records of a `.rec` lie and what stands at their heads: from its `.idx`, or by walking through it."""

import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import MOST_ENCODED
from steadface.data.keptindex import Index, kept_index
from steadface.data.listing import Skips
from steadface.data.recordformat import (
    MAGIC_BYTES,
    NO_IMAGE,
    PART_HEADER,
    PROBLEMS,
    RecordHeaders,
    read_headers,
    scan_records,
)
from steadface.errors import InvalidInput, unreadable
from steadface.files import open_file

MOST_INDEX_BYTES = 1 << 30
"""Of an `.idx`: fifty million lines."""
TYPES = {
    **dict.fromkeys(("key", "offset", "image_bytes", "end", "unlisted"), "I64"),
    **{"label": "F32", "problem": "U8"},
}


def record_index(path: Path, index: Path | None) -> Index:
    """Columns of the n records of the `.rec` at `path` that `index`, its `.idx`, lists, or of all where that is None.

    Kept for the next time, since every record is looked at (`kept_index`): `key`, `offset`, and what `RecordHeaders`
    has, `problem` as its place in `PROBLEMS`; `unlisted` are the offsets of images that the `.idx` lacks. Raises
    `SteadfaceError` for what is no `.rec`, and for an unusable `.idx`.
    """
    files = [path] if index is None else [path, index]
    return kept_index(files, TYPES, lambda: _looked_through(path, index), lambda columns: _fits(columns, path))


def _looked_through(path: Path, index: Path | None) -> Index:
    skips = Skips()
    with _mapped(path) as data:
        keys, offsets = _walked(data, skips) if index is None else read_index(index)
        keys, offsets = _once_each(keys, offsets, skips)
        headers = read_headers(data, offsets)
        unlisted = offsets[:0] if index is None else _unlisted(data, offsets, headers)
    problem = np.zeros(len(keys), dtype=np.uint8)
    for number, reason in enumerate(PROBLEMS):
        problem[headers.problem == reason] = number
    columns: dict[str, NDArray[Any]] = {
        "key": keys,
        "offset": offsets,
        "image_bytes": headers.image_bytes,
        "end": headers.end,
        "unlisted": unlisted,
        "label": headers.label,
        "problem": problem,
    }
    return Index(columns=columns, skips=skips)


def _fits(columns: Mapping[str, NDArray[Any]], path: Path) -> bool:
    """Whether columns that lay beside the `.rec` at `path` can be its: whatever they call sound lies within it."""
    problem, offset, image_bytes = columns["problem"], columns["offset"], columns["image_bytes"]
    if any(len(columns[name]) != len(offset) for name in TYPES if name != "unlisted"):
        return False
    if (problem >= len(PROBLEMS)).any():
        return False
    sound = problem == 0
    within = (offset >= 0) & (offset < path.stat().st_size) & (image_bytes > 0) & (image_bytes <= MOST_ENCODED)
    return bool(within[sound].all())


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
