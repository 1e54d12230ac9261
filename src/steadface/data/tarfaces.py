"""Faces in tar shards, read by their place without unpacking; which files a name of shards stands for."""

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import Image, UnreadableImage, as_text, decode_image
from steadface.data.listing import Skips, check_distinct, is_hidden, people_with_images
from steadface.data.personfolders import parted, person_of
from steadface.data.tarformat import shown
from steadface.data.tarindex import tar_index, text_at
from steadface.errors import InvalidInput
from steadface.files import open_file

MOST_SHARDS = 100_000
"""That one name stands for."""
_BRACES = re.compile(r"\{(?:(\d{1,12})\.\.(\d{1,12})|([^{}]+))\}")


class TarFaces:
    """The faces of `shards`, tar files, in their order, which `where` names; see `tar_index` for whose they are.

    People are in the order of their numbers, or else of their names. Left out and counted in `skipped`, with
    `messages` for people to read: pictures without a label, people with fewer than `min_images`, what `read_members`
    passes over. With `labelled` false each picture is a person of its own, called by shard and name. Raises
    `SteadfaceError` for a shard that is no tar file, for people whose names nobody could tell apart, and when nothing
    is left.
    """

    def __init__(self, shards: Sequence[Path], where: Path, *, min_images: int = 1, labelled: bool = True) -> None:
        self.shards = tuple(shards)
        index = tar_index(self.shards)
        self._columns, skips = index.columns, index.skips
        self._rows: NDArray[np.int64] | None = None
        notes: tuple[str, ...] = ()
        if labelled:
            owners, people, notes = self._people(where)
            self._count_unlabelled(owners, skips)
            wanted = people_with_images(owners[owners >= 0], people, min_images, skips)
            kept = np.append(wanted, False)[owners]
            if not kept.all():
                self._rows = np.flatnonzero(kept)
            self.labels: NDArray[np.int64] = (np.cumsum(wanted) - 1)[self._taken(owners)]
            self.people = tuple(people[person] for person in np.flatnonzero(wanted))
        else:
            self.labels = np.arange(len(self._columns["offset"]))
        self.skipped, self.messages = skips.counts, (*notes, *skips.messages)
        if not len(self.labels):
            expected = WITH_LABELS if labelled else "pictures are expected"
            raise InvalidInput("; ".join((f"no faces in {where}: {expected}", *self.messages)))
        self.sizes: NDArray[np.int64] = self._taken(self._columns["size"])
        self._bytes = [shard.stat().st_size for shard in self.shards]

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Of pictures that nobody labelled, made when they are asked for: they may be hundreds of millions."""
        return tuple(self._unlabelled())

    def _unlabelled(self) -> Iterator[str]:
        return (self._name(row) for row in range(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Image:
        return decode_image(self.read_encoded(index), self.name(index))

    def read_encoded(self, index: int) -> bytes:
        row = self._row(index)
        size = int(self._columns["size"][row])
        try:
            with open_file(self.shards[self._columns["shard"][row]]) as file:
                file.seek(int(self._columns["offset"][row]))
                encoded = file.read(size)
        except OSError as error:
            raise UnreadableImage(f"{self.name(index)} cannot be read: {error.strerror}") from None
        if len(encoded) < size:
            raise UnreadableImage(f"{self.name(index)} is cut off: the shard has become shorter")
        return encoded

    def name(self, index: int) -> str:
        row = self._row(index)
        return f"{shown(self._member(row))} of {self.shards[self._columns['shard'][row]]}"

    def place(self, index: int) -> tuple[str, str | None]:
        """The shard that an image lies in, below the folder of them all, and its name, as `FaceFiles.place` has it."""
        row = self._row(index)
        member = self._member(row).decode("utf-8", "backslashreplace")
        return self._shard_names[self._columns["shard"][row]], member

    @cached_property
    def _shard_names(self) -> tuple[str, ...]:
        root = os.path.commonpath([shard.parent.absolute() for shard in self.shards])
        return tuple(as_text(os.path.relpath(shard, root)) for shard in self.shards)

    def fingerprint(self) -> str:
        """sha256 over names and sizes of the shards, places, labels and people: shards may move, not change."""
        people = self.people if "people" in vars(self) else self._unlabelled()
        digest = hashlib.sha256()
        for part in _told([shard.name for shard in self.shards], self._bytes, people):
            digest.update(part.encode("utf-8", "surrogateescape"))
        for column in ("shard", "offset", "size"):
            digest.update(np.ascontiguousarray(self._taken(self._columns[column])).data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    def _people(self, where: Path) -> tuple[NDArray[np.int64], list[str], tuple[str, ...]]:
        """The person of each picture, -1 for nobody; their names; and what is doubtful."""
        by_folder = not bool((self._columns["label"] >= 0).any())
        column = self._columns["folder" if by_folder else "label"]
        used = np.unique(column[column >= 0])
        texts = [
            text_at(self._columns["texts"], self._columns["text_end"], number).decode("utf-8", "surrogateescape")
            for number in used.tolist()
        ]
        notes: tuple[str, ...] = ()
        if by_folder:
            texts, notes = _folders_people(texts, where)
        numbered = not by_folder and all(text.isdecimal() and text.isascii() for text in texts)
        people = sorted(set(texts), key=int if numbered else str)
        if not numbered:
            check_distinct(people, where)
        place = {person: number for number, person in enumerate(people)}
        of_text = np.full(len(self._columns["text_end"]) + 1, -1, dtype=np.int64)  # the last one stands for -1
        of_text[used] = [place[text] for text in texts]
        return of_text[column], people, notes

    def _count_unlabelled(self, owners: NDArray[np.int64], skips: Skips) -> None:
        nobody = np.flatnonzero(owners < 0)
        if len(nobody):
            skips.extend(WITHOUT_LABEL, (self._name(row) for row in nobody[:3].tolist()))
            skips.counts[WITHOUT_LABEL] = len(nobody)

    def _row(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])

    def _taken(self, column: NDArray[Any]) -> NDArray[Any]:
        return column if self._rows is None else column[self._rows]

    def _member(self, row: int) -> bytes:
        return text_at(self._columns["names"], self._columns["name_end"], row)

    def _name(self, row: int) -> str:
        return f"{self.shards[self._columns['shard'][row]].name}/{shown(self._member(row))}"


def _told(shards: list[str], sizes: list[int], people: Iterable[str]) -> Iterator[str]:
    """The `repr` of a list of the three, people as a tuple, piece by piece."""
    yield f"[{shards!r}, {sizes!r}, ("
    count = 0
    for count, person in enumerate(people, start=1):
        yield repr(person) if count == 1 else f", {person!r}"
    yield ",)]" if count == 1 else ")]"


WITHOUT_LABEL = "pictures without a label"
WITH_LABELS = (
    "pictures KEY.jpg with KEY.cls or KEY.json beside them, or in a folder per person, are expected (faces without "
    "labels are trained on as data.extra)"
)


def _folders_people(folders: Sequence[str], where: Path) -> tuple[list[str], tuple[str, ...]]:
    """Whose each of the folders is, and what is doubtful about that."""
    holders, certain = parted(f"{folder}/" for folder in folders)
    if certain or not holders:
        return [person_of(folder, holders) for folder in folders], ()
    note = f"taken as one person each, although pictures lie in folders below only: {len(holders)} folders of {where}"
    return [person_of(folder, ()) for folder in folders], (note,)


def shards_of(path: Path) -> list[Path]:
    """The tar files that `path` names: itself, those in a folder, or those of a pattern such as
    `faces-{0000..0099}.tar` or `{train,val}-{0..9}.tar`; none where it names none.

    Raises `SteadfaceError` for a pattern of too many.
    """
    if path.is_dir():
        return sorted(shard for shard in path.glob("*.tar") if not is_hidden(shard.name))
    if path.suffix != ".tar":
        return []
    if path.exists() or not _BRACES.search(str(path)):
        return [path]
    return [Path(name) for name in _expanded(str(path))]


def _expanded(pattern: str) -> Iterator[str]:
    """Every name that a pattern stands for, the last braces counting fastest."""
    pieces = _BRACES.split(pattern)
    choices: list[Sequence[str]] = []
    many = 1
    for first, last, several in zip(pieces[1::4], pieces[2::4], pieces[3::4], strict=True):
        many *= several.count(",") + 1 if several is not None else max(0, int(last) - int(first) + 1)
        if not 0 < many <= MOST_SHARDS:
            raise InvalidInput(f"{pattern} stands for {many:,} shards; write braces as {{0000..0099}} or {{train,val}}")
        width = 0 if several is not None or not first.startswith("0") else len(first)
        choices.append(
            several.split(",")
            if several is not None
            else [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
        )
    for chosen in itertools.product(*choices):
        yield "".join(itertools.chain.from_iterable(zip(pieces[::4], [*chosen, ""], strict=True)))


def holds_folders(path: Path) -> bool:
    """Whether any folder that is not hidden lies in `path`."""
    with os.scandir(path) as scan:
        return any(entry.is_dir() and not is_hidden(entry.name) for entry in scan)
