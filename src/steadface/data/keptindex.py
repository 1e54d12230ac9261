"""An index of files that take long to look through: made once, then mapped by every process that wants it.

It is a file of the safetensors format (a length, a JSON header, arrays), so that opening it reads nothing but what is
asked for, and processes share it in memory. It holds for files of the same names, sizes and times of change; else it
is made anew. It lies beside the files as `.steadface-*.index`, or where that folder cannot be written in the cache of
the user; where neither can, the files are looked through each time. One process makes it while others wait. An index
comes with the files and is trusted no more than they are: who reads it says which columns it has and whether it fits.
"""

import hashlib
import json
import logging
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.data.listing import Skips
from steadface.errors import unreadable
from steadface.files import new_partial, open_file, user_cache

if sys.platform != "win32":
    import fcntl

WORTHWHILE = 1 << 24
"""Bytes of files that an index is kept of; fewer are looked through in no time."""
SETTLED = 2.0
"""Seconds since the last change of a file, for another change to show in its time."""
MOST_HEADER = 1 << 22
"""Bytes of the header of an index: the names of its columns, and examples of what was left out."""
TYPES = {"I64": "<i8", "F32": "<f4", "I32": "<i4", "U8": "|u1"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Index:
    """Columns by name, each of one dimension, and what was left out when they were made."""

    columns: Mapping[str, NDArray[Any]]
    skips: Skips


Make = Callable[[], Index]
Fits = Callable[[Mapping[str, NDArray[Any]]], bool]


def kept_index(files: Sequence[Path], types: Mapping[str, str], make: Make, fits: Fits) -> Index:
    """The index of `files` that is kept, or the one that is made now, and kept for the next.

    `types` are the columns with their types (`TYPES`), the longest first; `fits` says whether columns can be those of
    the files. Raises `SteadfaceError` for a file that is not there, and what `make` does.
    """
    stamp, size, changed = _stamp(files)
    if size < WORTHWHILE or time.time() - changed < SETTLED:
        return make()
    places = _places(files, types)
    for place in places:
        if (found := _read(place, stamp, types, fits)) is not None:
            return found
    for place in places:
        with _turn(place) as mine:
            if mine:
                return _read(place, stamp, types, fits) or _made(place, stamp, types, files, make)
    logger.info("no index of %s can be kept, beside it or in the user's cache: it is made each time", files[0].parent)
    return make()


def _made(place: Path, stamp: str, types: Mapping[str, str], files: Sequence[Path], make: Make) -> Index:
    """A new one, kept unless there is no room or the files have changed meanwhile."""
    logger.info("looking through %d files once, for the index %s", len(files), place)
    index = make()
    if _stamp(files)[0] != stamp:
        return index
    try:
        for old in place.parent.glob(f"{place.name}.*.partial"):
            old.unlink()  # of a writer that was killed
        # A name of its own: where locks do not reach other machines, another may be writing.
        with new_partial(place.parent, f"{place.name}.") as (file, partial):
            for part in _written(index, stamp, types):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(files[0].stat().st_mode & 0o666)  # who may read the files, and nobody else: it holds names
            partial.replace(place)
    except OSError as error:
        logger.info("the index %s cannot be kept: %s", place, error.strerror or error)
    return index


def _written(index: Index, stamp: str, types: Mapping[str, str]) -> Iterator[Any]:
    header: dict[str, Any] = {"__metadata__": {"stamp": stamp, "skips": json.dumps(index.skips.noted)}}
    place = 0
    for name, kind in types.items():
        column = index.columns[name]
        end = place + column.nbytes
        header[name] = {"dtype": kind, "shape": [len(column)], "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name, kind in types.items():
        yield np.ascontiguousarray(index.columns[name], dtype=TYPES[kind]).data


def _read(path: Path, stamp: str, types: Mapping[str, str], fits: Fits) -> Index | None:
    """The index at `path`; None where there is none, or none of these files."""
    try:
        with open_file(path) as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(data[:8], "little")
        if length > MOST_HEADER:
            return None
        header = json.loads(data[8 : 8 + length])
        if header["__metadata__"]["stamp"] != stamp:
            return None
        columns = {name: _column(data, 8 + length, header[name], kind) for name, kind in types.items()}
        if not fits(columns):
            return None
        return Index(columns=columns, skips=Skips.of(json.loads(header["__metadata__"]["skips"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _column(data: mmap.mmap, base: int, said: Mapping[str, Any], kind: str) -> NDArray[Any]:
    """A view of the mapped file. Raises ValueError where it is of another type, or reaches beyond the file."""
    (count,), place = said["shape"], said["data_offsets"][0]
    if said["dtype"] != kind or not isinstance(count, int) or count < 0 or not isinstance(place, int) or place < 0:
        raise ValueError(kind)
    if count == 0:
        return np.zeros(0, dtype=TYPES[kind])
    return np.frombuffer(data, dtype=TYPES[kind], count=count, offset=base + place)


def _stamp(files: Sequence[Path]) -> tuple[str, int, float]:
    """A digest of names, sizes and times of change; all bytes; and the last change, in seconds."""
    digest, size, changed = hashlib.sha256(), 0, 0
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(error, f"cannot read {path}: {error.strerror}") from None
        digest.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
        size, changed = size + status.st_size, max(changed, status.st_mtime_ns)
    return digest.hexdigest(), size, changed / 1e9


def _places(files: Sequence[Path], types: Mapping[str, str]) -> list[Path]:
    """Where the index may lie: beside the files, which may move, and in the user's cache, by where they are."""
    kind = json.dumps([types, [path.name for path in files]])
    beside = files[0].parent / f".steadface-{hashlib.sha256(kind.encode()).hexdigest()[:16]}.index"
    cache = user_cache()
    if cache is None:
        return [beside]
    where = kind + str(files[0].parent.absolute())
    return [beside, cache / "faces" / f"{hashlib.sha256(where.encode()).hexdigest()[:16]}.index"]


@contextmanager
def _turn(place: Path) -> Iterator[bool]:
    """Whether `place` can be written: then nobody else writes it within, and who does is waited for."""
    path = place.with_name(f"{place.name}.lock")
    descriptor = _locked(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    path.unlink()
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """What holds the lock on the file at `path`, until the process ends; None where that cannot be had."""
    if sys.platform == "win32":
        return None
    descriptor = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # that in the user's cache
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process is making the index that %s guards: waiting for it", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException as error:  # Ctrl-C among them
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, OSError):
            return None
        raise
    return descriptor
