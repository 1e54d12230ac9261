"""Which pictures lie where in tar shards, and whose they are: headers and labels are read once, pictures are not.

Two layouts, of a whole set. That of WebDataset: members of a shard whose names are the same up to a suffix belong
together, `KEY.jpg` with `KEY.cls` (the person, as a number or a name) or `KEY.json` (an object with one of
`LABEL_FIELDS`). Or, where no label is in any shard, that of `tar -c`: a folder per person.
(WebDataset's format: https://github.com/webdataset/webdataset; a key ends at the first dot there. Where a label has the
whole name of a picture up to its last dot that comes first here, as people write it.)
"""

import json
import logging
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from steadface.data.faces import MOST_ENCODED
from steadface.data.keptindex import Index, kept_index
from steadface.data.listing import IMAGE_SUFFIXES, Skips
from steadface.data.recordformat import TOO_LONG
from steadface.data.tarformat import Member, read_members, shown
from steadface.errors import unreadable
from steadface.files import open_file

LABEL_FIELDS = ("identity", "person", "subject", "label", "class", "cls")
"""Of a `.json` beside a picture, by which the person is known, also with `_id` behind; the first that is there."""
MOST_LABEL = 1 << 16
"""Bytes of a label: those of img2dataset, with all that the picture's file says, have some thousand."""
LONGEST_LABEL = 255
"""Bytes of the name of a person, as of a folder."""
READERS = 2
"""Shards looked through at once: a slow disk answers several questions in the time of one."""

TYPES = {
    **dict.fromkeys(("offset", "size", "name_end", "text_end"), "I64"),
    **dict.fromkeys(("shard", "label", "folder"), "I32"),
    **dict.fromkeys(("names", "texts"), "U8"),
}

logger = logging.getLogger(__name__)


def tar_index(shards: Sequence[Path]) -> Index:
    """Columns of the N pictures in `shards`, in their order, kept for the next time (`kept_index`).

    `shard`, `offset` and `size` say where each is (N,); `name_end` (N,) where its name ends in `names`. `label` and
    `folder` (N,) are numbers of texts, -1 where there is none: the n-th ends in `texts` at `text_end[n]`. Raises
    `SteadfaceError` for a shard that cannot be read or is no tar file.
    """
    return kept_index(shards, TYPES, lambda: _make(shards), lambda columns: _fits(columns, shards))


def text_at(blob: NDArray[np.uint8], ends: NDArray[np.int64], number: int) -> bytes:
    """The `number`-th of texts that follow each other in `blob`."""
    return blob[int(ends[number - 1]) if number else 0 : int(ends[number])].tobytes()


def _make(shards: Sequence[Path]) -> Index:
    pool = ThreadPoolExecutor(READERS)
    try:
        parts = []
        for part in pool.map(_look_through, shards):
            parts.append(part)
            if len(parts) % 100 == 0:
                logger.info("looked through %d of %d shards", len(parts), len(shards))
    finally:
        pool.shutdown(cancel_futures=True)
    return _joined(parts)


