"""What puts right who is who in a gallery: a template that is not the person's, a name, one person under two names.

Each is one step with its entries in the log, which tell of templates in the words that an index follows, `added` and
`removed`. Callers hold the transaction.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from steadface.errors import SteadfaceError
from steadface.gallery import journal, records
from steadface.gallery.changes import Desk, NotAlike, delete, refuse_expired
from steadface.gallery.people import Person, checked_name
from steadface.gallery.vault import moment, stamp


@dataclass(frozen=True, kw_only=True)
class Template:
    """One template of a person: its `number`, when it was added, and the highest cosine to another one of theirs.

    `similarity` is None where they have no other; where it is low it may be somebody else's.
    """

    number: int
    added: datetime | None
    similarity: float | None


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Who has the templates of `name` as well now, under new numbers; `similarity` is the highest cosine of both."""

    person: Person
    name: str
    templates: tuple[int, ...]
    similarity: float


def templates(desk: Desk, person: Person) -> list[Template]:
    """Oldest first."""
    found = records.templates_of(desk.connection, desk.vault, person)
    cosines = found.vectors @ found.vectors.T
    np.fill_diagonal(cosines, -np.inf)
    added = _added(desk, person)
    return [
        Template(
            number=number,
            added=added.get(number),
            similarity=min(1.0, float(row.max())) if len(cosines) > 1 else None,
        )
        for number, row in zip(found.numbers.tolist(), cosines, strict=True)
    ]


def remove_template(desk: Desk, person: Person, number: int) -> tuple[Person, bytes]:
    """The person with one template less, and the sealed row that is gone, of which the file must hold no trace.

    Raises `SteadfaceError` where it is not theirs, or the only one.
    """
    sealed = records.delete_template(desk.connection, person, number)
    if sealed is None:
        raise SteadfaceError(
            f"template {number} is none of {person.name}'s; `steadface gallery show` lists those that are"
        )
    if person.templates == 1:
        raise SteadfaceError(
            f"template {number} is the only one of {person.name}; remove the person, or enrol another picture first"
        )
    desk.log("remove", person, removed=[(number, number)])
    desk.owe()
    return replace(person, templates=person.templates - 1), sealed


def rename(desk: Desk, person: Person, new: str) -> tuple[Person, list[bytes]]:
    """The person under the name `new`, and the sealed row with the old one.

    Raises `SteadfaceError` where somebody has that name, or it is none.
    """
    new = checked_name(new)
    if new == person.name:
        return person, []
    if records.find_person(desk.connection, desk.vault, new) is not None:
        raise SteadfaceError(
            f"{new} is enrolled already, so {person.name} cannot have that name; if both are one person, merge them "
            f"with `steadface gallery merge`"
        )
    return _changed(desk, person, replace(person, name=new), "rename")


def merge(desk: Desk, person: Person, into: Person, alike: float | None) -> tuple[Merged, list[bytes]]:
    """`person` becomes a part of `into`; also the sealed rows that are gone.

    Raises `NotAlike` where none of their templates are, and `SteadfaceError` where they are one or somebody's consent
    has expired.
    """
    if person.id == into.id:
        raise SteadfaceError(f"{person.name} cannot be merged into {into.name}, who is the same; name two people")
    for one in (person, into):
        refuse_expired(desk, one)
    vectors = records.templates_of(desk.connection, desk.vault, person).vectors
    own = records.templates_of(desk.connection, desk.vault, into).vectors
    similarity = min(1.0, float((vectors @ own.T).max()))
    if alike is not None and not similarity >= alike:
        raise NotAlike(
            f"{person.name} and {into.name} look different: the highest cosine of their templates is {similarity:.3f}, "
            f"and one person has {alike:.3f} or more; merge them all the same with --force (in Python without alike)"
        )
    gone = delete(desk, person, "remove")
    joined, old = _joined(desk, person, into)
    numbers = records.put_templates(desk.connection, desk.vault, joined, vectors)
    desk.log("merge", joined, added=journal.ranges(numbers), of=person.id)
    joined = replace(joined, templates=len(own) + len(vectors))
    return Merged(person=joined, name=person.name, templates=tuple(numbers), similarity=similarity), [*gone, *old]


def _joined(desk: Desk, person: Person, into: Person) -> tuple[Person, list[bytes]]:
    """`into` with what only `person` has, and the earlier expiry: nobody is found for longer than agreed."""
    expiries = [one.expires for one in (person, into) if one.expires is not None]
    joined = replace(
        into,
        consent=person.consent if into.consent is None else into.consent,
        notes=person.notes if into.notes is None else into.notes,
        expires=min(expiries, default=None),
    )
    return (into, []) if joined == into else _changed(desk, into, joined, "change")


def _changed(desk: Desk, before: Person, after: Person, event: str) -> tuple[Person, list[bytes]]:
    """A row in place of an earlier one; also that, sealed."""
    sealed = records.sealed_person(desk.connection, before)
    after = records.put_person(desk.connection, desk.vault, after)
    desk.log(event, after, expires=None if after.expires is None else stamp(after.expires))
    desk.owe()
    return after, [sealed]


def _added(desk: Desk, person: Person) -> dict[int, datetime]:
    """When the templates of a person were added, by number, as the log says."""
    rows = desk.connection.execute("SELECT time, details FROM journal WHERE person = ?", (person.id,))
    return {
        number: moment(time)
        for time, details in rows
        for number in journal.numbers(json.loads(details).get("added", []))
    }
