"""The tables of a gallery in SQLite, and its rows within a transaction."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from steadface.errors import InvalidInput
from steadface.gallery.storage import Entry, Header, ModelIdentity, PersonRow, TemplateRow

RESTORE = "restore a backup (`steadface gallery backup` makes them)"

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
PEOPLE = """
SELECT number, id, tag, created, expires, sealed, (SELECT count(*) FROM templates WHERE person = people.number)
FROM people
"""
TEMPLATES = """
SELECT templates.number, templates.person, people.id, templates.sealed
FROM templates LEFT JOIN people ON people.number = templates.person
"""
ENTRIES = "SELECT sequence, time, event, person, details, previous, hash FROM journal"

Condition = tuple[str, Any]
"""SQL with one question mark, and what stands for it; None: nothing is asked."""


class Rows:
    """A `Transaction` on `connection`, which is in one of SQLite's, and knows the gallery as `name`."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.connection, self._name = connection, name

    def header(self) -> Header:
        row = self.connection.execute("SELECT id, created, model, key, secret, owed FROM gallery").fetchone()
        if row is None:
            raise InvalidInput(f"the gallery {self._name} is damaged, its header is missing: {RESTORE}")
        identity, created, model, key, secret, owed = row
        return Header(
            id=identity,
            created=created,
            model=ModelIdentity(**json.loads(model)),
            key=key,
            secret=secret,
            owed=bool(owed),
        )

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
            ("number > ?", after or None),
            ("tag = ?", tag),
            ("id IN (SELECT value FROM json_each(?))", _listed(ids)),
            ("number IN (SELECT value FROM json_each(?))", _listed(numbers)),
            ("expires <= ?", expired_by),
        )
        return map(PersonRow._make, rows)

    def count_people(self, *, expired_by: str | None = None) -> int:
        condition = "" if expired_by is None else "WHERE expires <= ?"  # by their index: not a look at everybody
        words = () if expired_by is None else (expired_by,)
        return int(self._one(f"SELECT count(*) FROM people {condition}", *words))

    def next_expiry(self, after: str) -> str | None:
        later: str | None = self._one("SELECT min(expires) FROM people WHERE expires > ?", after)
        return later

    def templates(self, *, after: int = 0, person: int | None = None) -> Iterator[TemplateRow]:
        rows = self._selected(
            TEMPLATES, "templates.number", ("templates.number > ?", after or None), ("templates.person = ?", person)
        )
        return map(TemplateRow._make, rows)

    def count_templates(self) -> int:
        return int(self._one("SELECT count(*) FROM templates"))

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
        return map(_entry, rows)

    def last_entry(self) -> Entry | None:
        row = self.connection.execute(f"{ENTRIES} ORDER BY sequence DESC LIMIT 1").fetchone()
        return None if row is None else _entry(row)

    def size(self) -> int:
        return int(self._one("PRAGMA page_count")) * int(self._one("PRAGMA page_size"))

    def check(self) -> None:
        said = self._one("PRAGMA quick_check(1)")
        if said != "ok":
            raise InvalidInput(f"the gallery {self._name} is damaged ({said.splitlines()[-1]}): {RESTORE}")

    def write_header(self, header: Header) -> None:
        self.connection.execute("DELETE FROM gallery")
        self.connection.execute(
            "INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?)",
            (header.id, header.created, json.dumps(asdict(header.model)), header.key, header.secret, header.owed),
        )

    def put_person(self, row: PersonRow) -> int:
        number, *columns, _ = row
        if number:
            self.connection.execute(
                "UPDATE people SET id = ?, tag = ?, created = ?, expires = ?, sealed = ? WHERE number = ?",
                (*columns, number),
            )
            return number
        added = self.connection.execute(
            "INSERT INTO people (id, tag, created, expires, sealed) VALUES (?, ?, ?, ?, ?)", columns
        )
        assert added.lastrowid is not None
        return added.lastrowid

    def delete_person(self, number: int) -> None:
        self.connection.execute("DELETE FROM people WHERE number = ?", (number,))

    def next_template(self) -> int:
        last = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'templates'").fetchone()
        return 1 + (last[0] if last else 0)

    def add_templates(self, rows: Iterable[TemplateRow]) -> None:
        self.connection.executemany(
            "INSERT INTO templates VALUES (?, ?, ?)", ((row.number, row.person, row.sealed) for row in rows)
        )

    def reseal_templates(self, rows: Iterable[TemplateRow]) -> None:
        self.connection.executemany(
            "UPDATE templates SET sealed = ? WHERE number = ?", ((row.sealed, row.number) for row in rows)
        )

    def delete_templates(self, numbers: Collection[int]) -> None:
        self.connection.executemany("DELETE FROM templates WHERE number = ?", ((number,) for number in numbers))

    def append(self, entry: Entry) -> None:
        self.connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(vars(entry).values()))

    def _one(self, statement: str, *words: object) -> Any:
        """The only column of the only row."""
        return self.connection.execute(statement, words).fetchone()[0]

    def _selected(self, select: str, order: str, *conditions: Condition) -> sqlite3.Cursor:
        """Where all of the conditions hold that ask something."""
        asked = [(text, value) for text, value in conditions if value is not None]
        where = f" WHERE {' AND '.join(text for text, _ in asked)}" if asked else ""
        return self.connection.execute(f"{select}{where} ORDER BY {order}", [value for _, value in asked])


def _listed(values: Collection[object] | None) -> str | None:
    return None if values is None else json.dumps(list(values))


def _entry(row: tuple[Any, ...]) -> Entry:
    sequence, time, event, person, details, previous, digest = row
    return Entry(
        sequence=sequence, time=time, event=event, person=person, details=details, previous=previous, hash=digest
    )
