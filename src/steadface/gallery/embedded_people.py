"""Whom embedded pictures (`steadface.gallery.embeddings`) show: rows in any order, brought together person by person.

Rows of one person may lie in any part. Two passes put them in order (a counting sort): the first reads who the rows
show, and finds a place for each; the second writes the vectors to these places in a nameless temporary file. Memory is
16 bytes a picture and the names of people, whatever the number of parts.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.errors import InvalidInput
from steadface.gallery.embeddings import AGAIN, parts_in
from steadface.gallery.imported import BATCH, explained, parquet_file
from steadface.gallery.index import Vectors
from steadface.gallery.maintenance import listed
from steadface.gallery.person import checked_name

NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class EmbeddedPerson:
    """The unit `vectors` (n, D) of somebody's pictures, unchecked, and at which `rows` of all they stand."""

    name: str
    vectors: Vectors
    rows: NDArray[np.int64]


class EmbeddedPeople:
    """The people of a folder of embeddings, all of whose parts have to be there, or of one part.

    `failed` counts rows without an embedding, `without` names people of whom there are no others; `model` is what made
    them. Raises `InvalidInput` for rows that name nobody, for names that are none, and for files that are damaged;
    `Conflict` for parts that are missing, or of another model.
    """

    def __init__(self, given: Path) -> None:
        self.given = given
        self._parts, self.model = parts_in(given)
        codes, people = self._read_people()
        counts = np.bincount(codes[codes != NOBODY], minlength=len(people))
        self.failed = int(np.count_nonzero(codes == NOBODY))
        self.without = tuple(name for name, count in zip(people, counts.tolist(), strict=True) if not count)
        self._names, self._ends = people, np.cumsum(counts)
        order = np.argsort(codes, kind="stable")  # rows without an embedding come first
        self._rows = order[self.failed :]
        self._slots = np.empty(len(codes), dtype=np.int64)
        self._slots[order] = np.arange(-self.failed, len(self._rows))

    def __len__(self) -> int:
        """The number of people of whom there is an embedding."""
        return len(self._names) - len(self.without)

    def __iter__(self) -> Iterator[EmbeddedPerson]:
        shape = (len(self._rows), self.model.dimension)
        if not shape[0]:
            return
        with tempfile.TemporaryFile() as file:
            file.truncate(4 * shape[0] * shape[1])
            vectors: Any = np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
            self._fill(vectors)
            begin = 0
            for name, end in zip(self._names, self._ends.tolist(), strict=True):
                if end > begin:
                    yield EmbeddedPerson(name=name, vectors=np.array(vectors[begin:end]), rows=self._rows[begin:end])
                begin = end

    def where(self, rows: Sequence[int]) -> list[str]:
        """What to call the pictures at some rows."""
        wanted, found, first = set(rows), dict[int, str](), 0
        for part in self._parts:
            if not wanted:
                break
            with explained(part, AGAIN), parquet_file(part) as file:
                here = sorted(row for row in wanted if row < first + file.metadata.num_rows)
                if here:
                    table = file.read(["file", "key"]).take([row - first for row in here])
                    for row, one in zip(here, table.to_pylist(), strict=True):
                        found[row] = one["file"] if one["key"] is None else f"{one['key']} of {one['file']}"
                first += file.metadata.num_rows
            wanted.difference_update(here)
        return [found[row] for row in rows]

    def _read_people(self) -> tuple[NDArray[np.int32], list[str]]:
        """Of each row the place of its person in a list of names, `NOBODY` where it has no embedding; and the names."""
        known: dict[str, int] = {}
        codes = [np.empty(0, dtype=np.int32)]
        for part in self._parts:
            with explained(part, AGAIN), parquet_file(part, ["person"]) as file:
                batches = file.iter_batches(BATCH, columns=["person", "error"], use_threads=False)
                codes.extend(self._codes(batch, known) for batch in batches)
        return np.concatenate(codes), list(known)

    def _codes(self, batch: Any, known: dict[str, int]) -> NDArray[np.int32]:
        people = batch["person"]
        if people.null_count:
            raise InvalidInput(
                f"rows in {self.given} do not say whom they show; to enrol people embed pictures with labels: one "
                "folder per person, a .rec, or tar shards with .cls or .json"
            )
        names = [known.setdefault(checked_name(name), len(known)) for name in people.dictionary.to_pylist()]
        codes = np.asarray(names, dtype=np.int32)[people.indices.to_numpy()]
        return np.where(batch["error"].is_null().to_numpy(zero_copy_only=False), codes, np.int32(NOBODY))

    def _fill(self, vectors: Vectors) -> None:
        first = 0
        for part in self._parts:
            with explained(part, AGAIN), parquet_file(part) as file:
                for batch in file.iter_batches(BATCH, columns=["embedding"], use_threads=False):
                    slots = self._slots[first : first + batch.num_rows]
                    first += batch.num_rows
                    column = batch["embedding"].filter(slots >= 0)
                    if column.null_count:
                        raise ValueError("a row has neither an embedding nor an error")
                    numbers = column.flatten().to_numpy(zero_copy_only=False)
                    vectors[slots[slots >= 0]] = numbers.reshape(-1, self.model.dimension)


def left_out(people: EmbeddedPeople) -> Iterator[str]:
    """What is not enrolled of them, in words."""
    if people.failed:
        yield f"{people.failed} pictures in {people.given} have no embedding, and are left out"
    if people.without:
        yield f"of {len(people.without)} people there is no embedding at all: {listed(people.without)}"
