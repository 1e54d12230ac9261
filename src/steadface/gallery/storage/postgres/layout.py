"""The tables of a gallery in PostgreSQL, how they are made, and whether what is there is that.

Columns and constraints are written as PostgreSQL writes them back, so that both can be compared line by line. What
would run code of somebody else when a row is written or read (triggers, rules, checks, expressions, views in place of
tables), leave rows out (policies), show others among them (tables that inherit) or lose them in a crash (tables that
are not logged) is refused; further indexes of columns may be there.

Legible text is ASCII and compared byte by byte, whatever the collation of the database. Sealed rows cannot be
compressed, and stay in their page. A row that is deleted is cleared from its page by the next run of autovacuum.

Tables of an earlier layout are brought forward when their owner asks for it, never by whoever comes first: those who
still run an earlier version are refused from that moment on, and indexes of many rows take their time.
"""

from collections import defaultdict
from typing import Any

import psycopg

from steadface.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported, quoted
from steadface.gallery.storage import LONGEST, MODEL, RESTORE, damaged
from steadface.gallery.storage.postgres.refusals import FORBIDDEN

VERSION = 2
"""Of the layout. The second has a person's templates in the order of their numbers: where PostgreSQL has no statistics
yet, as behind a copy, it went through the numbers of all templates to find those of one person.
"""
STEPS = {
    1: (
        "CREATE INDEX templates_in_order ON templates USING btree (person, number)",
        "DROP INDEX IF EXISTS templates_of_person",  # only now: readers wait from here on
        "ALTER INDEX templates_in_order RENAME TO templates_of_person",
    ),
}
"""What makes the tables of a layout those of the next one."""
OLDEST_SERVER = 130000
"""As PostgreSQL counts its versions."""

TABLES: dict[str, tuple[str, ...]] = {
    "gallery": (
        "layout integer NOT NULL",
        'id character varying(200) COLLATE "C" NOT NULL',
        'created character varying(200) COLLATE "C" NOT NULL',
        'model text COLLATE "C" NOT NULL',
        'key character varying(200) COLLATE "C" NOT NULL',
        "secret bytea NOT NULL",
        "owed boolean NOT NULL",
        f"CHECK ((octet_length(model) <= {MODEL}))",
        f"CHECK ((octet_length(secret) <= {LONGEST}))",
    ),
    "numbers": ("people bigint NOT NULL", "templates bigint NOT NULL"),
    "people": (
        "number bigint NOT NULL",
        'id character varying(200) COLLATE "C" NOT NULL',
        "tag bytea NOT NULL",
        'created character varying(200) COLLATE "C" NOT NULL',
        'expires character varying(200) COLLATE "C"',
        "sealed bytea NOT NULL",
        "PRIMARY KEY (number)",
        "UNIQUE (id)",
        "UNIQUE (tag)",
        f"CHECK ((octet_length(sealed) <= {LONGEST}))",
    ),
    "templates": (
        "number bigint NOT NULL",
        "person bigint NOT NULL",
        "sealed bytea NOT NULL",
        "PRIMARY KEY (number)",
        "FOREIGN KEY (person) REFERENCES people(number)",
        f"CHECK ((octet_length(sealed) <= {LONGEST}))",
    ),
    "journal": (
        "sequence bigint NOT NULL",
        '"time" character varying(200) COLLATE "C" NOT NULL',
        'event character varying(200) COLLATE "C" NOT NULL',
        'person character varying(200) COLLATE "C"',
        'details text COLLATE "C" NOT NULL',
        "previous bytea NOT NULL",
        "hash bytea NOT NULL",
        "PRIMARY KEY (sequence)",
        f"CHECK ((octet_length(details) <= {LONGEST}))",
        "CHECK ((octet_length(previous) = 32))",
        "CHECK ((octet_length(hash) = 32))",
    ),
}
EXPIRING = "CREATE INDEX people_expiring ON people USING btree (expires) WHERE (expires IS NOT NULL)"
OTHERS = (
    EXPIRING,
    "CREATE INDEX templates_of_person ON templates USING btree (person, number)",
    "CREATE INDEX journal_of_person ON journal USING btree (person, sequence)",
    *(f"ALTER TABLE {table} ALTER sealed SET STORAGE EXTERNAL" for table in ("people", "templates")),
    *(
        f"ALTER TABLE {table} SET (toast_tuple_target = 8160, autovacuum_vacuum_threshold = 0, "
        "autovacuum_vacuum_scale_factor = 0)"
        for table in ("people", "templates")
    ),
    f"REVOKE ALL ON {', '.join(TABLES)} FROM PUBLIC",
)
STATEMENTS = (*(f"CREATE TABLE {name} ({', '.join(lines)})" for name, lines in TABLES.items()), *OTHERS)

