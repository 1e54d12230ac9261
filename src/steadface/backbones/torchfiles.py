"""The tensors of a torch file, made one by one once what its pickle says of them has been checked.

A pickle is a small program. Here it can make dicts, lists, text and numbers, and tensors by way of the functions below;
nothing that it names is looked up. torch's own reader believes what is written: counts of numbers, sizes and strides.

Format facts. An archive: NAME/data.pkl, NAME/data/KEY with the bytes of each storage, NAME/byteorder. The older format:
pickles one after another (magic number, protocol, system, the object, the keys of the storages), then for each key a
count (int64) and the numbers. A pickle refers to a storage as ("storage", type, key, device, count[, view]).
"""

import io
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from steadface.backbones.filekinds import is_archive
from steadface.errors import InvalidInput, Unsupported
from steadface.files import open_file

MOST_PICKLED = 2 << 20
"""Bytes of the pickle, which says what there is; those of published models, with their optimisers, have 0.3 MB."""
MOST_TENSORS = 1 << 14
LONGEST_NAME = 10_000
"""Characters of a key; the longest that a network's parts make have 200."""
UNPACKED = 8
"""Times the file's own bytes: what it may unpack to. Weights are seldom packed, and hardly become smaller by it."""
SPREAD = 1 << 16
"""Numbers that a tensor may show beyond those that it holds: a few broadcast buffers, no terabytes."""
MOST_DIMENSIONS = 16

_BLOCK = 1 << 22
_WORDS = (str, int, float, bool, type(None))
_LONG = (str, bytes, bytearray, list, tuple, dict)

_REFUSED = (
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.PERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.BYTEARRAY8),
)
"""Steps of a pickle that make objects of classes, take them from elsewhere, or make room for what they only claim."""

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
    # Of quantised tensors, which are made without their numbers.
    "QInt8": torch.int8,
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
    "QUInt4x2": torch.uint8,
    "QUInt2x4": torch.uint8,
}


def read_torch(file: Path) -> Any:
    """What `torch.save` wrote: tensors in dicts and lists, beside text and numbers. Sparse, quantised and other tensors
    that are no plain ones are there without their numbers, on the device `meta`.

    Raises pickle.UnpicklingError for a pickle that needs more than that, SteadfaceError for one beyond the bounds
    above, and whatever its parts raise for a damaged one.
    """
    with open_file(file) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on kinds of tensors
        if is_archive(opened.read(4)):
            with zipfile.ZipFile(opened) as archive:
                return _Archive(archive, file).content()
        opened.seek(0)
        return _Stream(opened, file).content()


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, file: Path) -> None:
        self._archive, self._file = archive, file
        self._most = UNPACKED * file.stat().st_size
        entries = archive.infolist()
        unpacked = sum(one.file_size for one in entries)
        if unpacked > self._most:
            raise InvalidInput(
                f"{file} unpacks to {unpacked:,} bytes, more than {UNPACKED} times its own: no weights can be packed "
                "so; fetch it again"
            )
        self._entries = {one.filename: one for one in entries}
        self._folder = next(name for name in self._entries if name.partition("/")[2] == "data.pkl").partition("/")[0]
        self._held: dict[str, Tensor] = {}

    def content(self) -> Any:
        _check_order(self._bytes("byteorder", b"little") == b"little", self._file)
        described = self._entries[f"{self._folder}/data.pkl"]
        _check_pickled(described.file_size, self._file)
        return Unpickler(io.BytesIO(self._archive.read(described)), self._storage, self._file).load()

    def _bytes(self, name: str, default: bytes) -> bytes:
        entry = self._entries.get(f"{self._folder}/{name}")
        return default if entry is None else self._archive.open(entry).read(len(default))

    def _storage(self, key: str, kind: torch.dtype, count: int) -> Tensor:
        """Read when it is first asked for."""
        if key not in self._held:
            entry = self._entries[f"{self._folder}/data/{key}"]
            _check_held(key, count * kind.itemsize, entry.file_size, self._file)
            with self._archive.open(entry) as opened:
                self._held[key] = _read_into(torch.empty(count * kind.itemsize, dtype=torch.uint8), opened)
        return _numbers(self._held[key], key, kind, count)


class _Stream:
    """The older format."""

    def __init__(self, opened: BinaryIO, file: Path) -> None:
        self._opened, self._file = opened, file
        self._free = file.stat().st_size
        self._held: dict[str, Tensor] = {}

    def content(self) -> Any:
        described = io.BytesIO(self._opened.read(MOST_PICKLED))
        try:
            _, _, system, content, keys = (self._next(described) for _ in range(5))
        except EOFError:
            _check_pickled(self._free, self._file)  # it ends early, or goes on beyond the bound
            raise
        _check_order(bool(system.get("little_endian", True)), self._file)
        self._opened.seek(described.tell())
        if not all(type(key) is str for key in keys) or sorted(keys) != sorted(self._held):
            raise pickle.UnpicklingError("other storages than its tensors have")
        for key in keys:
            self._fill(self._held[key])
        return content

    def _next(self, described: io.BytesIO) -> Any:
        return Unpickler(described, self._storage, self._file).load()

    def _storage(self, key: str, kind: torch.dtype, count: int) -> Tensor:
        """Without its numbers, which come after the last pickle."""
        if key not in self._held:
            size = count * kind.itemsize
            _check_held(key, size, self._free, self._file)
            self._free -= size
            self._held[key] = torch.empty(size, dtype=torch.uint8)
        return _numbers(self._held[key], key, kind, count)

    def _fill(self, held: Tensor) -> None:
        # The count that is repeated here depends on a type that the numbers are no longer of; the bytes count.
        struct.unpack("<q", self._opened.read(8))
        _read_into(held, self._opened)


