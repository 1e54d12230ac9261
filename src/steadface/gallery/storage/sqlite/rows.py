"""The tables of a gallery in SQLite, and its rows within a transaction."""

import itertools
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from types import UnionType
from typing import Any, TypeVar

from steadface.arguments import Shard
from steadface.errors import InvalidInput
from steadface.gallery.storage import (
    MODEL,
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
from steadface.gallery.storage.sql import PEOPLE, TEMPLATES, of_shard

Row = TypeVar("Row", bound=tuple[Any, ...])

VERSION = 2
"""Of the layout. The second has the header of a gallery sealed; the first is opened, and made the second when it is
written into.
"""

SCHEMA = """
CREATE TABLE gallery (
    id TEXT NOT NULL,
    created TEXT NOT NULL,
    model TEXT NOT NULL,
    key TEXT NOT NULL,
    secret BLOB NOT NULL,
    owed INTEGER NOT NULL
) STRICT;
CREATE TABLE people (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tag BLOB NOT NULL UNIQUE,
    created TEXT NOT NULL,
    expires TEXT,
    sealed BLOB NOT NULL
) STRICT;
CREATE TABLE templates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people (number),
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX templates_of_person ON templates (person);
CREATE INDEX people_expiring ON people (expires) WHERE expires IS NOT NULL;

CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    event TEXT NOT NULL,
    person TEXT,
    details TEXT NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
"""
ENTRIES = "SELECT sequence, time, event, person, details, previous, hash FROM journal"

Kinds = tuple[type | UnionType, ...]
HEADER: Kinds = (str, str, str, str, bytes, int)
PERSON: Kinds = (int, str, bytes, str, str | None, bytes, int)
TEMPLATE: Kinds = (int, int, str | None, bytes)
ENTRY: Kinds = (int, str, str, str | None, str, bytes, bytes)
"""Of the columns as they are asked for."""

Condition = tuple[Any, ...]
"""SQL with question marks, and what stands for each; None: nothing is asked."""


class Rows:
    """A `Transaction` on `connection`, which is in one of SQLite's, and knows the gallery as `name`."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.connection, self._name = connection, name

    def header(self) -> Header:
        rows = self.connection.execute(
            "SELECT id, created, substr(model, 1, ?), key, secret, owed FROM gallery LIMIT 2", (MODEL + 1,)
        ).fetchall()
        if len(rows) != 1:
            raise self._damaged("it has more than one header" if rows else "its header is missing")
        identity, created, model, key, secret, owed = self._typed(rows[0], HEADER)
        return Header(
            id=identity,
            created=created,
            model=read_model(model, self._name),
            key=key,
            secret=secret,
            owed=bool(owed),
        )

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
            ("number > ?", after or None),
            (f"tag IN ({', '.join('?' * len(tags or ()))})", *([None] if tags is None else tags)),
            ("id IN (SELECT value FROM json_each(?))", _listed(ids)),
            ("number IN (SELECT value FROM json_each(?))", _listed(numbers)),
            ("expires <= ?", expired_by),
        )
        return map(PersonRow._make, self._ascending(rows, PERSON))

    def count_people(self, *, expired_by: str | None = None) -> int:
        condition = "" if expired_by is None else "WHERE expires <= ?"  # by their index: not a look at everybody
        words = () if expired_by is None else (expired_by,)
        return int(self._one(f"SELECT count(*) FROM people {condition}", *words))

    def next_expiry(self, after: str) -> str | None:
        later: str | None = self._one("SELECT min(expires) FROM people WHERE expires > ?", after)
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
            ("templates.number > ?", after or None),
            ("templates.person = ?", person),
            ("templates.number IN (SELECT value FROM json_each(?))", _listed(numbers)),
            of_shard(shard, asked="?"),
        )
        return map(TemplateRow._make, self._ascending(rows, TEMPLATE))

    def count_templates(self) -> int:
        return int(self._one("SELECT count(*) FROM templates"))

    def numbers(self) -> Numbers:
        return Numbers(self._last("people"), self._last("templates"))

    def entries(
        self, *, after: int = 0, events: Collection[str] | None = None, person: str | None = None
    ) -> Iterator[Entry]:
        rows = self._selected(
            ENTRIES,
            "sequence",
            ("sequence > ?", after or None),
            ("event IN (SELECT value FROM json_each(?))", _listed(events)),
            ("person = ?", person),
        )
        return map(Entry.of, self._ascending(rows, ENTRY))

    def last_entry(self) -> Entry | None:
        row = self.connection.execute(f"{ENTRIES} ORDER BY sequence DESC LIMIT 1").fetchone()
        return None if row is None else Entry.of(self._typed(row, ENTRY))

    def size(self) -> int:
        return int(self._one("PRAGMA page_count")) * int(self._one("PRAGMA page_size"))

    def check(self) -> None:
        said = self._one("PRAGMA integrity_check(1)")
        if said != "ok":
            raise self._damaged(said.splitlines()[-1])
        self.numbers()

    def write_header(self, header: Header) -> None:
        model = written_model(header.model)
        self.connection.execute("DELETE FROM gallery")
        self.connection.execute(
            "INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?)",
            (header.id, header.created, model, header.key, header.secret, header.owed),
        )
        if self._one("PRAGMA user_version") < VERSION:
            self.connection.execute(f"PRAGMA user_version = {VERSION}")

    def put_person(self, row: PersonRow) -> int:
        number, *columns, _ = row
        if number:
            self._change(
                "UPDATE people SET id = ?, tag = ?, created = ?, expires = ?, sealed = ? WHERE number = ?",
                [(*columns, number)],
            )
            return number
        number = self._last("people") + 1
        self._add_people([row._replace(number=number)])
        return number

    def _add_people(self, rows: Iterable[PersonRow]) -> None:
        self._change("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?)", (row[:-1] for row in rows))

    def delete_person(self, number: int) -> None:
        self._change("DELETE FROM people WHERE number = ?", [(number,)])

    def add_templates(self, rows: Iterable[TemplateRow]) -> None:
        self._change("INSERT INTO templates VALUES (?, ?, ?)", ((row.number, row.person, row.sealed) for row in rows))

    def reseal_templates(self, rows: Iterable[TemplateRow]) -> None:
        self._reseal("templates", rows)

    def reseal_people(self, rows: Iterable[PersonRow]) -> None:
        self._reseal("people", rows)

    def _reseal(self, table: str, rows: Iterable[PersonRow] | Iterable[TemplateRow]) -> None:
        self._change(f"UPDATE {table} SET sealed = ? WHERE number = ?", ((row.sealed, row.number) for row in rows))

    def delete_templates(self, numbers: Collection[int]) -> None:
        self._change("DELETE FROM templates WHERE number = ?", ((number,) for number in numbers))

    def append(self, entry: Entry) -> None:
        self._append([entry])

    def _append(self, entries: Iterable[Entry]) -> None:
        self._change("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", (tuple(vars(one).values()) for one in entries))

    def fill(self, contents: Contents) -> None:
        """All of it, into tables that are empty."""
        self.write_header(contents.header)
        self._add_people(contents.people)
        self.add_templates(contents.templates)
        self._append(contents.entries)
        self.connection.execute("DELETE FROM sqlite_sequence")
        kept = contents.numbers._asdict().items()
        self.connection.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", [one for one in kept if one[1]])

    def _change(self, statement: str, words: Iterable[tuple[object, ...]]) -> None:
        """One row for each of `words`. Raises `InvalidInput` where it is another number of rows that changes, or none
        may: what is there is not what it has to be.
        """
        count = itertools.count()
        try:
            changed = self.connection.executemany(
                statement, (one for one, _ in zip(words, count, strict=False))
            ).rowcount
        except sqlite3.IntegrityError as error:
            raise self._damaged(str(error)) from error
        expected = next(count)
        if expected and changed != expected:
            raise self._damaged(f"{changed} rows were changed in place of {expected}")

    def _last(self, table: str) -> int:
        """The highest number that a row ever had. Raises `InvalidInput` where what keeps count is damaged."""
        last = self._one(f"SELECT coalesce(max(number), 0) FROM {table}")
        noted = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ? LIMIT 2", (table,)).fetchall()
        counts = [count for (count,) in noted]
        if len(counts) > 1 or not all(isinstance(count, int) and last <= count < NUMBERS for count in counts):
            raise self._damaged(f"the numbering of {table} was changed")
        return int(max([last, *counts]))

    def _ascending(self, rows: Iterable[Row], kinds: Kinds) -> Iterator[Row]:
        """Rows by their first column. Raises `InvalidInput` where a number comes twice: pages of a file may be made to
        lead to each other, and would never end.
        """
        last = 0
        for row in rows:
            self._typed(row, kinds)
            if row[0] <= last:
                raise self._damaged(f"row {last} is followed by row {row[0]}")
            last = row[0]
            yield row

    def _typed(self, row: Row, kinds: Kinds) -> Row:
        """The same. Raises `InvalidInput` for other types: SQLite looks at them when it writes, not when it reads."""
        if not all(map(isinstance, row, kinds)):
            raise self._damaged("a value is of another type")
        return row

    def _damaged(self, what: str) -> InvalidInput:
        return damaged(self._name, what)

    def _one(self, statement: str, *words: object) -> Any:
        """The only column of the only row."""
        return self.connection.execute(statement, words).fetchone()[0]

    def _selected(self, select: str, order: str, *conditions: Condition) -> sqlite3.Cursor:
        """Where all of the conditions hold that ask something."""
        asked = [(text, some) for text, *some in conditions if None not in some]
        where = f" WHERE {' AND '.join(text for text, _ in asked)}" if asked else ""
        words = [one for _, some in asked for one in some]
        return self.connection.execute(f"{select}{where} ORDER BY {order}", words)


def _listed(values: Collection[object] | None) -> str | None:
    return None if values is None else json.dumps(list(values))
