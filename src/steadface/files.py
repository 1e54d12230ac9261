"""Files that are either whole or not there, also several together; how one is opened that somebody else has named; and
what stands in place of those not fetched.
"""

import errno
import hashlib
import io
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from steadface.errors import Conflict, InvalidInput, Unavailable, quoted, unreadable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
AS_BYTES = getattr(os, "O_BINARY", 0)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | AS_BYTES

PIECE = 1 << 16

LARGEST_SECRET, LEAST_SECRET = 4096, 16
"""Bytes of the file of a secret, and of the secret."""


def open_file(path: str | os.PathLike[str], *, most: int | None = None) -> io.BufferedReader:
    """A regular file of at most `most` bytes, or links to one, opened for reading.

    Never waits for a pipe, and opens no device, of which some answer by doing something. Raises OSError whose
    `strerror` says what is wrong and the remedy, also where there is no file and for what is no name.
    """
    return os.fdopen(_opened(path, most)[0], "rb")


def read_file(path: str | os.PathLike[str], *, most: int) -> bytes:
    """All of a file, see `open_file`; of at most `most` bytes whatever size it says it has, as those of /proc say 0."""
    descriptor, size = _opened(path, most)
    try:
        parts, left, step = [], most + 1, max(size + 1, PIECE)
        while left > 0 and (part := os.read(descriptor, min(left, step))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if left <= 0:
        raise too_long(most + 1, most)
    return b"".join(parts)


def read_private(path: str | os.PathLike[str], what: str, *, most: int) -> bytes:
    """All of a file of at most `most` bytes that holds a secret, `what`.

    Raises OSError as `open_file` does, and InvalidInput where other users of the machine can read or write it.
    """
    with open_file(path, most=most) as file:
        mode, content = os.fstat(file.fileno()).st_mode, file.read(most)
    if os.name == "posix" and mode & 0o077:
        raise InvalidInput(
            f"{what} {path} is open to other users (mode {mode & 0o777:03o}); make it yours alone with `chmod 600 "
            f"{path}`, and replace what it holds if somebody may have read it"
        )
    return content


def read_secret(path: Path, what: str, *, remedy: str) -> bytes:
    """The secret in a file, `what`, without white space around it.

    Raises SteadfaceError where it cannot be read, is open to others, or is too short to be one, with the `remedy`.
    """
    try:
        secret = read_private(path, what, most=LARGEST_SECRET).strip()
    except OSError as error:
        raise unreadable(error, f"{what} {path} cannot be read: {error.strerror}; check the path") from None
    if len(secret) < LEAST_SECRET:
        raise InvalidInput(f"{what} {path} has {len(secret)} bytes, and {LEAST_SECRET} or more are needed; {remedy}")
    return secret


def user_cache() -> Path | None:
    """`steadface` in XDG_CACHE_HOME, or in ~/.cache; None for a user without a home folder.

    A relative XDG_CACHE_HOME is ignored, as the XDG specification asks.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "steadface"
    except RuntimeError:
        return None


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Of all bytes of a file, hex. Raises as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: str | os.PathLike[str], most: int | None) -> tuple[int, int]:
    """A descriptor, and how many bytes the file says it has."""
    try:
        _check_kind(os.stat(path))  # noqa: PTH116 - a third of what a small file takes would go into a Path
        descriptor = os.open(path, os.O_RDONLY | WITHOUT_WAITING | AS_BYTES)
    except ValueError:  # NUL, or characters that no file system takes
        raise FileNotFoundError(errno.ENOENT, "no file can have that name") from None
    try:
        # Once more on what was opened: the name may have come to mean something else in between.
        status = os.fstat(descriptor)
        _check_kind(status)
        if most is not None and status.st_size > most:
            raise too_long(status.st_size, most)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def too_long(size: int, most: int) -> OSError:
    """What to raise for a file of `size` bytes of which `most` are read."""
    return OSError(
        errno.EINVAL, f"it has {size:,} bytes, and of such a file at most {most:,} are read; give a smaller one"
    )


LONGEST_PATH, LONGEST_NAME = 4095, 255
"""Bytes, on every file system in use (PATH_MAX and NAME_MAX of Linux)."""


def is_name(path: str) -> bool:
    """Whether anything can be called that."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return b"\0" not in name and len(name) <= LONGEST_PATH and max(map(len, name.split(b"/"))) <= LONGEST_NAME


def check_given(path: Path) -> None:
    """Raises InvalidInput for what no file can be called, and for what is neither a file nor a folder.

    A pipe, such as a shell makes of `<(...)`, can be read once only and may never end.
    """
    if not is_name(str(path)):
        raise InvalidInput(f"{quoted(str(path))} is not a path; name a file or folder")
    with suppress(OSError):  # whoever opens it says why that fails
        status = path.stat()
        if (kind := _kind(status)) is not None and not stat.S_ISDIR(status.st_mode):
            raise InvalidInput(f"{path} is {kind}")


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, f"{os.strerror(errno.EISDIR)}, a folder; name a file")
    if (kind := _kind(status)) is not None:
        raise OSError(errno.EINVAL, f"it is {kind}")


