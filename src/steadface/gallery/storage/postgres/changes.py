"""Changes of rows in PostgreSQL, of which many, also of several tables, are made in one statement: one message to the
server. Rows come as an array for each column.
"""

from collections.abc import Sequence
from typing import Any

import psycopg

TYPES = {
    "gallery": ("integer", "varchar", "varchar", "text", "varchar", "bytea", "boolean"),
    "people": ("bigint", "varchar", "bytea", "varchar", "varchar", "bytea"),
    "templates": ("bigint", "bigint", "bytea"),
    "journal": ("bigint", "varchar", "varchar", "varchar", "text", "bytea", "bytea"),
}
"""Of the columns of each table."""


def given(*types: str) -> str:
    """Rows that come as an array for each column."""
    return f"unnest({', '.join(f'%b::{one}[]' for one in types)})"


ADDED = {table: f"INSERT INTO {table} SELECT * FROM {given(*types)}" for table, types in TYPES.items()}
HEADER = f"""
UPDATE gallery SET (id, created, model, key, secret, owed)
    = (new.id, new.created, new.model, new.key, new.secret, new.owed)
FROM {given(*TYPES["gallery"][1:])} new (id, created, model, key, secret, owed)
"""
PERSON = f"""
UPDATE people SET (id, tag, created, expires, sealed) = (new.id, new.tag, new.created, new.expires, new.sealed)
FROM {given(*TYPES["people"])} new (number, id, tag, created, expires, sealed) WHERE people.number = new.number
"""
RESEALED = {
    table: f"UPDATE {table} SET sealed = new.sealed FROM {given('bigint', 'bytea')} new (number, sealed) "
    f"WHERE {table}.number = new.number"
    for table in ("people", "templates")
}
DELETED = {
    table: f"DELETE FROM {table} USING {given('bigint')} gone (number) WHERE {table}.number = gone.number"
    for table in ("people", "templates")
}
NUMBERED = "UPDATE numbers SET (people, templates) = (new.people, new.templates) FROM " + (
    f"{given('bigint', 'bigint')} new (people, templates)"
)

Change = tuple[str, Sequence[Sequence[Any]]]
"""SQL that changes one row for each of these rows, which it takes as an array for each column."""


def made(connection: "psycopg.Connection[Any]", changes: Sequence[Change]) -> tuple[int, ...]:
    """How many rows each of them changed. They see nothing of each other; constraints are looked at behind all."""
    parts = ", ".join(f"c{n} AS ({statement} RETURNING true)" for n, (statement, _) in enumerate(changes))
    counts = ", ".join(f"(SELECT count(*) FROM c{n})" for n in range(len(changes)))
    words = [list(column) for _, rows in changes for column in zip(*rows, strict=True)]
    return connection.execute(f"WITH {parts} SELECT {counts}", words).fetchone() or ()
