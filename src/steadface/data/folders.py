"""Faces in files: one folder per person, any nesting below it."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.data.faces import FaceSource, Image, UnreadableImage, checked_labels, decode_image
from steadface.data.listing import Skips, people_with_images
from steadface.data.recordio import RecordFile
from steadface.errors import SteadfaceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


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
        path = self.root / self.names[index]
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{path} cannot be read: {error.strerror}") from None
        return decode_image(encoded, str(path))

    def name(self, index: int) -> str:
        return str(self.root / self.names[index])

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
            raise SteadfaceError("; ".join((nothing, *self.messages)))
        super().__init__(
            root,
            [names[index] for index in kept],
            sizes=np.asarray(sizes, dtype=np.int64)[kept],
            labels=(np.cumsum(wanted) - 1)[labels[kept]],
            people=[people[index] for index in np.flatnonzero(wanted)],
        )


class ImageFolder(ListedFiles):
    """Every image below each folder of `root`; the folder's name is the person's.

    Listed in sorted order, so that indices mean the same on every machine. Left out and counted in `skipped`
    (reason to number, with `messages` for people to read): empty files, files that are no images, images that
    lie outside any person's folder, and people with fewer than `min_images` images. Names that start with a
    dot are passed over. Raises `SteadfaceError` when nothing is left.
    """

    def __init__(self, root: str | os.PathLike[str], *, min_images: int = 1) -> None:
        root = Path(root)
        skips = Skips()
        names: list[str] = []
        sizes: list[int] = []
        owners: list[int] = []
        people = _person_folders(root, skips)
        for owner, person in enumerate(people):
            for name, size in images_below(root, person, skips):
                names.append(name)
                sizes.append(size)
                owners.append(owner)
        super().__init__(
            root,
            names,
            sizes=sizes,
            labels=np.asarray(owners, dtype=np.int64),
            people=people,
            min_images=min_images,
            skips=skips,
            nothing=f"no faces in {root}: {_EXPECTED}",
        )


class UnlabelledFolder(ListedFiles):
    """Every image below `root`, files directly in it too, each a person of its own called by its relative path.

    Listed, left out and counted as in `ImageFolder`. Raises `SteadfaceError` when nothing is left.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        root = Path(root)
        skips = Skips()
        sizes = dict(images_below(root, "", skips))
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
    """The faces at `path`: identity folders, an InsightFace `.rec` file, or a folder that holds one.

    Raises `SteadfaceError` for a path that is none of these.
    """
    path = Path(path)
    if path.suffix == ".bin":
        raise SteadfaceError(f"{path} is a verification set (pairs); training takes identity folders or a .rec")
    if path.suffix in (".rec", ".idx"):
        return RecordFile(path.with_suffix(".rec"), min_images=min_images)
    if not path.is_dir():
        raise SteadfaceError(f"{path} is not a folder of faces nor a .rec file; check the path")
    records = sorted(path.glob("*.rec"))
    if not records:
        return ImageFolder(path, min_images=min_images)
    if len(records) > 1:
        found = ", ".join(record.name for record in records)
        raise SteadfaceError(f"{path} holds several .rec files ({found}); name the one to use")
    return RecordFile(records[0], min_images=min_images)


def is_unlabelled(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder of images alone: no person folders beside them, and no `.rec` file."""
    if not Path(path).is_dir():
        return False
    with os.scandir(path) as scan:
        entries = [entry for entry in scan if not entry.name.startswith(".")]
    labelled = any(entry.is_dir() or entry.name.endswith(".rec") for entry in entries)
    return not labelled and any(is_image_name(entry.name) for entry in entries)


def _person_folders(root: Path, skips: Skips) -> list[str]:
    folders = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_dir() and not entry.name.startswith("."):
                    folders.append(entry.name)
                elif is_image_name(entry.name):
                    skips.add("images outside any person's folder", entry.path)
    except OSError as error:
        raise SteadfaceError(f"cannot list {root}: {error.strerror}; {_EXPECTED}") from None
    return sorted(folders)


def images_below(root: Path, folder: str, skips: Skips) -> Iterator[tuple[str, int]]:
    """(path relative to root, bytes) of each image below `folder` (the root itself where empty), sorted.

    Links to files are followed, links to folders are not: one that points upwards would never end.
    """
    try:
        with os.scandir(root / folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        skips.add("folders that cannot be opened", f"{root / folder} ({error.strerror})")
        return
    for entry in entries:
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from images_below(root, name, skips)
        elif not is_image_name(entry.name):
            skips.add("files that are not images", entry.path)
        elif size := _size(entry, skips):
            yield name, size


def _size(entry: os.DirEntry[str], skips: Skips) -> int:
    try:
        size = entry.stat().st_size
    except OSError as error:
        skips.add("files that cannot be opened", f"{entry.path} ({error.strerror})")
        return 0
    if not size:
        skips.add("empty files", entry.path)
    return size


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
