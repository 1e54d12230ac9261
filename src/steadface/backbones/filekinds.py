"""What a file that should hold weights is, told by its bytes: names are given by people, and downloads go wrong.

Nothing is unpickled, unpacked or read beyond its beginning (of an archive: the list of names).
"""

import codecs
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steadface.errors import InvalidInput
from steadface.files import open_file, stand_in

HEAD = 4096
"""Bytes that are looked at."""

MOST_LISTED = 16 << 20
"""Bytes of an archive's list of names; a torch file of 60,000 tensors has 6 MB of them."""

SHOWN = 60
"""Characters of a file's own text that a message repeats."""

_AGAIN = "the download went wrong; fetch the file itself"
_CONVERT = "convert it to ONNX and give that file, or code that calls it as path/to/file.py:function"
_UNPACK = "unpack it and give the file of weights inside"
_MAGIC_NUMBER = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's, as a pickle writes it


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """`what` completes "FILE is"; `remedy` says what to give instead. Not `certain` is what the bytes only suggest."""

    what: str
    remedy: str
    certain: bool = True

    def refusal(self, file: Path) -> InvalidInput:
        return InvalidInput(f"{file} is {self.what}: {self.remedy}")


SAFETENSORS = FileKind(what="a safetensors file", remedy="give it a name that ends with .safetensors")
TORCH = FileKind(what="a torch file", remedy="give it a name that ends with .pth")
ONNX = FileKind(what="an ONNX file", remedy="give it a name that ends with .onnx")
PICKLE = FileKind(
    what="a Python pickle that torch.save did not write, or the beginning of one",
    remedy="it was not read: unpickling can run code. Where you trust it, save the state dict as tensors with "
    "torch.save(state_dict, NEW), else fetch it again",
)
_TRUNCATED = FileKind(
    what="a truncated zip archive, which torch files are", remedy="fetch it again and compare its size"
)
_TORCHSCRIPT = FileKind(
    what="a TorchScript archive (torch.jit.save), which is code",
    remedy="save its weights, torch.save(torch.jit.load(FILE).state_dict(), NEW), or give code that loads it as "
    "path/to/file.py:function",
)

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write weights (.h5)", _CONVERT),
    (b"\x93NUMPY", "a NumPy array (.npy)", "save the state dict with torch.save, or as safetensors"),
    (b"\x12\x01\0\0\0\0\0\0", "a file of MXNet parameters (.params, beside -symbol.json)", _CONVERT),
    (b"\x47\x6b\x30\x01", "the weights of an ncnn model (.bin, beside .param)", _CONVERT),
    (b"7767517", "the graph of an ncnn model (.param, beside .bin)", _CONVERT),
    (b"GGUF", "a GGUF file", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\xff\xd8\xff", "a JPEG picture", "give the file of weights"),
    (b"\x89PNG", "a PNG picture", "give the file of weights"),
    (b"%PDF", "a PDF document", "give the file of weights"),
)
# These have no bytes of their own to be told by.
_ENDINGS = {
    ".mnn": "an MNN model",
    ".caffemodel": "a Caffe model",
    ".mlmodel": "a Core ML model",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".rknn": "an RKNN model",
    ".pb": "a TensorFlow graph",
}


def file_kind(file: Path) -> FileKind:
    """What `file` is; all but `SAFETENSORS`, `TORCH` and `ONNX` is refused.

    Raises InvalidInput where it cannot be opened.
    """
    try:
        with open_file(file) as opened:
            head = opened.read(HEAD)
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}; check that it is yours to read") from error
    if not head:
        return FileKind(what="empty", remedy="the download or the disk failed; fetch it again")
    if is_archive(head):
        return _zip_kind(file)
    return _known_beginning(head) or _protobuf_kind(head) or _text_kind(head) or _unknown(file, head)


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so is taken for a zip archive; of others the end, where one may lie, is not read."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def refuse_other_than_onnx(file: Path) -> None:
    """Raises InvalidInput for a file that is something else for certain; protobuf itself judges the rest."""
    kind = file_kind(file)
    if kind != ONNX and kind.certain:
        raise kind.refusal(file)