def _check_pickled(size: int, file: Path) -> None:
    if size > MOST_PICKLED:
        raise InvalidInput(
            f"{file} describes what it holds in {size:,} bytes, and {MOST_PICKLED:,} is the most that is read; save "
            "the network's weights alone: torch.save(model.state_dict(), NEW)"
        )


def _check_order(little: bool, file: Path) -> None:
    if not little:
        raise Unsupported(f"{file} was written on a big-endian machine; save it as safetensors there")


def _check_held(key: str, claimed: int, held: int, file: Path) -> None:
    if claimed > held:
        raise InvalidInput(
            f"{file} says that its storage {key[:20]!r} has {claimed:,} bytes, and there are {held:,}: it is truncated "
            "or damaged; fetch it again"
        )


def _read_into(tensor: Tensor, opened: Any) -> Tensor:
    view, done = memoryview(tensor.numpy().data), 0
    while done < len(view):
        part = opened.read(min(_BLOCK, len(view) - done))
        if not part:
            raise EOFError("a storage ends early")
        view[done : done + len(part)] = part
        done += len(part)
    return tensor


def _numbers(held: Tensor, key: str, kind: torch.dtype, count: int) -> Tensor:
    if count * kind.itemsize > len(held):
        raise pickle.UnpicklingError(f"storage {key[:20]!r} in two lengths")
    return held[: count * kind.itemsize].view(kind)


