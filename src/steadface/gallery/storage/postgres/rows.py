"""The rows of a gallery within a transaction of PostgreSQL's, which finds its tables by the search path.

What may be many is read a page at a time, by number: a transaction sees one state throughout, so that pages fit
together, and nothing is held here or there between them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
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
from steadface.gallery.storage.postgres.layout import TABLES, VERSION
from steadface.gallery.storage.postgres.refusals import explained
from steadface.gallery.storage.sql import PEOPLE, TEMPLATES, of_shard

ENTRIES = 'SELECT sequence, "time", event, person, details, previous, hash FROM journal'
STATE = f"""
SELECT gallery.id, created, model, key, secret, owed, last.*
FROM gallery LEFT JOIN LATERAL ({ENTRIES} ORDER BY sequence DESC LIMIT 1) last ON true LIMIT 2
"""
"""What every use of a gallery begins with: its header, and the end of its log."""
FIRST_PAGE, PAGE = 128, 8192
"""Rows: few are wanted as often as all."""

NEW_PERSON = """
WITH new AS (UPDATE numbers SET people = people + 1 RETURNING people)
INSERT INTO people SELECT people, %s, %s, %s, %s, %s FROM new RETURNING number
"""

Condition = tuple[str, Any]
"""SQL with one placeholder, and what stands for it; None: nothing is asked."""


class Rows:
    """A `Transaction` on `connection`, which is in one of PostgreSQL's, of the gallery that is known as `name`."""

    def __init__(self, connection: "psycopg.Connection[Any]", name: str) -> None:
        self.connection, self._name = connection, name
        self.appended: Entry | None = None
        """The last of this transaction."""
        self._state: tuple[Header, Entry | None] | None = None

    def header(self) -> Header:
        return self._known()[0]

    def know(self, rows: list[tuple[Any, ...]]) -> tuple[Header, Entry | None]:
        """What `STATE` selects in this transaction."""
        if len(rows) != 1:
            raise self._damaged("it has more than one header" if rows else "its header is missing")
        identity, created, model, key, secret, owed, *last = rows[0]
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
        tag: bytes | None = None,
        ids: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        expired_by: str | None = None,
    ) -> Iterator[PersonRow]:
        rows = self._selected(
            PEOPLE,
            "number",
            after,
            ("tag = %s", tag),
            ("id = ANY(%s)", None if ids is None else [one for one in ids if _writable(one)]),
            ("number = ANY(%s::bigint[])", None if numbers is None else [one for one in numbers if one < NUMBERS]),
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
        self, *, after: int = 0, person: int | None = None, shard: Shard | None = None
    ) -> Iterator[TemplateRow]:
        own = ("templates.person = %s", person)
        rows = self._selected(TEMPLATES, "templates.number", after, own, of_shard(shard, asked="%s", modulo="%%"))
        return map(TemplateRow._make, rows)

    def count_templates(self) -> int:
        return int(self._one("SELECT count(*) FROM templates"))

    def numbers(self) -> Numbers:
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
        self._change(
            "UPDATE gallery SET id = %s, created = %s, model = %s, key = %s, secret = %s, owed = %s", [_columns(header)]
        )
        self._state = header, self._known()[1]

    def put_person(self, row: PersonRow) -> int:
        number, *columns, _ = row
        if number:
            self._change(
                "UPDATE people SET id = %s, tag = %s, created = %s, expires = %s, sealed = %s WHERE number = %s",
                [(*columns, number)],
            )
            return number
        return int(self._change(NEW_PERSON, [columns])[0])

    def delete_person(self, number: int) -> None:
        self._change("DELETE FROM people WHERE number = %s", [(number,)])

    def add_templates(self, rows: Iterable[TemplateRow]) -> None:
        last = self._copied("templates", "int8 int8 bytea", ((row.number, row.person, row.sealed) for row in rows))
        self._change("UPDATE numbers SET templates = greatest(templates, %s)", [(last,)])

    def reseal_templates(self, rows: Iterable[TemplateRow]) -> None:
        self._change("UPDATE templates SET sealed = %s WHERE number = %s", [(row.sealed, row.number) for row in rows])

    def delete_templates(self, numbers: Collection[int]) -> None:
        self._change("DELETE FROM templates WHERE number = %s", [(number,) for number in numbers])

    def append(self, entry: Entry) -> None:
        self._change("INSERT INTO journal VALUES (%s, %s, %s, %s, %s, %s, %s)", [tuple(vars(entry).values())])
        self._state, self.appended = (self._known()[0], entry), entry

    def fill(self, contents: Contents) -> None:
        """All of it, into tables that are empty."""
        self._change("INSERT INTO gallery VALUES (%s, %s, %s, %s, %s, %s, %s)", [(VERSION, *_columns(contents.header))])
        self._change("INSERT INTO numbers VALUES (%s, %s)", [tuple(contents.numbers)])
        self._copied("people", "int8 varchar bytea varchar varchar bytea", (row[:-1] for row in contents.people))
        self.add_templates(contents.templates)
        self._copied("journal", "int8 varchar varchar varchar text bytea bytea", map(self._logged, contents.entries))

    def _logged(self, entry: Entry) -> tuple[Any, ...]:
        self.appended = entry
        return tuple(vars(entry).values())

    def _copied(self, table: str, kinds: str, rows: Iterable[Sequence[Any]]) -> int:
        """Adds rows, as fast as PostgreSQL takes them; the first column of the last, or 0."""
        last = 0
        try:
            statement = f"COPY {table} FROM STDIN (FORMAT BINARY)"
            with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(kinds.split())
                for row in rows:
                    copy.write_row(row)
                    last = row[0]
        except psycopg.IntegrityError as error:
            raise self._damaged(_said(error)) from error
        return last

    def _change(self, statement: str, words: Sequence[Sequence[object]]) -> tuple[Any, ...]:
        """One row for each of `words`; what is returned of an only one. Raises `InvalidInput` where it is another
        number of rows that changes, or none may: what is there is not what it has to be.
        """
        with self.connection.cursor() as cursor:
            try:
                if len(words) == 1:
                    cursor.execute(statement, words[0])
                elif words:
                    cursor.executemany(statement, words)
            except psycopg.IntegrityError as error:
                raise self._damaged(_said(error)) from error
            if words and cursor.rowcount != len(words):
                raise self._damaged(f"{cursor.rowcount} rows were changed in place of {len(words)}")
            return (cursor.fetchone() or ()) if cursor.description else ()

    def _damaged(self, what: str) -> Exception:
        return damaged(self._name, what)

    def _execute(self, statement: str, words: Sequence[object] = ()) -> "psycopg.Cursor[Any]":
        with explained(self._name):  # here, since rows of one gallery may be asked for while another one is written
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


def _writable(text: str) -> bool:
    """Whether PostgreSQL has such text at all; if not, nothing there is equal to it."""
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _said(error: psycopg.Error) -> str:
    """PostgreSQL's words without the values that it names."""
    return error.diag.message_primary or type(error).__name__
