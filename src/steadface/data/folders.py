"""Faces in files: one folder per person, any nesting below it; and what else a path may name."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.arguments import as_path
from steadface.data.faces import FaceSource, Image, as_text, checked_labels, decode_image, read_encoded
from steadface.data.listing import (
    IMAGE_SUFFIXES,
    PictureTree,
    Skips,
    abbreviated,
    check_distinct,
    is_hidden,
    is_image_name,
    people_with_images,
)
from steadface.data.personfolders import parted
from steadface.data.recordio import RecordFile
from steadface.data.tarfaces import TarFaces, holds_folders, shards_of
from steadface.errors import InvalidInput, NotFound, SteadfaceError


class FaceFiles:
    """Image files below `root`: `names` are paths relative to it and `sizes` their bytes when listed."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        sizes: ArrayLike,
        labels: ArrayLike,
        people: Sequence[str],
    ) -> None:
        self.root = root
        self.names = tuple(names)
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.labels: NDArray[np.int64] = checked_labels(labels, len(self.names), len(people))
        self.people = tuple(people)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image:
        return decode_image(self.read_encoded(index), self.name(index))

    def read_encoded(self, index: int) -> bytes:
        return read_encoded(self.root / self.names[index])

    def name(self, index: int) -> str:
        return str(self.root / self.names[index])

    def place(self, index: int) -> tuple[str, str | None]:
        """The file of an image, below the root, and its name in there where that holds several: here it does not. Both
        as text that can be written down, see `as_text`.
        """
        return as_text(self.names[index]), None

    def fingerprint(self) -> str:
        """sha256 over relative paths and sizes: the folder may move, its contents may not change."""
        digest = hashlib.sha256("\0".join(self.names).encode("utf-8", "surrogateescape"))
        digest.update(self.sizes.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


class ListedFiles(FaceFiles):
    """What is kept of a listing: people with `min_images` or more.

    What was left out is counted in `skipped` (reason to number), with `messages` for people to read. Raises
    `SteadfaceError`, which begins with `nothing`, when nothing is left.
    """

    def __init__(
        self,
        root: Path,
        names: list[str],
        *,
        sizes: ArrayLike,
        labels: NDArray[np.int64],
        people: list[str],
        min_images: int,
        skips: Skips,
        nothing: str,
    ) -> None:
        wanted = people_with_images(labels, people, min_images, skips)
        kept = np.flatnonzero(wanted[labels])
        self.skipped = skips.counts
        self.messages = skips.messages
        if not len(kept):
            raise InvalidInput("; ".join((nothing, *self.messages)))
        super().__init__(
            root,
            [names[index] for index in kept],
            sizes=np.asarray(sizes, dtype=np.int64)[kept],
            labels=(np.cumsum(wanted) - 1)[labels[kept]],
            people=[people[index] for index in np.flatnonzero(wanted)],
        )


class ImageFolder(ListedFiles):
    """Every picture below each folder of `root`, as `PictureTree` lists them; the folder's name is the person's.

    Listed in sorted order, so that indices mean the same on every machine. Left out and counted in `skipped`
    (reason to number, with `messages` for people to read) are also pictures outside any person's folder, and people
    with fewer than `min_images`. `deeper` are the folders in which the person folders seem to lie, where that is not
    `root`.
    Raises `SteadfaceError` when nothing is left, and for people whose names nobody could tell apart.
    """

    def __init__(self, root: str | os.PathLike[str], *, min_images: int = 1) -> None:
        root = as_path(root, "the folder of faces")
        skips = Skips()
        names: list[str] = []
        sizes: list[int] = []
        owners: list[int] = []
        tree = PictureTree(root, skips, by_person=True)
        people = tree.people()
        for owner, person in enumerate(people):
            for name, size in tree.images(person):
                names.append(name)
                sizes.append(size)
                owners.append(owner)
        check_distinct([people[owner] for owner in dict.fromkeys(owners)], root)
        super().__init__(
            root,
            names,
            sizes=sizes,
            labels=np.asarray(owners, dtype=np.int64),
            people=people,
            min_images=min_images,
            skips=skips,
            nothing=f"no faces in {root}: {_EXPECTED}{_instead(root)}",
        )
        found, certain = parted(names)
        folders = [root / folder for folder in found]
        self.deeper = tuple(folders) if certain else ()
        if folders:
            self.messages += (_doubt(root, folders, certain),)


class UnlabelledFolder(ListedFiles):
    """Every image below `root`, files directly in it too, each a person of its own called by its relative path.

    Listed, left out and counted as in `ImageFolder`. Raises `SteadfaceError` when nothing is left.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        root = as_path(root, "the folder of faces")
        skips = Skips()
        sizes = dict(PictureTree(root, skips).images())
        names = list(sizes)
        super().__init__(
            root,
            names,
            sizes=list(sizes.values()),
            labels=np.arange(len(names)),
            people=names,
            min_images=1,
            skips=skips,
            nothing=f"no faces in {root}: images ({' '.join(IMAGE_SUFFIXES)}) are expected",
        )


_EXPECTED = "one folder per person is expected, with images (" + " ".join(IMAGE_SUFFIXES) + ") in it"


def open_faces(path: str | os.PathLike[str], *, min_images: int = 1) -> FaceSource:
    """The faces at `path`: identity folders, an InsightFace `.rec` file or a folder that holds one; or tar shards, a
    folder of them, one, or a pattern such as `faces-{0000..0099}.tar`.

    Raises `SteadfaceError` for a path that is none of these, and names the folder inside it that is.
    """
    path = as_path(path, "the folder of faces")
    if path.suffix == ".bin":
        raise InvalidInput(f"{path} is a verification set (pairs); training takes identity folders or a .rec")
    if path.suffix in (".rec", ".idx"):
        return RecordFile(path.with_suffix(".rec"), min_images=min_images)
    if path.suffix == ".tar" and not path.is_dir():
        return TarFaces(shards_of(path), path, min_images=min_images)
    if not path.is_dir():
        raise _no_faces(path)
    records = _records(path.glob("*.rec"))
    if len(records) > 1:
        found = ", ".join(record.name for record in records)
        raise InvalidInput(f"{path} holds several .rec files ({found}); name the one to use")
    if records:
        return RecordFile(records[0], min_images=min_images)
    if (shards := shards_of(path)) and not holds_folders(path):
        return TarFaces(shards, path, min_images=min_images)
    faces = ImageFolder(path, min_images=min_images)
    if faces.deeper:
        raise InvalidInput(f"{_doubt(path, faces.deeper, True)}: give that")
    return faces


def open_unlabelled(path: Path) -> FaceSource:
    """The faces at `path` of which nobody knows who they show: a folder, see `UnlabelledFolder`, or tar shards."""
    if (shards := shards_of(path)) and not (path.is_dir() and holds_folders(path)):
        return TarFaces(shards, path, labelled=False)
    return UnlabelledFolder(path)


def _no_faces(path: Path) -> SteadfaceError:
    """What to raise for a path that is no folder and no file of faces."""
    if path.name.endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")):
        return InvalidInput(f"{path} is compressed, so that no face in it is found alone; unpack it to a plain .tar")
    if path.exists():
        return InvalidInput(f"{path} is not a folder of faces nor a .rec file nor tar shards, but another file")
    return NotFound(
        f"{path} is not a folder of faces nor a .rec file nor tar shards, nor anything else; check the path"
    )


def is_unlabelled(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder of images alone: no person folders beside them, and no `.rec` file."""
    if not Path(path).is_dir():
        return False
    with os.scandir(path) as scan:
        entries = [entry for entry in scan if not is_hidden(entry.name)]
    labelled = any(entry.is_dir() or entry.name.endswith(".rec") for entry in entries)
    return not labelled and any(is_image_name(entry.name) for entry in entries)


def _doubt(root: Path, folders: Sequence[Path], certain: bool) -> str:
    where = abbreviated(list(map(str, folders)), len(folders))
    if certain:
        return f"the person folders seem to lie in {where}, not in {root}"
    return f"taken as one person each, although pictures lie in folders below only: {len(folders)} ({where})"


def _instead(root: Path) -> str:
    """What to give instead of a folder that holds no person folder."""
    records = _records(root.glob("*/*.rec"))
    if records:
        return f"; there is {abbreviated([str(record) for record in records], len(records))}: give that"
    if is_unlabelled(root):
        return f"; if these pictures show one person, give the folder above, {root.absolute().parent}"
    return ""


def _records(found: Iterable[Path]) -> list[Path]:
    return sorted(path for path in found if not is_hidden(path.name))
