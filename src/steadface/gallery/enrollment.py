"""Adding people and templates to a gallery; callers hold the transaction that makes it one step."""

from dataclasses import dataclass, replace
from datetime import date, datetime

from numpy.typing import ArrayLike

from steadface.arguments import number
from steadface.errors import Conflict
from steadface.gallery.index import Vectors
from steadface.gallery.person import Person, checked_expiry, checked_name, checked_text, checked_vectors
from steadface.gallery.requests import Request
from steadface.gallery.sealing import log
from steadface.gallery.sealing.transaction import Reader, Writer
from steadface.gallery.sealing.vault import stamp
from steadface.gallery.storage import ModelIdentity


class NotAlike(Conflict):
    """Templates that look like two people were to become one person's; the message names the person and the cosine."""


@dataclass(frozen=True, kw_only=True)
class Enrollee:
    """Somebody to enrol with unit `vectors` (n, D), or to add these to. Of somebody enrolled already, what is None
    stays as it is, and each of the vectors has to have a cosine of `alike` or more with one of their templates. A
    `request` is done once, however often it is made.
    """

    name: str
    vectors: ArrayLike
    consent: str | None = None
    expires: date | str | None = None
    notes: str | None = None
    alike: float | None = None
    request: Request | None = None


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What was added: to whom, and the numbers of the new templates.

    `similarity` is None for somebody new; else each new template has this cosine or more with an earlier one of theirs.
    Where it is `repeated` nothing was added now: an earlier call with the same request had done so.
    """

    person: Person
    templates: tuple[int, ...]
    similarity: float | None = None
    repeated: bool = False


def checked(enrollee: Enrollee, model: ModelIdentity, now: datetime) -> Enrollee:
    """With its name, texts, expiry and vectors as they are kept. Raises `InvalidInput`."""
    name = checked_name(enrollee.name)
    return replace(
        enrollee,
        name=name,
        vectors=checked_vectors(enrollee.vectors, model, name),
        consent=checked_text(enrollee.consent, "consent", name),
        expires=checked_expiry(enrollee.expires, now, name),
        notes=checked_text(enrollee.notes, "notes", name),
        alike=None if enrollee.alike is None else number("alike", enrollee.alike),
    )


def enroll(writer: Writer, enrollee: Enrollee, known: dict[str, Person]) -> Enrolment:
    """Adds a checked enrollee, also to the people `known`, who are by name those of all names in question who are
    enrolled. Raises `Conflict` where their consent has expired, and `NotAlike`.
    """
    vectors: Vectors = enrollee.vectors  # type: ignore[assignment]  # as `checked` left them
    before, similarity = known.get(enrollee.name), None
    if before is not None:
        refuse_expired(writer, before)
        similarity = _closeness(writer, before, vectors, enrollee.alike)
    person = _with(before, enrollee, writer.now)
    if person != before:
        person = writer.put(person)
    numbers = writer.put_templates(person, vectors)
    expires = None if person.expires is None else stamp(person.expires)
    asked = {} if enrollee.request is None else {"request": enrollee.request.digests(writer.vault)}
    writer.log("enroll", person, added=log.ranges(numbers), expires=expires, **asked)
    known[person.name] = person = replace(person, templates=person.templates + len(vectors))
    return Enrolment(person=person, templates=tuple(numbers), similarity=similarity)


def refuse_expired(reader: Reader, person: Person) -> None:
    """Raises `Conflict` where the person's consent has expired."""
    if person.expired(reader.now):
        raise Conflict(
            f"the consent of {person.name} expired on {person.expires:%Y-%m-%d}; remove who expired with `steadface "
            "gallery expire`, then enrol them anew"
        )


def _closeness(reader: Reader, person: Person, vectors: Vectors, alike: float | None) -> float:
    """The lowest of the cosines of each of `vectors` (n, D) to the most similar template that the person has.

    Raises `NotAlike` where it is below `alike`, where that is given.
    """
    own = reader.templates_of(person).vectors
    similarity = min(1.0, float((vectors @ own.T).max(1).min()))  # rounding may take it beyond
    if alike is not None and not similarity >= alike:  # so that NaN takes nobody
        raise NotAlike(
            f"{person.name} is enrolled already and looks different: the cosine to the most similar of "
            f"{person.templates} template(s) is {similarity:.3f}, and one person has {alike:.3f} or more; enrol "
            "somebody else under another name, or insist (--force; in Python check=False)"
        )
    return similarity


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
