"""Which files below a folder are pictures: one rule for every command, and what was left out by it.

Pictures are files with the name of a kind that we decode (`IMAGE_SUFFIXES`, in any case) that are not empty. Hidden
files and folders and those of a system (`._a.jpg`, `@eaDir`, `__MACOSX`, `Thumbs.db`, ...) are passed over with all
that is in them. Links to files and folders are followed, each file and folder once: a link to a folder that holds it,
and one to what is listed at its own place, is passed over. All of that is counted, by reason, with examples.
"""

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from steadface.errors import InvalidInput, unreadable
from steadface.files import is_within

EXAMPLES_SHOWN = 3
NAMES_LOOKED_FOR = 20
DEEPEST = 64
"""Folders in one another, of those that are listed."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".gif", ".jpe", ".jfif", ".mpo", ".apng", ".pbm", ".pnm"),
)

OTHER_PICTURES = (
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".tga", ".ico", ".dib"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw"),
)

SYSTEM_NAMES = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "$recycle.bin"),
    *("#recycle", "#snapshot", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "system volume information"),
    *("recycler", "recycled", "found.000", "network trash folder", "temporary items", "~snapshot", "lost.dir"),
)
"""Beside those that begin with a dot; in lower case."""


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that an operating system or a NAS puts everywhere."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


class Skips:
    """Counts what was left out by reason (a plural, as in 'empty files') and remembers the first few."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, example: str, *, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        shown = self._examples.setdefault(reason, [])
        if len(shown) < EXAMPLES_SHOWN:
            shown.append(example)

    def extend(self, reason: str, examples: Iterable[str]) -> None:
        for example in examples:
            self.add(reason, example)

    def numbered(self, reason: str, what: str, numbers: NDArray[np.int64]) -> None:
        """Counts as many as there are `numbers`, of which the first few are told as `what`."""
        self.extend(reason, (f"{what} {number}" for number in numbers[:EXAMPLES_SHOWN]))
        if (more := len(numbers) - EXAMPLES_SHOWN) > 0:
            self.counts[reason] += more

    def join(self, other: "Skips") -> None:
        """Adds what another has counted."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            shown = self._examples.setdefault(reason, [])
            shown += other._examples[reason][: EXAMPLES_SHOWN - len(shown)]

    @property
    def noted(self) -> dict[str, list[Any]]:
        """As JSON has it, see `of`: count and examples by reason."""
        return {reason: [count, *self._examples[reason]] for reason, count in self.counts.items()}

    @classmethod
    def of(cls, noted: Mapping[str, Sequence[Any]]) -> Self:
        """Those that were `noted`. Raises ValueError or TypeError for anything else."""
        skips = cls()
        for reason, (count, *examples) in noted.items():
            if not isinstance(count, int) or not examples or not all(isinstance(one, str) for one in examples):
                raise ValueError(reason)
            skips.counts[reason], skips._examples[reason] = count, examples[:EXAMPLES_SHOWN]
        return skips

    @property
    def messages(self) -> tuple[str, ...]:
        return tuple(
            f"skipped {reason}: {count} ({abbreviated(self._examples[reason], count)})"
            for reason, count in self.counts.items()
        )


def abbreviated(examples: list[str], total: int) -> str:
    """The first few examples, then how many more there are."""
    shown = examples[:EXAMPLES_SHOWN]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def people_with_images(labels: NDArray[np.int64], names: list[str], min_images: int, skips: Skips) -> NDArray[np.bool_]:
    """(C,) mask of the people who have images, and at least `min_images` of them; the others are counted."""
    if min_images < 1:
        raise InvalidInput(f"min_images is {min_images}; give 1 or more")
    images = np.bincount(labels, minlength=len(names))
    few = (images > 0) & (images < min_images)
    skips.extend("people without a usable image", (names[person] for person in np.flatnonzero(images == 0)))
    skips.extend(f"people with fewer than {min_images} images", (names[person] for person in np.flatnonzero(few)))
    kept: NDArray[np.bool_] = images >= min_images
    return kept


class PictureTree:
    """The pictures below `root`, each once; `skips` counts what is passed over.

    With `by_person` those directly in the root belong to nobody, and are passed over. Raises `SteadfaceError` for a
    root that is not a folder or cannot be listed.
    """

    def __init__(self, root: Path, skips: Skips, *, by_person: bool = False) -> None:
        self.root = root
        self._skips = skips
        self._by_person = by_person
        self._real = os.path.realpath(root)
        self._entered: set[str] = set()
        self._linked: set[str] = set()
        try:
            self._top = _entries(root)
        except OSError as error:
            raise unreadable(error, f"cannot list {root}: {error.strerror}; give a folder of pictures") from None

    def people(self) -> list[str]:
        """The folders directly in the root, sorted."""
        people = []
        for entry in self._top:
            if self._is_wanted(entry, self._real):
                if entry.is_dir():
                    people.append(entry.name)
                elif self._is_picture(entry):
                    self._skips.add("images outside any person's folder", entry.path)
        return people

    def images(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """(path relative to the root, bytes) of each picture below `folder`, the root itself where empty, sorted."""
        if folder.count("/") >= DEEPEST:
            self._skips.add(f"folders more than {DEEPEST} deep", str(self.root / folder))
            return
        real = os.path.realpath(self.root / folder)
        if real in self._entered:
            self._skips.add(LISTED_ALREADY, str(self.root / folder))
            return
        self._entered.add(real)
        try:
            entries = _entries(self.root / folder)
        except OSError as error:
            self._skips.add("folders that cannot be opened", f"{self.root / folder} ({error.strerror})")
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not self._is_wanted(entry, real):
                continue
            if entry.is_dir():
                yield from self.images(name)
            elif self._is_picture(entry) and self._is_first(entry, real) and (size := self._size(entry)):
                yield name, size

    def _is_wanted(self, entry: os.DirEntry[str], folder: str) -> bool:
        """Whether it is not a hidden one, nor a link that leads back; `folder` is the real path that it lies in."""
        if is_hidden(entry.name):
            self._skips.add("hidden files and folders and those of the system", entry.path)
            return False
        if not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        if not _exists(target):
            self._skips.add("links that lead nowhere", f"{entry.path} to {target}")
        elif is_within(folder, target) or is_within(self._real, target):
            self._skips.add("links to a folder that holds them", f"{entry.path} to {target}")
        elif self._has_own_place(target):
            self._skips.add(LISTED_ALREADY, f"{entry.path} is {target}")
        else:
            return True
        return False

    def _has_own_place(self, target: str) -> bool:
        """Whether what a link leads to is below the root, and listed there."""
        if not is_within(target, self._real):
            return False
        path = Path(target)
        parts = path.relative_to(self._real).parts
        if any(is_hidden(part) for part in parts):
            return False
        return path.is_dir() or (is_image_name(target) and len(parts) > self._by_person)

    def _is_picture(self, entry: os.DirEntry[str]) -> bool:
        if is_image_name(entry.name):
            return True
        if entry.name.lower().endswith(OTHER_PICTURES):
            self._skips.add("pictures of a kind that is not read; save them as JPEG or PNG", entry.path)
        else:
            self._skips.add("files that are not images", entry.path)
        return False

    def _is_first(self, entry: os.DirEntry[str], folder: str) -> bool:
        """Whether no other link led to the same file; what lies below the root without one is met once anyway."""
        if not entry.is_symlink() and is_within(folder, self._real):
            return True
        real = os.path.realpath(entry.path)
        if real in self._linked:
            self._skips.add(LISTED_ALREADY, f"{entry.path} is {real}")
            return False
        self._linked.add(real)
        return True

    def _size(self, entry: os.DirEntry[str]) -> int:
        try:
            status = entry.stat()
        except OSError as error:
            self._skips.add("files that cannot be opened", f"{entry.path} ({error.strerror})")
            return 0
        if not stat.S_ISREG(status.st_mode):
            self._skips.add("pipes, sockets and devices", entry.path)
            return 0
        if not status.st_size:
            self._skips.add("empty files", entry.path)
        return status.st_size


LISTED_ALREADY = "links to what is listed already"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        return sorted(scan, key=lambda entry: entry.name)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a link to a name that is too long
        return False


def composed(name: str) -> str:
    """`name` in Unicode's form NFC: one character for a letter with its accent, which some file systems take apart."""
    return unicodedata.normalize("NFC", name)


