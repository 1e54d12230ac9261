"""What is done to a gallery, each with its entry in the log; callers hold the transaction that makes it one step."""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

from numpy.typing import ArrayLike

from steadface.errors import SteadfaceError, quoted
from steadface.gallery import journal, records
from steadface.gallery.identity import ModelIdentity
from steadface.gallery.people import Person, Vectors, checked_expiry, checked_name, checked_vectors
from steadface.gallery.store import read_header, write_header
from steadface.gallery.vault import Vault, stamp

SHOWN = 10


class NotEnrolled(SteadfaceError):
    """Nobody of that name is in the gallery."""


class NotAlike(SteadfaceError):
    """Templates that look like two people were to become one person's; the message names the person and the cosine."""


@dataclass(frozen=True, kw_only=True)
class Enrollee:
    """Somebody to enrol with unit `vectors` (n, D), or to add these to. Of somebody enrolled already, what is None
    stays as it is, and each of the vectors has to have a cosine of `alike` or more with one of their templates.
    """

    name: str
    vectors: ArrayLike
    consent: str | None = None
    expires: date | str | None = None
    notes: str | None = None
    alike: float | None = None


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What was added: to whom, and the numbers of the new templates.

    `similarity` is None for somebody new; else each new template has this cosine or more with an earlier one of theirs.
    """

    person: Person
    templates: tuple[int, ...]
    similarity: float | None = None


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where changes are made: a `connection` in a transaction, the `vault`, and the time, `now`."""

    connection: sqlite3.Connection
    vault: Vault
    now: datetime

    def log(self, event: str, person: Person | None = None, **details: Any) -> None:
        identity = None if person is None else person.id
        journal.append(self.connection, self.vault.log_key, event, now=self.now, person=identity, details=details)

    def known(self, name: str) -> Person:
        """Raises `NotEnrolled`."""
        person = records.find_person(self.connection, self.vault, checked_name(name))
        if person is None:
            raise NotEnrolled(f"{quoted(name)} is not enrolled; `steadface gallery list` says who is")
        return person

    def owe(self) -> None:
        """Notes that the file has yet to be cleared of what is deleted here."""
        self.connection.execute("UPDATE gallery SET owed = 1")


def checked(enrollee: Enrollee, model: ModelIdentity, now: datetime) -> Enrollee:
    """With its name, expiry and vectors as they are kept. Raises `SteadfaceError`."""
    name = checked_name(enrollee.name)
    vectors = checked_vectors(enrollee.vectors, model, name)
    return replace(enrollee, name=name, vectors=vectors, expires=checked_expiry(enrollee.expires, now, name))


def enroll(desk: Desk, enrollee: Enrollee) -> Enrolment:
    """Adds a checked enrollee. Raises `SteadfaceError` where their consent has expired, and `NotAlike`."""
    vectors: Vectors = enrollee.vectors  # type: ignore[assignment]  # as `checked` left them
    before, similarity = records.find_person(desk.connection, desk.vault, enrollee.name), None
    if before is not None:
        refuse_expired(desk, before)
        similarity = _closeness(desk, before, vectors, enrollee.alike)
    person = _with(before, enrollee, desk.now)
    if person != before:
        person = records.put_person(desk.connection, desk.vault, person)
    numbers = records.put_templates(desk.connection, desk.vault, person, vectors)
    expires = None if person.expires is None else stamp(person.expires)
    desk.log("enroll", person, added=journal.ranges(numbers), expires=expires)
    return Enrolment(
        person=replace(person, templates=person.templates + len(vectors)),
        templates=tuple(numbers),
        similarity=similarity,
    )


def refuse_expired(desk: Desk, person: Person) -> None:
    """Raises `SteadfaceError` where the person's consent has expired."""
    if person.expired(desk.now):
        raise SteadfaceError(
            f"the consent of {person.name} expired on {person.expires:%Y-%m-%d}; remove who expired with `steadface "
            "gallery expire`, then enrol them anew"
        )


