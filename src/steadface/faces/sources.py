"""Where frames come from: a camera, a stream or a video file, as OpenCV opens them and as people may hear of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import cv2

from steadface.errors import InvalidInput, NotFound, quoted, unreadable
from steadface.files import check_given, read_private

SCHEMES = ("rtsp", "rtsps", "http", "https")
PATIENCE = 10.0
"""Seconds until a stream that does not answer is given up."""
LONGEST_ADDRESS = 4096
"""Bytes of a file that holds an address."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """`given` is what OpenCV opens: the number of a camera, an address, a path. `name` holds nothing secret of it."""

    given: int | str = field(repr=False)
    name: str
    live: bool


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def read(self) -> tuple[bool, Any]: ...

    def get(self, number: int, /) -> float: ...

    def release(self) -> None: ...


Open = Callable[[Source], Capture | None]


def parse_source(text: str) -> Source:
    """A camera's number, the address of a stream, or a video file; `@FILE` is what stands in that file, which keeps a
    camera's password out of the list of processes. Raises SteadfaceError for what is none of them.
    """
    if text.startswith("@"):
        return parse_source(_written(Path(text[1:])))
    if re.fullmatch(r"\d{1,3}", text):
        return Source(given=int(text), name=f"camera {int(text)}", live=True)
    scheme, there, _ = text.partition("://")
    if there:
        if scheme.lower() not in SCHEMES:
            raise InvalidInput(
                f"{address(text)} is no stream that is read; give one that begins with rtsp:// or http://"
            )
        return Source(given=text, name=address(text), live=True)
    if not Path(text).exists():
        raise NotFound(f"there is no video {quoted(text)}; give a file, the number of a camera, or an rtsp:// address")
    check_given(Path(text))
    if Path(text).is_dir():
        raise InvalidInput(f"{quoted(text)} is a folder; give a video file")
    # Absolute, so that FFmpeg takes no colon or percent sign at its beginning for a protocol of its own.
    return Source(given=str(Path(text).resolve()), name=text, live=False)


def _written(path: Path) -> str:
    try:
        text = read_private(path, "the address in", most=LONGEST_ADDRESS).decode().strip()
    except OSError as error:
        raise unreadable(error, f"the address in {path} cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        text = ""
    if not text or text.startswith("@") or "\n" in text:
        raise InvalidInput(f"{path} does not hold one address; write the camera's into it, and nothing else")
    return text


def address(url: str) -> str:
    """Scheme, host and port of an address: cameras take passwords in front of them, in the path and in the query.

    >>> address("rtsp://admin:secret@192.0.2.7:554/live?password=secret")
    'rtsp://192.0.2.7:554'
    """
    scheme, _, rest = url.partition("://")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not re.fullmatch(r"[\w.:-]{1,253}", host) or "@" in rest.partition("/")[2]:
        return f"{scheme[:20]}://..."  # a password that holds a / would be taken for the host
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + ("" if port is None else f":{port}")


def opened(source: Source) -> Capture | None:
    """None where OpenCV cannot open it."""
    if not source.live or isinstance(source.given, int):
        capture = cv2.VideoCapture(source.given)
    else:
        limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        given = [part for limit in limits for part in (limit, int(1000 * PATIENCE))]
        capture = cv2.VideoCapture(source.given, cv2.CAP_FFMPEG, given)
    return capture if capture.isOpened() else None
