"""The forms in which a picture is given, and the file that is in those that hold one."""

import base64
import binascii
import os
from typing import IO, Any
from urllib.parse import unquote_to_bytes

import PIL.Image
from numpy.typing import NDArray
from torch import Tensor

from steadface.data.faces import UnreadableImage
from steadface.errors import InvalidInput, short

MOST_BYTES = 1 << 30
"""Of a picture read from a stream or a `data:` URI: that many pixels, uncompressed, in 16 bits take less."""

Given = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | PIL.Image.Image | NDArray[Any] | Tensor
"""A text is a path or a `data:` URI; a file is read from where it stands and left open."""

KINDS = (
    "a path, the bytes of a file, a file opened with 'rb', a data: URI, a PIL image, a numpy array or a torch tensor"
)

IN_MEMORY = "a picture in memory"


def name_of(source: Given) -> str:
    """What to call a picture in messages, where nobody says."""
    if isinstance(source, str | os.PathLike) and not is_data(source):
        return short(str(source), 200)
    given = getattr(source, "filename" if isinstance(source, PIL.Image.Image) else "name", None)
    return short(given, 200) if isinstance(given, str) and given else IN_MEMORY


def is_data(source: object) -> bool:
    """Whether a text is a `data:` URI rather than a path."""
    return isinstance(source, str) and source[:5].lower() == "data:"


def encoded(source: Any, name: str) -> bytes:
    """The file that bytes, a stream or a `data:` URI hold. Raises UnreadableImage where there is none, or too long a
    one, and InvalidInput for what is no picture in any form.
    """
    if isinstance(source, str):
        found = _from_data(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        found = bytes(source)
    elif callable(getattr(source, "read", None)):
        found = _from_stream(source, name)
    else:
        raise InvalidInput(f"a {type(source).__name__} ({short(source)}) is no picture; give {KINDS}")
    if not found:
        rest = "has nothing left where it stands; seek(0) first" if hasattr(source, "read") else "is empty (0 bytes)"
        raise UnreadableImage(f"{name} {rest}; copy or download it again")
    return found


def _from_data(uri: str) -> bytes:
    """RFC 2397, of which only base64 holds pictures."""
    head, comma, body = uri.partition(",")
    if not comma or not head.lower().rstrip().endswith(";base64"):
        raise UnreadableImage("a data: URI without base64 is no picture; write data:image/jpeg;base64,...")
    if len(body) > MOST_BYTES // 3 * 4:
        raise UnreadableImage(f"a data: URI of {len(body):,} characters is too long; give the file itself")
    try:
        return base64.b64decode(b"".join(unquote_to_bytes(body).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImage(f"a data: URI whose base64 is damaged ({error}); encode the picture again") from None


def _from_stream(stream: Any, name: str) -> bytes:
    parts, left = [], MOST_BYTES + 1
    try:
        while left > 0 and (part := stream.read(left)):
            if isinstance(part, str):
                raise UnreadableImage(f"{name} was opened as text; open it with 'rb'")
            parts.append(part)
            left -= len(part)
    except (OSError, ValueError) as error:  # ValueError: it is closed, or was opened as text and is none
        raise UnreadableImage(f"{name} cannot be read ({short(str(error))}); open it anew, with 'rb'") from None
    if left <= 0:
        raise UnreadableImage(f"{name} is longer than {MOST_BYTES:,} bytes; save it smaller")
    return b"".join(parts)
