"""Whether the files of a gallery are still the ones that were opened.

Who has a file open keeps it when it is moved, deleted or replaced, and would go on answering from it and writing into
it, where nobody will look again. So the paths' devices and inodes are compared with those of the opened files around
every transaction. SQLite keeps a part of a gallery beside it while it is open (`-wal`, `-shm`): these count as well.
SQLite's own check (SQLITE_READONLY_DBMOVED) covers rollback journals alone.
"""

from pathlib import Path

from steadface.errors import SteadfaceError

Identity = tuple[int, int]
"""Device and inode; the inode is 0 on file systems that have none, whose files Windows keeps in place while open."""

COMPANIONS = ("-wal", "-shm")


class Place:
    """The file at `path`, as it is when this is made, and its companions, as they are when first looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._absolute = path.absolute()  # a later change of the working directory changes nothing
        self._file = _identity(self._absolute)
        real = self._absolute.resolve()  # SQLite keeps the companions beside what a link leads to
        self._companions: dict[Path, Identity | None] = {
            real.with_name(real.name + suffix): None for suffix in COMPANIONS
        }

    def check(self) -> None:
        """Raises `SteadfaceError` where a file is no longer there, or another is in its place."""
        now = _identity(self._absolute)
        if now is None:
            raise SteadfaceError(
                f"the gallery {self.path} was moved away or deleted since it was opened; nothing was done that counts: "
                "put the file back together with those beside it (-wal, -shm), or open the gallery where it is now"
            )
        if now != self._file:
            raise SteadfaceError(
                f"another file has taken the place of the gallery {self.path} since it was opened; nothing was done "
                "that counts: open it again to use the file that is there now, or put the first one back"
            )
        for path, opened in self._companions.items():
            found = _identity(path)
            if opened is not None and found != opened:
                raise SteadfaceError(
                    f"{path}, a part of the gallery {self.path} while it is open, was moved, deleted or replaced; "
                    "nothing was done that counts: close the gallery, open it again, and see whether the last changes "
                    "are there (leave the files beside a gallery alone while it is open, and do not read them in the "
                    "program that has it open)"
                )
            self._companions[path] = found


def _identity(path: Path) -> Identity | None:
    """None where there is no file, or none that may be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