def _kind(status: os.stat_result) -> str | None:
    """What stands there in place of a regular file, and the remedy; None for a regular one."""
    if stat.S_ISREG(status.st_mode):
        return None
    kind = next((name for test, name in KINDS if test(status.st_mode)), "no regular file")
    return f"{kind}; name a regular file"


KINDS = (
    (stat.S_ISFIFO, "a pipe, which is read once and may never end (save what it gives first)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_below(path: str | os.PathLike[str], *roots: Path, named_in: Path) -> None:
    """Raises InvalidInput where `path`, links followed, which the file `named_in` names, lies below none of `roots`."""
    try:
        real = os.path.realpath(path)
    except ValueError:
        raise InvalidInput(f"{named_in} names {quoted(str(path))}, which no file can be called; correct it") from None
    if not any(is_within(real, os.path.realpath(root)) for root in roots):
        places = " and ".join(dict.fromkeys(map(str, roots)))
        raise InvalidInput(
            f"{named_in} names {quoted(str(path))}, which leads out of {places}: files may only name what lies "
            "below; move it there, or correct the name"
        )


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it; both real."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def check_replaced(path: Path, begins: bytes) -> None:
    """Raises Conflict where there is a file already that does not begin like the one that is to take its place: a key,
    a gallery or a model, say, whose name was given by mistake.
    """
    try:
        with open_file(path) as file:
            head = file.read(len(begins))
    except OSError:  # there is none, or whoever writes says what is wrong
        return
    if head and head != begins:
        raise Conflict(f"the file at {path} is of another kind and would be lost; name another, or move it away first")


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Writes `data` beside `path`, flushes it to the disk, then renames: readers see the old file or the new.

    A `private` file is for its owner alone, from its first byte on. Raises Unavailable where the disk is full,
    InvalidInput where the folder cannot be written; what was there before stays.
    """
    # In the same folder, since a rename is atomic only within a file system; one name, so that the leftovers of
    # killed writers do not pile up.
    if not path.name:
        raise InvalidInput(f"{quoted(str(path))} is a folder, and no name of a file to write; name one in it")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with suppress(FileNotFoundError):
            _check_kind(path.stat())  # a device would be replaced, for everybody
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link that somebody has put there would lead elsewhere.
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, NEW_FILE, 0o600 if private else 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_folder(path.parent)
    except BaseException as error:  # Ctrl-C among them
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        kind = Unavailable if error.errno in NO_ROOM else InvalidInput
        raise kind(
            f"cannot write {path}: {error.strerror or error}; free some space or choose a folder that can be written "
            "(what was there before has not been touched)"
        ) from error


@contextmanager
def new_partial(folder: Path, begins: str) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file for its owner alone, under a name of its own that begins so and ends with `.partial`; gone at the end,
    unless it was moved.
    """
    handle, name = tempfile.mkstemp(dir=folder, prefix=begins, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Gives a file the name `path` in the same folder, where there is none of it. Raises FileExistsError where there is
    one, and never writes over it, except that on a file system without links the last of several at once counts.
    """
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        partial.replace(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """The rename itself reaches the disk only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """`what` lies in place of a file, which completes "it is", and the `remedy`; a web page may have a `title`."""

    what: str
    remedy: str
    title: str = ""


def stand_in(head: bytes) -> StandIn | None:
    """What the first bytes of a file show in place of it: a pointer to it, or a server's page; None for all else."""
    text = head[:4096].decode("utf-8-sig", errors="replace").strip()
    lower = text.lower()
    if lower.startswith("version https://git-lfs"):
        size = re.search(r"^size (\d{1,18})$", text, re.MULTILINE)
        stands = f" for a file of {size[1]} bytes" if size else ""
        return StandIn(what=f"a Git LFS pointer{stands}", remedy="fetch the file with git lfs pull")
    if "/annex/objects/" in lower[:200]:
        return StandIn(what="a git-annex pointer", remedy="fetch the file with git annex get")
    if re.match(r"<(!doctype html|html|head|body)", lower) or (lower.startswith("<") and "<html" in lower[:512]):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return StandIn(
            what="an HTML page",
            remedy="the download went wrong; fetch the file itself",
            title=title[1] if title else "",
        )
    return None


def plain(value: Any) -> Any:
    """The same in the types of JSON: arrays and tuples as lists, NaN and infinities as None, the rest as text."""
    tolist = getattr(value, "tolist", None)  # numpy's, which is not loaded for this
    if tolist is not None:
        value = tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def write_together(texts: Mapping[Path, str]) -> None:
    """Write every text to its path; each is on the disk beside its place before the first one moves there.

    Missing folders are made. Raises SteadfaceError, every file left as it was, where one cannot be written.
    """
    waiting: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            waiting[path] = Path(name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            waiting[path].chmod(0o644)  # mkstemp's files are for the owner alone; a report is to be shown
        for path, temporary in waiting.items():
            temporary.replace(path)
    except OSError as error:
        places = " and ".join(str(path) for path in texts)
        raise Unavailable(
            f"the report cannot be written to {places} ({error.strerror}); choose another folder or free some space"
        ) from error
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)