def shown(text: str) -> str:
    """One line of `text`, at most SHOWN characters of it, none of which moves a cursor."""
    line = "".join(one if one.isprintable() else " " for one in text[: 4 * SHOWN])
    line = " ".join(line.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def first_few(names: Sequence[str], told: Callable[[str], str] = str) -> str:
    """The first three, each as `told` has it, and whether there are more."""
    return ", ".join(told(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _known_beginning(head: bytes) -> FileKind | None:
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            return FileKind(what=what, remedy=remedy)
    if _is_safetensors(head):
        return SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return TORCH if _MAGIC_NUMBER in head[:64] else PICKLE
    if head[257:262] == b"ustar":
        return FileKind(what="a tar archive", remedy=_UNPACK)
    if head[4:8] == b"TFL3":
        return FileKind(what="a TensorFlow Lite model", remedy=_CONVERT)
    return None


def _is_safetensors(head: bytes) -> bool:
    """A length, which the format bounds at 100 MB, and that much JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


def _zip_kind(file: Path) -> FileKind:
    try:
        if (listed := _listed(file)) > MOST_LISTED:
            return FileKind(
                what=f"a zip archive whose list of names has {listed:,} bytes ({MOST_LISTED:,} are read)",
                remedy=_UNPACK,
            )
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error):
        return _TRUNCATED
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return _TORCHSCRIPT
    if "data.pkl" in inner:
        return TORCH
    if "archive_format" in inner:
        return FileKind(what="an exported program (torch.export.save)", remedy=_CONVERT)
    if "model.weights.h5" in names:
        return FileKind(what="a Keras model (.keras)", remedy=_CONVERT)
    some = first_few(names, shown) or "nothing"
    if names and all(name.endswith(".npy") for name in names):
        return FileKind(
            what=f"an archive of NumPy arrays (.npz: {some})",
            remedy="save them as tensors, safetensors.numpy.save_file(dict(numpy.load(FILE)), NEW)",
        )
    return FileKind(what=f"a zip archive of {some}", remedy=_UNPACK)


def _listed(file: Path) -> int:
    """Bytes of the list of names that an archive ends with, as its last records say; 0 where there are none.

    https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.14 to 4.3.16. The last one is looked for in two
    places, as `zipfile` does: where it is without a comment, or else where its mark comes last.
    """
    with open_file(file) as opened:
        opened.seek(max(0, file.stat().st_size - (1 << 16) - 98))
        tail = opened.read()
    ends = {place for place in (len(tail) - 22, tail.rfind(_ENDS)) if 0 <= place == tail.find(_ENDS, place, place + 22)}
    return max((_listed_at(tail, end) for end in ends), default=0)


_ENDS = b"PK\x05\x06"


def _listed_at(tail: bytes, end: int) -> int:
    if len(tail) < end + 22:
        return 0
    size: int = struct.unpack_from("<I", tail, end + 12)[0]
    if end >= 76 and tail[end - 20 : end - 16] == b"PK\x06\x07":  # the larger record lies before its locator
        size = max(size if size != 2**32 - 1 else 0, struct.unpack_from("<Q", tail, end - 76 + 40)[0])
    return size


def _protobuf_kind(head: bytes) -> FileKind | None:
    """Protobuf has no beginning of its own, so field numbers and wire types must do."""
    # ModelProto: ir_version (small), then a string, the model's version, its graph or its operator set.
    if re.match(rb"\x08[\x03-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", head):
        return ONNX
    if re.match(rb"\x08\x01\x12", head) or (head[:1] == b"\n" and re.search(rb"\x12.(Placeholder|Const)", head[:256])):
        return FileKind(what="a TensorFlow graph (.pb)", remedy=_CONVERT, certain=False)
    return None


def _text_kind(head: bytes) -> FileKind | None:
    try:
        # Incremental, since HEAD may cut a character in two.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).strip()
    except UnicodeDecodeError:
        return None
    if not text or not all(one.isprintable() or one.isspace() for one in text):
        return None
    found = stand_in(head)
    if found is not None:
        named = f' ("{shown(found.title)}")' if found.title else ""
        return FileKind(what=f"{found.what}{named}, not weights", remedy=found.remedy)
    if text.startswith(("{", "[")):
        return _json_kind(text)
    if text.startswith("<"):
        return FileKind(what=f'XML ("{shown(text)}"), not weights', remedy=_AGAIN)
    return FileKind(what=f'text ("{shown(text)}"), not weights', remedy=_AGAIN)


def _json_kind(text: str) -> FileKind:
    if '"weight_map"' in text:
        return FileKind(what="the index of weights in several files", remedy="save them as one with torch.save")
    if '"nodes"' in text and '"op"' in text:
        return FileKind(what="the graph of an MXNet model (-symbol.json, beside .params)", remedy=_CONVERT)
    return FileKind(what=f'JSON ("{shown(text)}"), not weights', remedy=f"perhaps a server's answer: {_AGAIN}")


def _unknown(file: Path, head: bytes) -> FileKind:
    ending = file.suffix.lower()
    if ending == ".bin" and file.with_suffix(".param").is_file():
        return FileKind(what="the weights of an ncnn model (its .param lies beside it)", remedy=_CONVERT)
    if ending in _ENDINGS:
        return FileKind(what=f"{_ENDINGS[ending]}, by its name", remedy=_CONVERT, certain=False)
    return FileKind(
        what=f"not a readable file of weights (it begins with the bytes {head[:8].hex(' ')})",
        remedy="give a state dict (safetensors, or written by torch.save) or an ONNX file; it may be damaged",
        certain=False,
    )
