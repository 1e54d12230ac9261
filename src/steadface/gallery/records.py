"""People and their templates as rows, sealed on the way in and opened on the way out; callers hold the transaction."""

import json
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.gallery.people import Person, Vectors
from steadface.gallery.vault import Vault, stamp

PERSON = """
SELECT number, id, tag, created, expires, sealed, (SELECT count(*) FROM templates WHERE person = people.number)
FROM people
"""
BLOCK = 8192
"""Templates opened at a time, 17 MB of 512 numbers each."""


@dataclass(frozen=True, kw_only=True)
class Templates:
    """Some templates: their `numbers` (n,), the `owners` (n,), numbers of people, and `vectors` (n, D)."""

    numbers: NDArray[np.int64]
    owners: NDArray[np.int64]
    vectors: Vectors


def find_person(connection: sqlite3.Connection, vault: Vault, name: str) -> Person | None:
    row = connection.execute(f"{PERSON} WHERE tag = ?", (vault.tag(name),)).fetchone()
    return None if row is None else vault.open_person(row)


def all_people(connection: sqlite3.Connection, vault: Vault) -> Iterator[Person]:
    """In the order in which they were enrolled."""
    return map(vault.open_person, connection.execute(f"{PERSON} ORDER BY number"))


def people_after(connection: sqlite3.Connection, vault: Vault, number: int, sequence: int) -> Iterator[Person]:
    """Those with higher numbers, and those who were renamed behind that entry of the log."""
    rows = connection.execute(
        f"{PERSON} WHERE number > ? OR id IN (SELECT person FROM journal WHERE sequence > ? AND event = 'rename') "
        "ORDER BY number",
        (number, sequence),
    )
    return map(vault.open_person, rows)


def expired_people(connection: sqlite3.Connection, vault: Vault, now: datetime) -> list[Person]:
    rows = connection.execute(f"{PERSON} WHERE expires <= ? ORDER BY number", (stamp(now),))
    return [vault.open_person(row) for row in rows]


def people_numbered(connection: sqlite3.Connection, vault: Vault, numbers: Collection[int]) -> dict[int, Person]:
    rows = connection.execute(
        f"{PERSON} WHERE number IN (SELECT value FROM json_each(?))", (json.dumps(list(numbers)),)
    )
    return {row[0]: vault.open_person(row) for row in rows}


def count_people(connection: sqlite3.Connection, now: datetime) -> int:
    """How many have not expired."""
    expired = "SELECT count(*) FROM people WHERE expires <= ?"  # few, and by their index: not a look at everybody
    (count,) = connection.execute(f"SELECT (SELECT count(*) FROM people) - ({expired})", (stamp(now),)).fetchone()
    return int(count)


def put_person(connection: sqlite3.Connection, vault: Vault, person: Person) -> Person:
    """The person as enrolled anew (number 0), under a random id, or as changed."""
    if not person.number:
        person = replace(person, id=secrets.token_hex(16))
    expires = None if person.expires is None else stamp(person.expires)
    row = (person.id, vault.tag(person.name), stamp(person.created), expires, vault.seal_person(person))
    if person.number:
        connection.execute(
            "UPDATE people SET id = ?, tag = ?, created = ?, expires = ?, sealed = ? WHERE number = ?",
            (*row, person.number),
        )
        return person
    added = connection.execute("INSERT INTO people (id, tag, created, expires, sealed) VALUES (?, ?, ?, ?, ?)", row)
    assert added.lastrowid is not None
    return replace(person, number=added.lastrowid)


def put_templates(connection: sqlite3.Connection, vault: Vault, person: Person, vectors: Vectors) -> range:
    """Their numbers, which follow all that there ever were."""
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'templates'").fetchone()
    first = 1 + (last[0] if last else 0)
    connection.executemany(
        "INSERT INTO templates VALUES (?, ?, ?)",
        (
            (number, person.number, vault.seal_template(number, person.id, vector))
            for number, vector in enumerate(vectors, start=first)
        ),
    )
    return range(first, first + len(vectors))


def delete_templates(connection: sqlite3.Connection, person: Person) -> tuple[list[int], list[bytes]]:
    """The numbers and sealed vectors of the person's templates, which are gone."""
    rows = connection.execute("SELECT number, sealed FROM templates WHERE person = ? ORDER BY number", (person.number,))
    gone = rows.fetchall()
    connection.execute("DELETE FROM templates WHERE person = ?", (person.number,))
    return [number for number, _ in gone], [sealed for _, sealed in gone]


def delete_template(connection: sqlite3.Connection, person: Person, number: int) -> bytes | None:
    """The sealed vector of a template that is gone; None where it is not the person's."""
    found = connection.execute(
        "DELETE FROM templates WHERE number = ? AND person = ? RETURNING sealed", (number, person.number)
    ).fetchone()
    return None if found is None else bytes(found[0])


def delete_person(connection: sqlite3.Connection, person: Person) -> bytes:
    """The sealed row of the person, which is gone; templates have to be gone before."""
    sealed = sealed_person(connection, person)
    connection.execute("DELETE FROM people WHERE number = ?", (person.number,))
    return sealed


def sealed_person(connection: sqlite3.Connection, person: Person) -> bytes:
    """Their name, consent and notes as they are in the file."""
    (sealed,) = connection.execute("SELECT sealed FROM people WHERE number = ?", (person.number,)).fetchone()
    return bytes(sealed)


def templates_of(connection: sqlite3.Connection, vault: Vault, person: Person) -> Templates:
    """Those of one person, who has one or more, ascending."""
    rows = connection.execute(
        "SELECT number, person, ?, sealed FROM templates WHERE person = ? ORDER BY number", (person.id, person.number)
    )
    return _opened(rows.fetchall(), vault)


def templates_after(connection: sqlite3.Connection, vault: Vault, number: int) -> Iterator[Templates]:
    """The templates with higher numbers, ascending, in blocks; opened, which also shows that they are who they say."""
    rows = connection.execute(
        "SELECT templates.number, people.number, people.id, templates.sealed FROM templates "
        "LEFT JOIN people ON people.number = templates.person WHERE templates.number > ? ORDER BY templates.number",
        (number,),
    )
    while block := rows.fetchmany(BLOCK):
        yield _opened(block, vault)


def reseal(connection: sqlite3.Connection, old: Vault, new: Vault) -> None:
    """Every row, sealed with the new key in place of the old."""
    for person in list(all_people(connection, old)):
        put_person(connection, new, person)
    rows = connection.execute(
        "SELECT templates.number, people.id, templates.sealed FROM templates JOIN people ON people.number = person"
    )
    resealed = (
        (new.key.seal(old.open_template(number, owner, sealed), new.template_bound(number, owner)), number)
        for number, owner, sealed in rows.fetchall()
    )
    connection.executemany("UPDATE templates SET sealed = ? WHERE number = ?", resealed)


def _opened(block: Iterable[tuple[Any, ...]], vault: Vault) -> Templates:
    numbers, owners, plain = [], [], []
    for number, owner, identity, sealed in block:
        plain.append(vault.open_template(number, identity, sealed))
        numbers.append(number)
        owners.append(owner)
    return Templates(
        numbers=np.array(numbers, dtype=np.int64),
        owners=np.array(owners, dtype=np.int64),
        vectors=np.frombuffer(b"".join(plain), dtype="<f4").reshape(len(plain), -1).astype(np.float32, copy=False),
    )