class Unpickler(pickle._Unpickler):
    """The standard library's written in Python, less what makes or changes objects of any class.

    `storage` gives the numbers of a key, of a type and a count, as a tensor (count,).
    """

    def __init__(self, pickled: io.BytesIO, storage: Callable[[str, torch.dtype, int], Tensor], file: Path) -> None:
        super().__init__(pickled, encoding="utf-8")
        self._storage, self._file, self._made, self._given = storage, file, 0, 0

    def find_class(self, module: str, name: str) -> Any:
        """What stands here for what a pickle names. Raises UnpicklingError for all else."""
        module = "builtins" if module == "__builtin__" else module  # as Python 2 calls it, and protocol 2 still does
        if module in ("torch", "torch.cuda", "torch.storage") and name.removesuffix("Storage") in _STORAGES:
            return _STORAGES[name.removesuffix("Storage")]
        # `getattr` would import what torch brings along unloaded.
        if module == "torch" and isinstance(found := vars(torch).get(name), torch.dtype | torch.qscheme):
            return found
        if (module, name) in _MAKERS:
            return self._counted(_MAKERS[module, name])
        raise pickle.UnpicklingError("what is no tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count, view = pid if len(pid) == 6 else (*pid[:5], None)
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not _is_count(count) or type(key) is not str:
            raise pickle.UnpicklingError("a reference to what is no storage")
        held = self._storage(key, dtype, count)
        if view is None:
            return held
        _, start, length = view
        return _made_of(held, start, (length,), (1,))

    def _counted(self, maker: Callable[..., Any]) -> Callable[..., Any]:
        def make(*given: Any) -> Any:
            self._made += 1
            if self._made > 4 * MOST_TENSORS:  # of one there are up to four: a dict, a size, a parameter
                raise InvalidInput(f"{self._file} holds more than {MOST_TENSORS:,} tensors; save those of one network")
            self._given += len(given) + sum(len(one) for one in given if isinstance(one, _LONG))
            if self._given > MOST_PICKLED:  # more than there can be, unless it gives the same again and again
                raise InvalidInput(f"{self._file} makes copies of what it holds without end; it is no state dict")
            return maker(*given)

        return make

    def _set(self) -> None:
        key, value = self.stack[-2:]  # type: ignore[attr-defined]
        del self.stack[-2:]  # type: ignore[attr-defined]
        self._put([key, value])

    def _set_several(self) -> None:
        self._put(self.pop_mark())  # type: ignore[attr-defined]

    def _dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.append({})  # type: ignore[attr-defined]
        self._put(items)

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]  # type: ignore[attr-defined]
        if type(target) is not dict:
            raise pickle.UnpicklingError("entries of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_word(key)] = value

    def _no_attributes(self) -> None:
        """What a pickle sets on an object beside making it: the versions in a state dict, which nobody reads."""
        self.stack.pop()  # type: ignore[attr-defined]

    def _empty_set(self) -> None:
        self.append([])  # type: ignore[attr-defined]

    def _frozen_set(self) -> None:
        self.append(self.pop_mark())  # type: ignore[attr-defined]

    _own: Mapping[bytes, Callable[..., None]] = MappingProxyType(
        {
            pickle.SETITEM: _set,
            pickle.SETITEMS: _set_several,
            pickle.DICT: _dict,
            pickle.BUILD: _no_attributes,
            # Members of a set would be hashed, which takes for ever where tuples lie in tuples.
            pickle.EMPTY_SET: _empty_set,
            pickle.FROZENSET: _frozen_set,
            pickle.ADDITEMS: pickle._Unpickler.dispatch[pickle.APPENDS[0]],
        }
    )
    dispatch: ClassVar = {
        **{code: do for code, do in pickle._Unpickler.dispatch.items() if bytes([code]) not in _REFUSED},
        **{code[0]: do for code, do in _own.items()},
    }


def _word(key: Any) -> Any:
    """A key of a dict as networks and optimisers have them; others take time without end to hash, or to show."""
    if not isinstance(key, _WORDS) or (isinstance(key, int) and not -(2**63) <= key < 2**63):
        raise pickle.UnpicklingError("a key that is no word")
    if isinstance(key, str) and len(key) > LONGEST_NAME:
        raise InvalidInput(
            f"a key of {len(key):,} characters, and {LONGEST_NAME:,} is the most that is read; it is no state dict"
        )
    return key


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if (
        len(sizes) > MOST_DIMENSIONS
        or not all(map(_is_count, sizes))
        or math.prod(max(1, one) for one in sizes) >= 2**62
    ):
        raise pickle.UnpicklingError("a size that no tensor has")
    return sizes


def _made_of(held: Tensor, start: Any, size: Any, strides: Any) -> Tensor:
    """A view of what a storage holds. Raises InvalidInput where it shows more."""
    size, strides = _sizes(size), _sizes(strides)
    if not isinstance(held, Tensor) or held.ndim != 1 or not _is_count(start) or len(size) != len(strides):
        raise pickle.UnpicklingError("a tensor without a storage")
    count = math.prod(size)
    last = start + sum((one - 1) * stride for one, stride in zip(size, strides, strict=True)) if count else 0
    if (count and last >= len(held)) or count > max(len(held), SPREAD):
        shape = " x ".join(map(str, size))
        raise InvalidInput(
            f"a tensor of {shape} says that it lies in {len(held):,} numbers, which do not hold it; the file is "
            "damaged: fetch it again"
        )
    return held.as_strided(size, strides, start)


def _tensor(storage: Any, start: Any, size: Any, strides: Any, *_: Any) -> Tensor:
    return _made_of(storage, start, size, strides)


def _typed(
    storage: Any, start: Any, size: Any, strides: Any, _gradient: Any, _hooks: Any, kind: Any, *_: Any
) -> Tensor:
    if not isinstance(kind, torch.dtype) or not isinstance(storage, Tensor) or len(storage) % kind.itemsize:
        raise pickle.UnpicklingError("a tensor without a type")
    return _made_of(storage.view(kind), start, size, strides)


def _absent(size: Any, kind: Any) -> Tensor:
    return torch.empty(_sizes(size), dtype=kind if isinstance(kind, torch.dtype) else torch.float32, device="meta")


def _sparse(_layout: Any, data: Any) -> Tensor:
    size = next(one for one in data[2:] if isinstance(one, tuple | list))
    return _absent(size, next((one.dtype for one in data[1:] if isinstance(one, Tensor) and one.ndim), None))


def _quantised(storage: Any, _start: Any, size: Any, *_: Any) -> Tensor:
    return _absent(size, storage.dtype)


def _odd(*_: Any) -> Tensor:
    return _absent((), None)


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _of_type(maker: Any, _type: Any, given: Any, *_: Any) -> Any:
    return maker(*given)


def _ordered(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return {_word(key): value for key, value in pairs}


_UTILS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _typed,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_sparse_tensor": _sparse,
    "_rebuild_sparse_csr_tensor": _sparse,
    "_rebuild_qtensor": _quantised,
    "_rebuild_meta_tensor_no_storage": lambda kind, size, *_: _absent(size, kind),
    "_rebuild_nested_tensor": _odd,
    "_rebuild_device_tensor_from_numpy": _odd,
    "_rebuild_device_tensor_from_cpu_tensor": _odd,
    "_rebuild_wrapper_subclass": _odd,
}

_MAKERS: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("collections", "OrderedDict"): _ordered,
        ("collections", "Counter"): _ordered,
        ("torch", "Size"): _first,
        ("torch", "device"): _first,
        ("torch", "Tensor"): _odd,
        ("torch.serialization", "_get_layout"): _first,
        ("torch.nn.parameter", "Parameter"): _first,
        ("torch.nn.parameter", "Buffer"): _first,
        ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
        ("_codecs", "encode"): lambda text, *_: str.encode(text, "latin-1"),
        ("builtins", "set"): _first,
        ("builtins", "bytearray"): lambda given=b"", *_: given if isinstance(given, bytes) else b"",
        ("builtins", "complex"): _first,
        **{("torch._utils", name): maker for name, maker in _UTILS.items()},
    }
)