IS_TABLE = "is r p"
"""An ordinary table that is logged."""
EXPECTED = {name: {*lines, IS_TABLE} for name, lines in TABLES.items()}
EXPECTED["people"].add(EXPIRING)
EARLIER = {1: EXPECTED}
"""Of earlier layouts: the first differs in an index of columns alone."""

_FACTS = """
WITH ours AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, c.relpersistence, c.relrowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY(%(tables)s)
)
SELECT name, 'is ' || relkind::text || ' ' || relpersistence::text
    || CASE WHEN relrowsecurity THEN ' under policies' ELSE '' END FROM ours
UNION ALL SELECT name, quote_ident(attname) || ' ' || format_type(atttypid, atttypmod)
    || coalesce(' COLLATE ' || quote_ident(collname), '') || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
    || CASE WHEN atthasdef OR attidentity::text <> '' THEN ' DEFAULT' ELSE '' END
    FROM ours JOIN pg_attribute ON attrelid = ours.oid
    LEFT JOIN pg_collation k ON k.oid = attcollation AND k.collname <> 'default'
    WHERE attnum > 0 AND NOT attisdropped
UNION ALL SELECT name, pg_get_constraintdef(k.oid)
    FROM ours JOIN pg_constraint k ON conrelid = ours.oid WHERE contype <> 'n'
UNION ALL SELECT name, replace(pg_get_indexdef(indexrelid), quote_ident(%(schema)s) || '.', '')
    FROM ours JOIN pg_index ON indrelid = ours.oid WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
UNION ALL SELECT name, 'trigger ' || tgname FROM ours JOIN pg_trigger ON tgrelid = ours.oid WHERE NOT tgisinternal
UNION ALL SELECT name, 'rule ' || rulename FROM ours JOIN pg_rewrite ON ev_class = ours.oid WHERE relkind = 'r'
UNION ALL SELECT name, 'inheritance' FROM ours JOIN pg_inherits ON ours.oid IN (inhparent, inhrelid)
"""


def tables_there(connection: "psycopg.Connection[Any]", schema: str) -> dict[str, set[str]]:
    """What there is of the names of a gallery's tables in a schema, and what PostgreSQL tells of each."""
    there: dict[str, set[str]] = defaultdict(set)
    for table, fact in connection.execute(_FACTS, {"schema": schema, "tables": list(TABLES)}):
        there[table].add(fact)
    return there


def schema_there(connection: "psycopg.Connection[Any]", schema: str) -> bool:
    found = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,))
    return found.fetchone() is not None


def check_free(connection: "psycopg.Connection[Any]", schema: str, name: str) -> None:
    """Raises `Conflict` where a table has one of the names."""
    if there := tables_there(connection, schema):
        what = "a gallery" if there.keys() == TABLES.keys() else f"a table {min(there)}"
        raise Conflict(
            f"there is {what} at {name} already; name another schema with ?schema=NAME, or another database, or move "
            "it away first"
        )


def make_tables(connection: "psycopg.Connection[Any]") -> None:
    """In the schema that is first in the search path."""
    for statement in STATEMENTS:
        connection.execute(statement)


def check_layout(connection: "psycopg.Connection[Any]", schema: str, name: str) -> None:
    """Raises as `layout_there` and `check_version` do."""
    check_version(layout_there(connection, schema, name), name)