def _joined(parts: Sequence["_Part"]) -> Index:
    """The parts, one after the other; what is said in several has one number."""
    numbers: dict[bytes, int] = {}
    skips = Skips()
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in TYPES}
    named = 0
    for shard, part in enumerate(parts):
        skips.join(part.skips)
        # The last one stands for -1.
        of_all = np.array([*(numbers.setdefault(text, len(numbers)) for text in part.texts), -1], dtype=np.int32)
        columns["shard"].append(np.full(len(part.offset), shard, dtype=np.int32))
        columns["offset"].append(part.offset)
        columns["size"].append(part.size)
        columns["name_end"].append(part.name_end + named)
        columns["names"].append(part.names)
        columns["label"].append(of_all[part.label])
        columns["folder"].append(of_all[part.folder])
        named += len(part.names)
    columns["text_end"] = [np.cumsum([len(text) for text in numbers], dtype=np.int64)]
    columns["texts"] = [np.frombuffer(b"".join(numbers), dtype=np.uint8)]
    return Index(columns={name: np.concatenate(column) for name, column in columns.items()}, skips=skips)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The columns of one shard; `label` and `folder` are places in `texts`."""

    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    names: NDArray[np.uint8]
    name_end: NDArray[np.int64]
    label: NDArray[np.int32]
    folder: NDArray[np.int32]
    texts: Sequence[bytes]
    skips: Skips


def _look_through(shard: Path) -> _Part:
    found = _Found(shard)
    try:
        with open_file(shard) as file:
            for member in read_members(file, shard.stat().st_size, str(shard), found.skips):
                found.take(member, file)
    except OSError as error:
        raise unreadable(error, f"cannot read {shard}: {error.strerror}") from None
    return found.part()


class _Found:
    """What has been met in a shard: numbers in arrays, since there may be millions.

    Keys are told apart by Python's 64-bit hashes of them: of 17 million, two are alike once in 100,000 sets.
    """

    def __init__(self, shard: Path) -> None:
        self.skips = Skips()
        self._shard = shard
        self._names, self._texts = bytearray(), dict[bytes, int]()
        self._pictures = {name: array("q") for name in ("offset", "size", "name_end", "folder", "whole", "stem", "key")}
        self._labels = {name: array("q") for name in ("stem", "text", "second")}

    def take(self, member: Member, file: BinaryIO) -> None:
        """Notes a picture or a label, and counts all else."""
        folder, slash, base = member.name.rpartition(b"/")
        stem, _, suffix = base.rpartition(b".")
        suffix = suffix.lower()
        if suffix in PICTURES:
            if problem := _picture_problem(member):
                self.skips.add(problem, f"{shown(member.name)} of {self._shard}")
            else:
                self._take_picture(member, folder, folder + slash + stem)
        elif suffix in (b"cls", b"json") or base.lower().endswith(b".cls.txt"):
            stem = stem.removesuffix(b".cls") if suffix == b"txt" else stem
            self._take_label(member, folder + slash + stem, suffix == b"json", file)
        else:
            self.skips.add("members that are neither pictures nor labels", f"{shown(member.name)} of {self._shard}")

    def _take_picture(self, member: Member, folder: bytes, stem: bytes) -> None:
        self._names += member.name
        base = stem.rfind(b"/") + 1
        dot = stem.find(b".", base)
        row = (
            member.offset,
            member.size,
            len(self._names),
            self._number(folder) if folder else -1,
            hash(member.name),
            hash(stem),
            hash(stem if dot < 0 else stem[:dot]),
        )
        for column, value in zip(self._pictures.values(), row, strict=True):
            column.append(value)

    def _take_label(self, member: Member, stem: bytes, is_json: bool, file: BinaryIO) -> None:
        if member.size > MOST_LABEL:
            self.skips.add(f"labels of more than {MOST_LABEL:,} bytes", f"{shown(member.name)} of {self._shard}")
            return
        file.seek(member.offset)
        content = file.read(member.size)
        text = _of_json(content) if is_json else _of_text(content)
        if text is None:
            return  # a `.json` that says other things
        if not 0 < len(text) <= LONGEST_LABEL:
            self.skips.add("labels that name nobody", f"{shown(member.name)} of {self._shard}")
            return
        for column, value in zip(self._labels.values(), (hash(stem), self._number(text), is_json), strict=True):
            column.append(value)

    def _number(self, text: bytes) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def part(self) -> _Part:
        """What was found, each picture with its label, where it has one."""
        if not self._pictures["offset"]:
            self.skips.add("shards without a picture", str(self._shard))
        column = {name: np.array(values, dtype=np.int64) for name, values in self._pictures.items()}
        label, called, own = self._labelled(column["whole"], column["stem"], column["key"])
        order = np.argsort(~own, kind="stable")  # a picture whose own label it is before others of the key
        kept = np.zeros(len(label), dtype=bool)
        kept[order[np.unique(called[order], return_index=True)[1]]] = True
        ends = column["name_end"]
        starts = np.concatenate(([0], ends))[:-1]
        for row in np.flatnonzero(~kept):
            name = bytes(self._names[starts[row] : ends[row]])
            self.skips.add("pictures of a key that has one already", f"{shown(name)} of {self._shard}")
        lengths = ends - starts
        return _Part(
            offset=column["offset"][kept],
            size=column["size"][kept],
            names=np.frombuffer(bytes(self._names), dtype=np.uint8)[np.repeat(kept, lengths)],
            name_end=np.cumsum(lengths[kept]),
            label=label[kept].astype(np.int32),
            folder=column["folder"][kept].astype(np.int32),
            texts=tuple(self._texts),
            skips=self.skips,
        )

    def _labelled(
        self, whole: NDArray[np.int64], stem: NDArray[np.int64], key: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """The label of each picture, -1 for none; what it is called by, of which there can be one only; and whether the
        label has its name up to the last dot.
        """
        stems, texts, second = (np.array(values, dtype=np.int64) for values in self._labels.values())
        order = np.argsort(second, kind="stable")  # a `.cls` before a `.json`
        known, first = np.unique(stems[order], return_index=True)
        if not len(known):
            return np.full(len(stem), -1, dtype=np.int64), whole, np.zeros(len(stem), dtype=bool)
        texts = texts[order][first]
        by_stem, by_key = (np.minimum(np.searchsorted(known, one), len(known) - 1) for one in (stem, key))
        has_stem, has_key = known[by_stem] == stem, known[by_key] == key
        label = np.where(has_stem, texts[by_stem], np.where(has_key, texts[by_key], -1))
        return label, np.where(has_stem, stem, np.where(has_key, key, whole)), has_stem


PICTURES = frozenset(suffix[1:].encode() for suffix in IMAGE_SUFFIXES)


def _picture_problem(member: Member) -> str:
    if not member.size:
        return "empty files"
    return TOO_LONG if member.size > MOST_ENCODED else ""


def _of_text(content: bytes) -> bytes:
    """Who it says is shown: a number without leading zeros, or a name."""
    text = content.strip()
    return text.lstrip(b"0") or b"0" if text.isdigit() else text


def _of_json(content: bytes) -> bytes | None:
    """Who it says is shown; None where it says nothing of that, b'' where nobody can be meant."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return b""
    if not isinstance(said, dict):
        return b""
    value = next((said[name] for field in LABEL_FIELDS for name in (field, f"{field}_id") if name in said), None)
    if isinstance(value, str):
        return value.strip().encode("utf-8", "replace")
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value if abs(value) < 1 << 63 else b""
    return None if value is None else b""