def _closeness(desk: Desk, person: Person, vectors: Vectors, alike: float | None) -> float:
    """The lowest of the cosines of each of `vectors` (n, D) to the most similar template that the person has.

    Raises `NotAlike` where it is below `alike`, where that is given.
    """
    own = records.templates_of(desk.connection, desk.vault, person).vectors
    similarity = min(1.0, float((vectors @ own.T).max(1).min()))  # rounding may take it beyond
    if alike is not None and not similarity >= alike:  # so that NaN takes nobody
        raise NotAlike(
            f"{person.name} is enrolled already and looks different: the cosine to the most similar of "
            f"{person.templates} template(s) is {similarity:.3f}, and one person has {alike:.3f} or more; enrol "
            "somebody else under another name, or insist (--force; in Python check=False)"
        )
    return similarity


def delete(desk: Desk, person: Person, event: str) -> list[bytes]:
    """Deletes a person with all templates; the sealed rows that are gone, of which the file must hold no trace."""
    numbers, sealed = records.delete_templates(desk.connection, person)
    sealed.append(records.delete_person(desk.connection, person))
    desk.log(event, person, removed=journal.ranges(numbers), gone=True)
    desk.owe()
    return sealed


def rotate(desk: Desk, new: Vault) -> None:
    """Seals everything with the key of `new` in place of the present one."""
    records.reseal(desk.connection, desk.vault, new)
    header = read_header(desk.connection)
    write_header(desk.connection, replace(header, key=new.key.id, secret=new.wrapped(), owed=True))
    desk.log("rotate", key=new.key.id, previous=desk.vault.key.id)


def re_embed(
    desk: Desk, model: ModelIdentity, vectors: Mapping[str, ArrayLike], *, drop_missing: bool
) -> tuple[list[Enrolment], list[Person]]:
    """Gives everybody the `vectors` of another model in place of their templates; also who was dropped for having none.

    Raises `SteadfaceError`, before anything is changed, for names that are not enrolled, and for people without
    vectors, unless they are to be dropped.
    """
    brought = {checked_name(name): checked_vectors(some, model, name) for name, some in vectors.items()}
    people = list(records.all_people(desk.connection, desk.vault))
    missing = [person for person in people if person.name not in brought]
    if strangers := brought.keys() - {person.name for person in people}:
        raise SteadfaceError(f"not enrolled, and so not to be embedded anew: {listed(sorted(strangers))}")
    if missing and not drop_missing:
        raise SteadfaceError(
            f"{len(missing)} of {len(people)} people have no images for the new model: "
            f"{listed([person.name for person in missing])}; bring theirs too, or say that they are to be dropped "
            "(nothing was changed)"
        )
    for person in missing:
        delete(desk, person, "remove")
    renewed = [_renewed(desk, person, brought[person.name]) for person in people if person.name in brought]
    write_header(desk.connection, replace(read_header(desk.connection), model=model, owed=True))
    desk.log("model", **asdict(model))
    return renewed, missing


def listed(names: Collection[str]) -> str:
    some = list(names)[:SHOWN]
    return ", ".join([*some, f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else some)


def _renewed(desk: Desk, person: Person, vectors: Vectors) -> Enrolment:
    gone, _ = records.delete_templates(desk.connection, person)
    numbers = records.put_templates(desk.connection, desk.vault, person, vectors)
    desk.log("re-embed", person, removed=journal.ranges(gone), added=journal.ranges(numbers))
    return Enrolment(person=replace(person, templates=len(vectors)), templates=tuple(numbers))


def _with(before: Person | None, enrollee: Enrollee, now: datetime) -> Person:
    """The person as enrolled, with what is new."""
    if before is None:
        return Person(
            id="",
            name=enrollee.name,
            created=now,
            expires=enrollee.expires,  # type: ignore[arg-type]  # as `checked` left it
            consent=enrollee.consent,
            notes=enrollee.notes,
            templates=0,
            number=0,
        )
    new = {what: getattr(enrollee, what) for what in ("consent", "expires", "notes")}
    return replace(before, **{what: value for what, value in new.items() if value is not None})