def check_version(layout: int, name: str) -> None:
    """Raises `Unsupported` where that is not ours."""
    if layout > VERSION:
        raise Unsupported(
            f"the gallery {name} was made by a newer Steadface (layout {layout}, and this one knows {VERSION}); "
            "upgrade Steadface"
        )
    if layout < VERSION:
        raise Unsupported(
            f"the gallery {name} was made by an earlier Steadface (layout {layout}, and this one uses {VERSION}); "
            "bring it forward with `steadface gallery migrate`, as the role that made it, once everybody who uses it "
            "has this version"
        )


def bring_forward(connection: "psycopg.Connection[Any]", schema: str, name: str) -> int:
    """Makes the tables of an earlier layout those of this one, in a transaction at the writers' lock; the layout that
    they had. Raises as `layout_there` does, `Unsupported` for a newer one, and `Unavailable` for a role that does not
    own them.
    """
    layout = layout_there(connection, schema, name)
    if layout >= VERSION:
        check_version(layout, name)
        return layout
    check_owned(connection, name)
    for each in range(layout, VERSION):
        for statement in STEPS[each]:
            connection.execute(statement)
    connection.execute("UPDATE gallery SET layout = %s", (VERSION,))
    check_layout(connection, schema, name)
    return layout


def check_owned(connection: "psycopg.Connection[Any]", name: str) -> None:
    """Raises `Unavailable` where a table is not this role's."""
    others = connection.execute(
        "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = ANY(%s::regclass[]) "
        "AND NOT pg_has_role(relowner, 'USAGE')",
        (list(TABLES),),
    ).fetchall()
    if others:
        raise Unavailable(
            f"the tables of the gallery {name} belong to the role {quoted(others[0][0])}, which alone may bring them "
            "forward: connect as that one for this (nothing was changed)"
        )


def layout_there(connection: "psycopg.Connection[Any]", schema: str, name: str) -> int:
    """Which layout the tables have. Raises `NotFound` where there is no gallery, and `InvalidInput` where the tables
    are not those of a gallery; of a newer layout nobody knows what they are.
    """
    there = tables_there(connection, schema)
    if "gallery" not in there:
        raise NotFound(f"no gallery at {name}; check the address, or make one with `steadface gallery create`")
    if connection.execute("SELECT WHERE has_schema_privilege(%s, 'USAGE')", (schema,)).fetchone() is None:
        raise Unavailable(
            f"the gallery {name} {FORBIDDEN}"
        )  # its tables cannot be named, and would not seem to be there
    readable = {TABLES["gallery"][0], IS_TABLE} <= there["gallery"]
    layout = _noted(connection, name) if readable else VERSION
    expected = EARLIER.get(layout, EXPECTED)
    if there != expected and layout <= VERSION:
        raise InvalidInput(
            f"{name} is no gallery of Steadface, or its tables were changed by other means: "
            f"{_difference(there, expected)}; nothing was done with it: check the address, or {RESTORE}"
        )
    return layout


def check_server(connection: "psycopg.Connection[Any]", name: str) -> None:
    if (version := connection.info.server_version) < OLDEST_SERVER:
        raise Unsupported(
            f"the server of {name} is PostgreSQL {version // 10000}; a gallery needs {OLDEST_SERVER // 10000} or later"
        )


def _noted(connection: "psycopg.Connection[Any]", name: str) -> int:
    found = connection.execute("SELECT layout FROM gallery LIMIT 1").fetchone()
    layout = VERSION if found is None else int(found[0])
    if layout < 1:
        raise damaged(name, f"there is no layout {layout}")
    return layout


def _difference(there: dict[str, set[str]], expected: dict[str, set[str]]) -> str:
    for table, facts in expected.items():
        if table not in there:
            return f"it lacks the table {table}"
        if more := there[table] - facts:
            return f"the table {table} has {quoted(min(more))}, which no gallery's has"
        if less := facts - there[table]:
            return f"the table {table} lacks {quoted(min(less))}"
    raise AssertionError("there is none")
