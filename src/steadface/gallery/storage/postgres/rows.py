"""The rows of a gallery within a transaction of PostgreSQL's, which finds its tables by the search path.

What may be many is read a page at a time, by number: a transaction sees one state throughout, so that pages fit
together, and nothing is held here or there between them.

What a transaction adds waits here until something is asked for or replaced, or it is about to be committed, and is then
sent in one message: a server may be far away. Nobody else adds meanwhile, so that numbers are known after one look.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import psycopg

from steadface.arguments import Shard
from steadface.gallery.storage import (
    NUMBERS,
    Contents,
    Entry,
    Header,
    Numbers,
    PersonRow,
    TemplateRow,
    damaged,
    read_model,
    written_model,
)
from steadface.gallery.storage.postgres.changes import (
    ADDED,
    DELETED,
    HEADER,
    NUMBERED,
    PERSON,
    RESEALED,
    TYPES,
    Change,
    made,
)
from steadface.gallery.storage.postgres.layout import TABLES, VERSION, check_version
from steadface.gallery.storage.postgres.refusals import explained
from steadface.gallery.storage.sql import PEOPLE, TEMPLATES, of_shard

ENTRIES = 'SELECT sequence, "time", event, person, details, previous, hash FROM journal'
STATE = f"""
SELECT layout, gallery.id, created, model, key, secret, owed, last.*
FROM gallery LEFT JOIN LATERAL ({ENTRIES} ORDER BY sequence DESC LIMIT 1) last ON true LIMIT 2
"""
"""What every use of a gallery begins with: its header, and the end of its log."""
FIRST_PAGE, PAGE = 128, 8192
"""Rows: few are wanted as often as all."""

WAITING = 2**22
"""Bytes of sealed rows that wait, and a row."""
REPLACED = 1000
"""Rows that are sealed anew in one message."""

Condition = tuple[str, Any]
"""SQL with one placeholder, and what stands for it; None: nothing is asked."""


class Rows:
    """A `Transaction` on `connection`, which is in one of PostgreSQL's, of the gallery that is known as `name`."""

    def __init__(self, connection: "psycopg.Connection[Any]", name: str) -> None:
        self.connection, self._name = connection, name
        self.appended: Entry | None = None
        """The last of this transaction."""
        self._state: tuple[Header, Entry | None] | None = None
        self._numbers: Numbers | None = None
        self._waiting: dict[str, list[Sequence[Any]]] = {}
        """By table, rows that are added."""
        self._header: Header | None = None
        """That waits as well."""
        self._bytes = 0

    def header(self) -> Header:
        return self._known()[0]

    def know(self, rows: list[tuple[Any, ...]]) -> tuple[Header, Entry | None]:
        """What `STATE` selects in this transaction."""
        if len(rows) != 1:
            raise self._damaged("it has more than one header" if rows else "its header is missing")
        layout, identity, created, model, key, secret, owed, *last = rows[0]
        check_version(layout, self._name)  # each time: it may be brought forward while it is in use
        known = read_model(model, self._name)
        header = Header(id=identity, created=created, model=known, key=key, secret=secret, owed=owed)
        self._state = header, None if last[0] is None else Entry.of(last)
        return self._state

    def _known(self) -> tuple[Header, Entry | None]:
        return self._state or self.know(self._execute(STATE).fetchall())

    def people(
        self,
        *,
        after: int = 0,
        tags: Collection[bytes] | None = None,
        ids: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        expired_by: str | None = None,
    ) -> Iterator[PersonRow]:
        rows = self._selected(
            PEOPLE,
            "number",
            after,
            ("tag = ANY(%b::bytea[])", None if tags is None else list(tags)),
            ("id = ANY(%s)", None if ids is None else [one for one in ids if _writable(one)]),
            ("number = ANY(%s::bigint[])", _numbered(numbers)),
            ("expires <= %s", expired_by),
        )
        return map(PersonRow._make, rows)

    def count_people(self, *, expired_by: str | None = None) -> int:
        condition = "" if expired_by is None else "WHERE expires <= %s"
        return int(self._one(f"SELECT count(*) FROM people {condition}", *([] if expired_by is None else [expired_by])))

    def next_expiry(self, after: str) -> str | None:
        later: str | None = self._one("SELECT min(expires) FROM people WHERE expires > %s", after)
        return later

    def templates(
        self,
        *,
        after: int = 0,
        person: int | None = None,
        numbers: Collection[int] | None = None,
        shard: Shard | None = None,
    ) -> Iterator[TemplateRow]:
        rows = self._selected(
            TEMPLATES,
            "templates.number",
            after,
            ("templates.person = %s", person),
            ("templates.number = ANY(%s::bigint[])", _numbered(numbers)),
            of_shard(shard, asked="%s", modulo="%%"),
        )
        return map(TemplateRow._make, rows)

    def count_templates(self) -> int:
        return int(self._one("SELECT count(*) FROM templates"))

    def numbers(self) -> Numbers:
        self._numbers = self._numbers or self._noted()
        return self._numbers

    def _noted(self) -> Numbers:
        rows = self._execute(
            "SELECT people, templates, coalesce((SELECT max(number) FROM people), 0), "
            "coalesce((SELECT max(number) FROM templates), 0) FROM numbers LIMIT 2"
        ).fetchall()
        if len(rows) == 1:
            people, templates, last_person, last_template = rows[0]
            if last_person <= people < NUMBERS and last_template <= templates < NUMBERS:
                return Numbers(people, templates)
        raise self._damaged("the numbering of people and templates was changed")

    def entries(
        self, *, after: int = 0, events: Collection[str] | None = None, person: str | None = None
    ) -> Iterator[Entry]:
        if person is not None and not _writable(person):
            return iter(())
        rows = self._selected(
            ENTRIES,
            "sequence",
            after,
            ("event = ANY(%s)", None if events is None else list(events)),
            ("person = %s", person),
        )
        return map(Entry.of, rows)

    def last_entry(self) -> Entry | None:
        return self._known()[1]

    def size(self) -> int:
        """Of the tables with their indexes."""
        return int(
            self._one(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                "WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(%s)",
                list(TABLES),
            )
        )

    def check(self) -> None:
        """What keeps count; that pages are damaged is PostgreSQL's to say when rows are read."""
        self.numbers()

    def write_header(self, header: Header) -> None:
        self._header, self._state = header, (header, self._known()[1])

    def put_person(self, row: PersonRow) -> int:
        if row.number:
            self._change((PERSON, [row[:-1]]))
            return row.number
        people, templates = self.numbers()
        self._numbers = Numbers(people + 1, templates)
        self._add("people", (people + 1, *row[1:-1]), len(row.sealed))
        return people + 1

    def reseal_people(self, rows: Iterable[PersonRow]) -> None:
        self._reseal("people", ((row.number, row.sealed) for row in rows))

    def delete_person(self, number: int) -> None:
        self._change((DELETED["people"], [(number,)]))

    def add_templates(self, rows: Iterable[TemplateRow]) -> None:
        for row in rows:
            people, last = self.numbers()
            self._numbers = Numbers(people, max(last, row.number))
            self._add("templates", (row.number, row.person, row.sealed), len(row.sealed))

    def reseal_templates(self, rows: Iterable[TemplateRow]) -> None:
        self._reseal("templates", ((row.number, row.sealed) for row in rows))

    def delete_templates(self, numbers: Collection[int]) -> None:
        self._change((DELETED["templates"], [(number,) for number in numbers]))

    def append(self, entry: Entry) -> None:
        self._add("journal", tuple(vars(entry).values()), len(entry.details))
        self._state, self.appended = (self._known()[0], entry), entry

    def fill(self, contents: Contents) -> None:
        """All of it, into tables that are empty."""
        self._change((ADDED["gallery"], [(VERSION, *_columns(contents.header))]))
        people, templates = contents.numbers
        self._copied("people", (row[:-1] for row in contents.people))
        last = self._copied("templates", ((row.number, row.person, row.sealed) for row in contents.templates))
        self._copied("journal", map(self._logged, contents.entries))
        self._execute("INSERT INTO numbers VALUES (%s, %s)", (people, max(templates, last)))

    def _logged(self, entry: Entry) -> tuple[Any, ...]:
        self.appended = entry
        return tuple(vars(entry).values())

    def flush(self) -> None:
        """Sends what waits."""
        changes = [(ADDED[table], rows) for table, rows in self._waiting.items()]
        if self._numbers is not None and self._waiting.keys() & {"people", "templates"}:
            changes.append((NUMBERED, [self._numbers]))
        if self._header is not None:
            changes.append((HEADER, [_columns(self._header)]))
        self._waiting, self._header, self._bytes = {}, None, 0  # whatever comes of them: once
        self._send(changes)

    def _add(self, table: str, row: Sequence[Any], size: int) -> None:
        self._waiting.setdefault(table, []).append(row)
        self._bytes += size
        if self._bytes > WAITING:
            self.flush()

    def _reseal(self, table: str, rows: Iterator[Sequence[Any]]) -> None:
        while some := list(islice(rows, REPLACED)):
            self._change((RESEALED[table], some))

    def _change(self, change: Change) -> None:
        self.flush()
        self._send([change])

    def _copied(self, table: str, rows: Iterable[Sequence[Any]]) -> int:
        """Adds rows, as fast as PostgreSQL takes them; the first column of the last, or 0."""
        last = 0
        try:
            statement = f"COPY {table} FROM STDIN (FORMAT BINARY)"
            with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(TYPES[table])
                for row in rows:
                    copy.write_row(row)
                    last = row[0]
        except psycopg.IntegrityError as error:
            raise self._damaged(_said(error)) from error
        return last

    def _send(self, changes: Sequence[Change]) -> None:
        """Raises `InvalidInput` where another number of rows changes than is to, or none may: what is there is not what
        it has to be.
        """
        changes = [(statement, rows) for statement, rows in changes if rows]
        if not changes:
            return
        try:
            changed = made(self.connection, changes)
        except psycopg.IntegrityError as error:
            raise self._damaged(_said(error)) from error
        for count, (_, rows) in zip(changed, changes, strict=True):
            if count != len(rows):
                raise self._damaged(f"{count} rows were changed in place of {len(rows)}")

    def _damaged(self, what: str) -> Exception:
        return damaged(self._name, what)

    def _execute(self, statement: str, words: Sequence[object] = ()) -> "psycopg.Cursor[Any]":
        with explained(self._name):  # here, since rows of one gallery may be asked for while another one is written
            self.flush()
            return self.connection.execute(statement, words)

    def _one(self, statement: str, *words: object) -> Any:
        """The only column of the only row; None where there is no row."""
        row = self._execute(statement, words).fetchone()
        return None if row is None else row[0]

    def _selected(self, select: str, order: str, after: int, *conditions: Condition) -> Iterator[tuple[Any, ...]]:
        """Where all of the conditions hold that ask something, by ascending numbers behind `after`."""
        asked = [(text, value) for text, value in conditions if value is not None]
        where = " AND ".join([f"{order} > %s", *(text for text, _ in asked)])
        last, most = min(after, NUMBERS), FIRST_PAGE
        while True:
            words = [last, *(value for _, value in asked), most]
            rows = self._execute(f"{select} WHERE {where} ORDER BY {order} LIMIT %s", words).fetchall()
            yield from rows
            if len(rows) < most:
                return
            last, most = rows[-1][0], PAGE


def _columns(header: Header) -> tuple[object, ...]:
    model = written_model(header.model)
    return header.id, header.created, model, header.key, header.secret, header.owed


def _numbered(numbers: Collection[int] | None) -> list[int] | None:
    """Those that rows can have."""
    return None if numbers is None else [one for one in numbers if one < NUMBERS]


def _writable(text: str) -> bool:
    """Whether PostgreSQL has such text at all; if not, nothing there is equal to it."""
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _said(error: psycopg.Error) -> str:
    """PostgreSQL's words without the values that it names."""
    return error.diag.message_primary or type(error).__name__
