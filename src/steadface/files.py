"""Files that are either whole or not there."""

import os
from contextlib import suppress
from pathlib import Path

from steadface.errors import SteadfaceError


def write_atomically(path: Path, data: bytes) -> None:
    """Writes ``data`` beside ``path``, flushes it to the disk, then renames: readers see the old file or the new.

    Raises SteadfaceError where the folder cannot be written or the disk is full; what was there before stays.
    """
    # In the same folder, since a rename is atomic only within a file system; one name, so that the leftovers of
    # killed writers do not pile up.
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise SteadfaceError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose a folder that can be written "
            "(what was there before has not been touched)"
        ) from error


def _flush_folder(folder: Path) -> None:
    """The rename itself reaches the disk only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
