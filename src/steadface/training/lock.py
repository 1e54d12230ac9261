"""One process at a time works in a folder, that of a run or of an audit.

The lock is the operating system's, on a file that is kept open (`flock`): it is gone with the process that holds it,
however that ends, so that none is ever left behind. Processes that are forked meanwhile, those that read faces, give
their part in it up. On NFS it holds for all machines that mount the folder. Where a file system has no locks, and on
Windows, nobody is kept out; the former is said.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from steadface.errors import Conflict, InvalidInput

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else works in `folder` within; it is made, and goes again where nothing was put into it.

    Raises Conflict, saying who does, where somebody works there already, and InvalidInput where it cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor, owner = _acquired(folder), os.getpid()
    _held().add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == owner:  # and not a fork of it
            _held().discard(descriptor)
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()
                for path in made:
                    path.rmdir()  # fails where something is in it
            os.close(descriptor)


def _acquired(folder: Path) -> int:
    """The descriptor that holds the lock. Whoever had it before may just have removed the file that was opened."""
    path = folder / LOCK_FILE
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileNotFoundError:  # removed in between, by whoever had made it
            continue
        except OSError as error:
            raise InvalidInput(f"{folder} cannot be written: {error.strerror}; choose another folder") from error
        try:
            _lock(descriptor, folder)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                with suppress(OSError):  # a full disk, say: it is held all the same
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(
            f"{_holder(descriptor)} works in {folder} already: wait until it has ended, or stop it with Ctrl-C"
        ) from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see to it that one process works there", folder, error.strerror)


def _holder(descriptor: int) -> str:
    """Who holds the lock, in words, as far as its file says."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        pid, host = int(found["pid"]), str(found["host"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    return f"process {pid}{'' if host == socket.gethostname() else f' on {host[:80]!r}'}"


@cache
def _held() -> set[int]:
    """Descriptors of the locks of this process; its forks close them."""
    held: set[int] = set()

    def give_up() -> None:
        for descriptor in held:
            with suppress(OSError):
                os.close(descriptor)
        held.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=give_up)
    return held
