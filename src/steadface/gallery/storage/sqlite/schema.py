"""Whether a file has the tables of a gallery and nothing besides.

SQL that stands in a file runs when the file is used: triggers, views in place of tables, expressions of indexes, checks
and generated columns. None of it is authenticated, so nothing is read from a file or written into it before all that
SQLite's own list of tables tells has been compared with what a gallery has.

The list is asked for by its first name, `sqlite_master`: a planted table or view may be called `sqlite_schema`.
"""

import re
import sqlite3

from steadface.errors import InvalidInput, quoted
from steadface.gallery.storage import RESTORE
from steadface.gallery.storage.sqlite.rows import SCHEMA

MADE_BY_SQLITE = {
    ("table", "sqlite_sequence"): "CREATE TABLE sqlite_sequence(name,seq)",
    ("index", "sqlite_autoindex_people_1"): None,
    ("index", "sqlite_autoindex_people_2"): None,
}
"""For AUTOINCREMENT, and for what is UNIQUE."""

LISTED = "SELECT type, name, sql, rootpage FROM main.sqlite_master LIMIT 20"
"""More than a gallery has: nobody makes this long."""

Objects = dict[tuple[str, str], str | None]
"""SQL, with single spaces, by type and name."""


def check_schema(connection: sqlite3.Connection, name: str) -> None:
    """Raises `InvalidInput` where tables, indexes, triggers or views of the gallery `name` are not those of a gallery,
    or two of them lie in one place. Within a transaction it holds for all of that.
    """
    rows = connection.execute(LISTED).fetchall()
    there: Objects = {(kind, called): _spaced(sql) for kind, called, sql, _ in rows}
    if there == EXPECTED and len({page for *_, page in rows if page > 1}) == len(rows) == len(EXPECTED):
        return
    raise InvalidInput(
        f"the gallery {name} was changed by other means: {_difference(there)}; nothing was done with it: {RESTORE}"
    )


def _difference(there: Objects) -> str:
    for kind, called in there.keys() - EXPECTED.keys():
        return f"it has the {quoted(kind)} {quoted(called)}, which no gallery has"
    for kind, called in EXPECTED.keys() - there.keys():
        return f"it lacks the {kind} {called}"
    for (kind, called), sql in EXPECTED.items():
        if there[kind, called] != sql:
            return f"the {kind} {called} is not as a gallery has it"
    return "a table or index is listed twice, or two of them lie in one place"


def _spaced(sql: object) -> str | None:
    return None if sql is None else " ".join(str(sql).split())


def _declared() -> Objects:
    """What `SCHEMA` makes."""
    statements = [" ".join(statement.split()) for statement in SCHEMA.split(";")]
    parts = ((re.match(r"CREATE (TABLE|INDEX) (\w+)", statement), statement) for statement in statements)
    return {(found[1].lower(), found[2]): statement for found, statement in parts if found}


EXPECTED: Objects = _declared() | MADE_BY_SQLITE
