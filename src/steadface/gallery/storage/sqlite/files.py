"""The files of a gallery: whether they are those that were opened, and whether SQLite may be let at them.

Who has a file open keeps it when it is moved, deleted or replaced, and would go on answering from it and writing into
it, where nobody will look again. So the paths' devices and inodes are compared with those of the opened files around
every transaction. SQLite keeps a part of a gallery beside it while it is open (`-wal`, `-shm`): these count as well.
SQLite's own check (SQLITE_READONLY_DBMOVED) covers rollback journals alone.

What lies beside a gallery may have been planted there. SQLite follows links, and would write over what they lead to;
and a journal may name a second one (a super-journal), which SQLite deletes, whatever file it is. Neither is ever ours.

Another file copied over a gallery keeps its inode. SQLite would go on by the pages that it remembers, and leave a
mixture of both that nothing opens. So `Connection` asks whether anybody else has written into the file (`stamp`).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steadface.errors import Conflict, InvalidInput, Unavailable
from steadface.gallery.storage import RESTORE

COMPANIONS = ("-wal", "-shm")
JOURNAL = "-journal"
NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names a super-journal (SQLite's file format, section 3)."""

Stamp = tuple[int, int, int]
"""Size, and when content and anything of a file were last changed."""

Inode = tuple[int, int]
"""Device and inode; the inode is 0 on file systems that have none, whose files Windows keeps in place while open."""


class OpenedFiles:
    """The file at `path`, as it is when this is made, and its companions, as they are when first looked at.

    Raises `InvalidInput` for what lies beside it and is no file of SQLite's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._absolute = path.absolute()  # a later change of the working directory changes nothing
        self._file = _inode(self._absolute)
        real = self._absolute.resolve()  # SQLite keeps the companions beside what a link leads to
        self._companions: dict[Path, Inode | None] = {real.with_name(real.name + suffix): None for suffix in COMPANIONS}
        self._journal = real.with_name(real.name + JOURNAL)
        self._unchanging: tuple[int, ...] | None = None
        self._written, self._writing = self.stamp(), False
        self._check_journal()
        for companion in self._companions:
            self._beside(companion)

    def check(self) -> None:
        """Raises `Unavailable` where a file is no longer there, and `Conflict` where another is in its place."""
        now = _inode(self._absolute)
        if now is None:
            raise Unavailable(
                f"the gallery {self.path} was moved away or deleted since it was opened; nothing was done that counts: "
                "put the file back together with those beside it (-wal, -shm), or open the gallery where it is now"
            )
        if now != self._file:
            raise Conflict(
                f"another file has taken the place of the gallery {self.path} since it was opened; nothing was done "
                "that counts: open it again to use the file that is there now, or put the first one back"
            )
        if self._unchanging is None:
            self._check_companions()
        elif self._unchanging != self._looks():
            raise Unavailable(
                f"the gallery {self.path} can only be read here and was changed since it was opened; nothing was done "
                "that counts: open it again"
            )

    def _check_companions(self) -> None:
        for path, opened in self._companions.items():
            there = self._beside(path)
            if opened is not None and there != opened:
                raise Unavailable(
                    f"{path}, a part of the gallery {self.path} while it is open, was moved, deleted or replaced; "
                    "nothing was done that counts: close the gallery, open it again, and see whether the last changes "
                    "are there (leave the files beside a gallery alone while it is open, and do not read them in the "
                    "program that has it open)"
                )
            self._companions[path] = there

    def stamp(self) -> Stamp | None:
        """Of the gallery's own file, which SQLite writes into seldom: when it brings the log into it."""
        try:
            there = self._absolute.stat()
        except OSError:
            return None
        return there.st_size, there.st_mtime_ns, there.st_ctime_ns

    def check_filled(self) -> None:
        """Raises `Conflict` where nothing is in the file, as a program leaves it that begins to copy another one over
        it: SQLite would go on by the log alone.
        """
        if (stamp := self.stamp()) is not None and not stamp[0]:
            raise Conflict(
                f"the gallery {self.path} was emptied since it was opened; nothing was done that counts: put its "
                "backup back when nobody has it open"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While this process may write into the file."""
        self._writing = True
        try:
            yield
        finally:
            self._written, self._writing = self.stamp(), False

    def written_elsewhere(self, before: Stamp | None) -> bool:
        """Whether somebody else has written into the file since it had the stamp `before`."""
        return not self._writing and self.stamp() not in (before, self._written)

    def size(self) -> int:
        """Of all of them, in bytes."""
        return sum(_size(path) for path in (self._absolute, *self._companions))

    def taken(self) -> int:
        """What they take on the disk, in bytes: holes in a file may be as large as anybody likes."""
        return sum(_size(path, taken=True) for path in (self._absolute, *self._companions))

    def check_size(self, size: int) -> None:
        """Raises `InvalidInput` where SQLite takes the gallery to be larger, in bytes, than all of its files are."""
        there = self.size()
        if size > there:
            raise InvalidInput(
                f"the gallery {self.path} is damaged: it says that it has {size} bytes, and there are {there}: "
                f"{RESTORE}"
            )

    def keep(self) -> None:
        """For a file that is read without locks: from now on every `check` asks whether it has changed.

        Raises `Unavailable` where what lies beside it holds changes that are not in the file yet.
        """
        for path in self._pending():
            if _size(path):
                raise Unavailable(
                    f"the gallery {self.path} can only be read here, and {path.name} beside it holds changes that are "
                    "not in it yet; open it once where it can be written, or read a backup of it"
                )
        self._unchanging = self._looks()

    def _pending(self) -> list[Path]:
        """Where changes may stand that are not in the file yet."""
        return [path for path in (*self._companions, self._journal) if not path.name.endswith("-shm")]

    def _looks(self) -> tuple[int, ...]:
        there = self._absolute.stat()
        return there.st_size, there.st_mtime_ns, *map(_size, self._pending())

    def _beside(self, path: Path) -> Inode | None:
        """Of a companion. Raises `InvalidInput` for a link, or for anything else that is not a file of its own."""
        try:
            there = os.lstat(path)
        except OSError:
            return None
        if not stat.S_ISREG(there.st_mode) or there.st_nlink > 1:
            raise InvalidInput(
                f"{path}, beside the gallery {self.path}, is a link or no file, and SQLite would write through it; "
                "nothing was done that counts: find out who put it there, move it away and open the gallery again"
            )
        return there.st_dev, there.st_ino

    def _check_journal(self) -> None:
        """Raises `InvalidInput` for a journal that SQLite must not be let at."""
        if self._beside(self._journal) is None or _size(self._journal) < len(NAMES_ANOTHER):
            return
        try:
            with self._journal.open("rb") as file:
                file.seek(-len(NAMES_ANOTHER), os.SEEK_END)
                end = file.read()
        except OSError:  # which SQLite will not be able to read either
            return
        if end == NAMES_ANOTHER:
            raise InvalidInput(
                f"{self._journal}, beside the gallery {self.path}, names another file for SQLite to delete, which no "
                "journal of a gallery does; find out who put it there, move it away and open the gallery again"
            )


def _inode(path: Path) -> Inode | None:
    """None where there is no file, or none that may be looked at."""
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _size(path: Path, *, taken: bool = False) -> int:
    """In bytes, or those `taken` on the disk; 0 where there is no file."""
    try:
        there = path.stat()
    except OSError:
        return 0
    blocks = getattr(there, "st_blocks", None) if taken else None  # of 512 bytes; Windows does not tell
    return there.st_size if blocks is None else min(there.st_size, 512 * blocks)
