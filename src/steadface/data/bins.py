"""`.bin` verification sets: `pickle((bins, issame))`, 2P encoded images and P booleans, pairs (2i, 2i + 1).

A pickle can run any code when it is opened, so this one may name nothing at all but bytes. And it can ask for any
amount of memory (nine bytes for a list of four billion places), so its steps are looked at before any is taken.
"""

import hashlib
import os
import pickle
import pickletools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from steadface.arguments import as_path
from steadface.data.faces import Image, decode_image
from steadface.data.pairs import PairSet, contiguous_folds
from steadface.errors import InvalidInput, SteadfaceError, unreadable
from steadface.files import open_file

FOLDS = 10

MOST_BYTES = 2 << 30
"""Of a file, and of its images, of which several may be one; the usual sets have 0.1 GB."""
MOST_PAIRS = 100_000
"""The usual sets have 6,000 or 7,000."""
MOST_STEPS = 30 * MOST_PAIRS
"""Opcodes; of two images and whether they are the same, the wordiest protocol makes 24."""
CONTAINERS = ("EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "EMPTY_SET", "FROZENSET", "TUPLE1", "TUPLE3")
MOST_CONTAINERS = 100
"""A set has two lists; the tuples around its images in old protocols are of two."""


class EncodedFaces:
    """Encoded images held in memory, decoded when read.

    Who they show is not known: every image counts as a person of its own.
    """

    def __init__(self, encoded: Sequence[bytes], *, origin: str) -> None:
        self.encoded = tuple(encoded)
        self.origin = origin
        self.sizes = np.fromiter(map(len, self.encoded), dtype=np.int64)
        self.labels = np.arange(len(self.encoded), dtype=np.int64)
        self.people = tuple(f"image {index}" for index in range(len(self.encoded)))

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, index: int) -> Image:
        return decode_image(self.encoded[index], self.name(index))

    def read_encoded(self, index: int) -> bytes:
        return self.encoded[index]

    def name(self, index: int) -> str:
        return f"image {index} of {self.origin}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for image in self.encoded:
            digest.update(len(image).to_bytes(8, "little"))
            digest.update(image)
        return digest.hexdigest()


def read_bin(path: str | os.PathLike[str]) -> PairSet:
    """The pairs of a `.bin` file, in 10 contiguous folds as usual.

    Raises `SteadfaceError` for a file that asks for any other object when unpickled (naming it), that is
    damaged, or that does not hold two images for every pair.
    """
    path = as_path(path, "the .bin set")
    try:
        with open_file(path, most=MOST_BYTES) as file:
            _check_steps(_Clipped(file), path)
            file.seek(0)
            content = _BytesOnly(_Clipped(file), path).load()
    except SteadfaceError:
        raise
    except OSError as error:
        raise unreadable(error, f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InvalidInput(f"{path} is damaged or no .bin set: {type(error).__name__}: {error}") from None
    images, same = _checked(content, path)
    pairs = len(same)
    return PairSet(
        faces=EncodedFaces(images, origin=str(path)),
        first=np.arange(0, 2 * pairs, 2),
        second=np.arange(1, 2 * pairs, 2),
        same=np.asarray(same, dtype=np.bool_),
        fold=contiguous_folds(pairs, FOLDS),
        people=None,
    )


class _Clipped:
    """A file of which no more is asked for than it has left, whatever length a pickle claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.readline = file.readline
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))


def _check_steps(file: _Clipped, path: Path) -> None:
    """Raises InvalidInput for a pickle whose steps, each cheap by itself, would ask for memory beyond what it holds."""
    containers = 0
    for step, (opcode, argument, _) in enumerate(pickletools.genops(cast(BinaryIO, file)), start=1):
        containers += opcode.name in CONTAINERS
        if step > MOST_STEPS or containers > MOST_CONTAINERS:
            raise InvalidInput(f"{path} takes more steps to read than {MOST_PAIRS:,} pairs do; part it")
        # One place of a list for each number below it.
        if opcode.name.endswith("PUT") and isinstance(argument, int) and not 0 <= argument <= step:
            raise InvalidInput(f"{path} is no .bin set: it asks for {argument:,} places where {step} are enough")


class _BytesOnly(pickle.Unpickler):
    """Resolves no global but the two by which Python writes bytes in old protocols, and those to our own."""

    def __init__(self, file: _Clipped, path: Path) -> None:
        # Python 2 wrote the images as str, which would not survive decoding.
        super().__init__(cast(BinaryIO, file), encoding="bytes")
        self._path = path
        self._latin1 = _latin1()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._latin1
        if module in ("builtins", "__builtin__") and name == "bytes":
            return _NoBytes()
        raise InvalidInput(
            f"{self._path} asks for {module}.{name} when opened; a .bin set holds bytes and booleans only, "
            "so this file is refused. If you trust its source, write it anew with plain bytes and bool"
        )


# Objects without attributes, since a pickle may set those of what it is given, and those of a function stay.
def _latin1() -> Any:
    """Encodes as many characters as a set has bytes: a pickle can write a text once, and have it encoded for ever."""
    left = MOST_BYTES

    class Latin1:
        __slots__ = ()

        def __call__(self, text: str, encoding: str) -> bytes:
            nonlocal left
            if encoding not in ("latin1", "latin-1"):
                raise ValueError(f"bytes written as {encoding!r}")
            left -= len(text)
            if left < 0:
                raise ValueError(f"images of more than {MOST_BYTES:,} bytes together")
            return text.encode("latin1")

    return Latin1()


class _NoBytes:
    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


def _checked(content: Any, path: Path) -> tuple[list[bytes], list[bool]]:
    if not (isinstance(content, tuple | list) and len(content) == 2):
        raise InvalidInput(f"{path} holds {_kind(content)}; a .bin set is the pair (images, issame)")
    images, same = content
    for values, kinds, what in ((images, (bytes, bytearray), "images"), (same, (bool, int), "issame")):
        if not isinstance(values, list | tuple):
            raise InvalidInput(f"{path}: {what} is {_kind(values)}; a list is expected")
        wrong = [value for value in values if not isinstance(value, kinds)]
        if wrong:
            raise InvalidInput(f"{path}: {what} holds {_kind(wrong[0])}; {kinds[0].__name__} is expected")
    if len(same) > MOST_PAIRS or sum(map(len, images)) > MOST_BYTES:
        raise InvalidInput(
            f"{path} has {len(same):,} pairs of images of {sum(map(len, images)):,} bytes together; at most "
            f"{MOST_PAIRS:,} and {MOST_BYTES:,} bytes are read: part it"
        )
    if not same or len(images) != 2 * len(same):
        raise InvalidInput(f"{path} has {len(images)} images for {len(same)} pairs; two per pair are expected")
    return [bytes(image) for image in images], [bool(value) for value in same]


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