def spellings(names: Iterable[str]) -> dict[str, str]:
    """Each of `names` by itself and by its composed form."""
    every = list(names)
    return {composed(name): name for name in every} | {name: name for name in every}


def nearby(root: Path, wanted: Sequence[str]) -> Path | None:
    """The folder above `root`, or up to two below it, that holds any of the first of `wanted`."""
    # Names from a file: an absolute one lies below every folder, and ".." below none.
    names = [name for name in wanted if ".." not in Path(name).parts and not Path(name).is_absolute()]
    for folder in (root.absolute().parent, *root.glob("*/"), *root.glob("*/*/")):
        if any(os.path.lexists(folder / name) for name in names[:NAMES_LOOKED_FOR]):
            return folder
    return None


def check_distinct(people: Sequence[str], where: Path) -> None:
    """Raises `SteadfaceError`, which names them, for names that differ in case, blanks or Unicode form alone."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for person in people:
        alike[" ".join(composed(composed(person).casefold()).split())].append(person)
    twins = [_told_apart(names) for names in alike.values() if len(names) > 1]
    if twins:
        raise InvalidInput(
            f"names in {where} that differ only in case, blanks or Unicode form: {abbreviated(twins, len(twins))}; if "
            "that is one person bring the pictures together under one name, else give names that can be told apart"
        )


def _told_apart(names: Sequence[str]) -> str:
    """'Anna' and 'anna'; with escapes where they would look the same."""
    same = len(set(map(composed, names))) < len(names)
    return " and ".join(map(ascii if same else repr, names))
