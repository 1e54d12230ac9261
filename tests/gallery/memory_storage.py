"""A second storage, in memory, for the tests: the least that `steadface.gallery.storage` asks of one."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock

from steadface.arguments import Shard
from steadface.errors import Conflict, NotFound, Unavailable, Unsupported
from steadface.gallery.storage import Contents, Entry, Header, Numbers, PersonRow, TemplateRow, check_unused


@dataclass
class MemoryRows:
    """A `Transaction`: everything there is, in dictionaries by number."""

    kept: Header
    log: list[Entry]
    everybody: dict[int, PersonRow] = field(default_factory=dict)
    vectors: dict[int, TemplateRow] = field(default_factory=dict)
    last_person: int = 0
    last_template: int = 0

    def header(self) -> Header:
        return self.kept

    def people(
        self,
        *,
        after: int = 0,
        tags: Collection[bytes] | None = None,
        ids: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        expired_by: str | None = None,
    ) -> Iterator[PersonRow]:
        for row in sorted(self.everybody.values()):
            if (
                row.number > after
                and (tags is None or row.tag in tags)
                and (ids is None or row.id in ids)
                and (numbers is None or row.number in numbers)
                and (expired_by is None or (row.expires is not None and row.expires <= expired_by))
            ):
                yield row._replace(templates=sum(one.person == row.number for one in self.vectors.values()))

    def count_people(self, *, expired_by: str | None = None) -> int:
        return sum(1 for _ in self.people(expired_by=expired_by))

    def next_expiry(self, after: str) -> str | None:
        return min((p.expires for p in self.everybody.values() if p.expires and p.expires > after), default=None)

    def templates(
        self,
        *,
        after: int = 0,
        person: int | None = None,
        numbers: Collection[int] | None = None,
        shard: Shard | None = None,
    ) -> Iterator[TemplateRow]:
        return (
            row
            for number, row in sorted(self.vectors.items())
            if number > after
            and person in (None, row.person)
            and (numbers is None or number in numbers)
            and (shard is None or row.person % shard.of == shard.number % shard.of)
        )

    def count_templates(self) -> int:
        return len(self.vectors)

    def numbers(self) -> Numbers:
        return Numbers(self.last_person, self.last_template)

    def entries(
        self, *, after: int = 0, events: Collection[str] | None = None, person: str | None = None
    ) -> Iterator[Entry]:
        return (
            entry
            for entry in self.log
            if entry.sequence > after
            and (events is None or entry.event in events)
            and (person is None or entry.person == person)
        )

    def last_entry(self) -> Entry | None:
        return self.log[-1] if self.log else None

    def size(self) -> int:
        people = sum(len(row.sealed) for row in self.everybody.values())
        return people + sum(len(row.sealed) for row in self.vectors.values())

    def check(self) -> None:
        """There is no disk that could have damaged anything."""

    def write_header(self, header: Header) -> None:
        self.kept = header

    def put_person(self, row: PersonRow) -> int:
        if any((row.id == p.id or row.tag == p.tag) and row.number != p.number for p in self.everybody.values()):
            raise ValueError(f"id or tag of {row.number} is somebody else's")
        self.last_person += not row.number
        number = row.number or self.last_person
        self.everybody[number] = row._replace(number=number)
        return number

    def reseal_people(self, rows: Iterable[PersonRow]) -> None:
        self.everybody |= {row.number: row for row in rows}

    def delete_person(self, number: int) -> None:
        del self.everybody[number]

    def add_templates(self, rows: Iterable[TemplateRow]) -> None:
        for row in rows:
            self.vectors[row.number] = row
            self.last_template = max(self.last_template, row.number)

    def reseal_templates(self, rows: Iterable[TemplateRow]) -> None:
        self.vectors |= {row.number: row for row in rows}

    def delete_templates(self, numbers: Collection[int]) -> None:
        for number in numbers:
            del self.vectors[number]

    def append(self, entry: Entry) -> None:
        self.log.append(entry)


class MemoryStorage:
    """A `Storage`. Writers change a copy, which takes the place of what there was when they are done."""

    name, remains = "memory", ""

    def __init__(self) -> None:
        self._rows: MemoryRows | None = None
        self._open = False
        self._reading, self._writing = RLock(), RLock()

    def exists(self) -> bool:
        return self._rows is not None

    def check_free(self) -> None:
        if self.exists():
            raise Conflict("there is a gallery in memory already")

    def create(self, contents: Contents) -> None:
        self.check_free()
        self._rows = MemoryRows(
            kept=contents.header,
            log=list(contents.entries),
            everybody={row.number: row for row in contents.people},
            vectors={row.number: row for row in contents.templates},
            last_person=contents.numbers.people,
            last_template=contents.numbers.templates,
        )

    def destroy(self, head: str) -> None:
        check_unused(self._rows, head, self.name)
        self._rows = None

    def open(self) -> None:
        if self._rows is None:
            raise NotFound("no gallery in memory")
        if self._open:
            raise Conflict("the gallery in memory is open already")
        self._open = True

    def check_open(self) -> None:
        if not self._open:
            raise Unavailable("the gallery in memory was closed")

    @contextmanager
    def reading(self) -> Iterator[MemoryRows]:
        with self._reading:
            yield self._there()  # never changed in place

    @contextmanager
    def writing(self) -> Iterator[MemoryRows]:
        with self._writing:
            before = self._there()
            after = replace(
                before, log=copy(before.log), everybody=copy(before.everybody), vectors=copy(before.vectors)
            )
            yield after
            self._rows = after

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._reading, self._writing:
            yield

    def _there(self) -> MemoryRows:
        self.check_open()
        assert self._rows is not None
        return self._rows

    def scrub(self, traces: Sequence[bytes] | None = None) -> None:  # noqa: ARG002
        with self.writing() as rows:
            rows.kept = replace(rows.kept, owed=False)

    def backup(self, target: Path) -> None:
        raise Unsupported(f"what is in memory is not copied to {target}")

    def close(self) -> None:
        self._open = False