def _fits(columns: Mapping[str, NDArray[Any]], shards: Sequence[Path]) -> bool:
    """Whether columns that lay beside the shards can be theirs: whatever they say lies within a shard."""
    offset, size, shard = columns["offset"], columns["size"], columns["shard"]
    rows = [columns[name] for name in ("size", "shard", "name_end", "label", "folder")]
    if any(len(row) != len(offset) for row in rows):
        return False
    lengths = np.array([path.stat().st_size for path in shards], dtype=np.int64)
    return (
        _within(shard, 0, len(shards) - 1)
        and _within(size, 1, MOST_ENCODED)
        and _within(offset, 0, int(lengths.max()))
        and bool((offset + size <= lengths[shard]).all())
        and _ends_of(columns["name_end"], columns["names"])
        and _ends_of(columns["text_end"], columns["texts"])
        and _within(columns["label"], -1, len(columns["text_end"]) - 1)
        and _within(columns["folder"], -1, len(columns["text_end"]) - 1)
    )


def _within(column: NDArray[Any], least: int, most: int) -> bool:
    return not len(column) or bool(column.min() >= least and column.max() <= most)


def _ends_of(ends: NDArray[np.int64], blob: NDArray[np.uint8]) -> bool:
    """Whether these are ends of texts that make up all of `blob`."""
    if not len(ends):
        return not len(blob)
    return bool(ends[0] >= 0 and (ends[1:] >= ends[:-1]).all() and ends[-1] == len(blob))
