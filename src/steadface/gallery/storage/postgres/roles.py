"""Who may do what with a gallery's tables: a role reads and writes people and templates, and only adds to the log."""

from steadface.errors import Conflict, NotFound, quoted
from steadface.gallery.storage.postgres.address import identifier
from steadface.gallery.storage.postgres.layout import TABLES
from steadface.gallery.storage.postgres.rows import Rows

ALTERING = ("UPDATE", "DELETE", "TRUNCATE")

_POWER = """
SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = %(role)s)
    OR bool_or(pg_has_role(%(role)s, c.relowner, 'USAGE')),
    bool_or(has_table_privilege(%(role)s, c.oid, %(altering)s))
FROM pg_class c WHERE c.oid = 'journal'::regclass
"""


def grants(schema: str, role: str, *, read_only: bool) -> list[str]:
    """SQL that gives a role these rights on the tables of a gallery, and takes all others."""
    to, tables = identifier(role), [f"{identifier(schema)}.{table}" for table in TABLES]
    gallery, numbers, people, templates, journal = tables
    reading = [
        f"GRANT USAGE ON SCHEMA {identifier(schema)} TO {to}",
        f"REVOKE ALL ON {', '.join(tables)} FROM {to}",
        f"GRANT SELECT ON {', '.join(tables)} TO {to}",
    ]
    writing = [
        f"GRANT UPDATE ON {gallery}, {numbers} TO {to}",
        f"GRANT INSERT, UPDATE, DELETE ON {people}, {templates} TO {to}",
        f"GRANT INSERT ON {journal} TO {to}",
    ]
    return reading if read_only else reading + writing


def grant(rows: Rows, schema: str, role: str, *, read_only: bool) -> None:
    """Raises `NotFound` where there is no such role, and `Conflict` for one that could alter the log all the same."""
    if rows.connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        raise NotFound(
            f"the server has no role {quoted(role)}; make it first (CREATE ROLE {identifier(role)} LOGIN), or name "
            "another"
        )
    for statement in grants(schema, role, read_only=read_only):
        rows.connection.execute(statement)
    words = {"role": role, "altering": ", ".join(ALTERING)}
    ((owns, alters),) = rows.connection.execute(_POWER, words).fetchall()
    if owns or alters:
        why = "is a superuser, or owns the tables" if owns else "may do it as a member of another role, or as everybody"
        raise Conflict(f"the role {quoted(role)} could alter the log whatever it is granted: it {why}; name another")
