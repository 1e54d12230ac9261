"""What keeps a gallery right: templates that are not the person's, names, one person under two names, keys and models.

Each is one step with its entries in the log, which tell of templates in the words that an index follows, `added` and
`removed`. Callers hold the transaction.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike

from steadface.errors import Conflict, InvalidInput, NotFound
from steadface.gallery.enrollment import Enrolment, NotAlike, refuse_expired
from steadface.gallery.index import Vectors
from steadface.gallery.person import Person, checked_name, checked_vectors
from steadface.gallery.sealing import log
from steadface.gallery.sealing.transaction import Reader, Writer
from steadface.gallery.sealing.vault import Vault, stamp
from steadface.gallery.storage import ModelIdentity

SHOWN = 10
"""Names in a message."""


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


def templates(reader: Reader, person: Person) -> list[Template]:
    """Oldest first."""
    own = reader.templates_of(person)
    cosines = own.vectors @ own.vectors.T
    np.fill_diagonal(cosines, -np.inf)
    added = reader.times_added(person)
    return [
        Template(
            number=number,
            added=added.get(number),
            similarity=min(1.0, float(row.max())) if len(cosines) > 1 else None,
        )
        for number, row in zip(own.numbers.tolist(), cosines, strict=True)
    ]


def similarities(reader: Reader, person: Person, probes: Vectors, number: int | None) -> Vectors:
    """Of each of the unit `probes` (B, D) the highest cosine to a template of the person, or to that of `number`: (B,).

    Raises `NotFound` where it is not theirs, and `Conflict` where the person's consent has expired.
    """
    refuse_expired(reader, person)
    own = reader.templates_of(person)
    kept = own.vectors if number is None else own.vectors[own.numbers == number]
    if not len(kept):
        raise NotFound(
            f"template {number} is not one of {person.name}'s; `steadface gallery show` lists those that are"
        )
    found: Vectors = np.minimum((probes @ kept.T).max(1), 1)  # rounding may take it beyond
    return found


def remove_template(writer: Writer, person: Person, number: int) -> tuple[Person, list[bytes]]:
    """The person with one template less, and the traces that must go.

    Raises `NotFound` where it is not theirs, and `Conflict` where it is the only one.
    """
    _, traces = writer.delete_templates(person, number)
    if not traces:
        raise NotFound(
            f"template {number} is not one of {person.name}'s; `steadface gallery show` lists those that are"
        )
    if person.templates == 1:
        raise Conflict(
            f"template {number} is the only one of {person.name}; remove the person, or enrol another picture first"
        )
    writer.log("remove", person, removed=[(number, number)])
    writer.owe()
    return replace(person, templates=person.templates - 1), traces


def rename(writer: Writer, person: Person, new: str) -> tuple[Person, list[bytes]]:
    """The person under the name `new`, and the traces of the old one that must go.

    Raises `Conflict` where somebody has that name, and `InvalidInput` where it is not a name.
    """
    new = checked_name(new)
    if new == person.name:
        return person, []
    if writer.find(new) is not None:
        raise Conflict(
            f"{new} is enrolled already, so {person.name} cannot have that name; if both are one person, merge them "
            f"with `steadface gallery merge`"
        )
    return _changed(writer, person, replace(person, name=new), "rename")


def merge(writer: Writer, person: Person, into: Person, alike: float | None) -> tuple[Merged, list[bytes]]:
    """`person` becomes a part of `into`; also the traces that must go.

    Raises `NotAlike` where none of their templates are, `InvalidInput` where they are one, and `Conflict` where
    somebody's consent has expired.
    """
    if person.id == into.id:
        raise InvalidInput(f"{person.name} cannot be merged into {into.name}, who is the same; name two people")
    for one in (person, into):
        refuse_expired(writer, one)
    vectors = writer.templates_of(person).vectors
    own = writer.templates_of(into).vectors
    similarity = min(1.0, float((vectors @ own.T).max()))
    if alike is not None and not similarity >= alike:
        raise NotAlike(
            f"{person.name} and {into.name} look different: the highest cosine of their templates is {similarity:.3f}, "
            f"and one person has {alike:.3f} or more; merge them all the same with --force (in Python without alike)"
        )
    gone = writer.delete(person, "remove")
    joined, old = _joined(writer, person, into)
    numbers = writer.put_templates(joined, vectors)
    writer.log("merge", joined, added=log.ranges(numbers), of=person.id)
    joined = replace(joined, templates=len(own) + len(vectors))
    return Merged(person=joined, name=person.name, templates=tuple(numbers), similarity=similarity), [*gone, *old]


def _joined(writer: Writer, person: Person, into: Person) -> tuple[Person, list[bytes]]:
    """`into` with what only `person` has, and the earlier expiry: nobody is found for longer than agreed."""
    expiries = [one.expires for one in (person, into) if one.expires is not None]
    joined = replace(
        into,
        consent=person.consent if into.consent is None else into.consent,
        notes=person.notes if into.notes is None else into.notes,
        expires=min(expiries, default=None),
    )
    return (into, []) if joined == into else _changed(writer, into, joined, "change")


def _changed(writer: Writer, before: Person, after: Person, event: str) -> tuple[Person, list[bytes]]:
    """A row in place of an earlier one; also the trace of that."""
    gone = writer.trace_of(before)
    after = writer.put(after)
    writer.log(event, after, expires=None if after.expires is None else stamp(after.expires))
    writer.owe()
    return after, [gone]


def rotate(writer: Writer, new: Vault) -> None:
    """Seals everything, but not yet the header, with the key of `new` in place of the present one."""
    writer.reseal(new)
    writer.owe()
    writer.log("rotate", key=new.key.id, previous=writer.vault.key.id)


def re_embed(
    writer: Writer, model: ModelIdentity, vectors: Mapping[str, ArrayLike], *, drop_missing: bool
) -> tuple[list[Enrolment], list[Person]]:
    """Gives everybody the `vectors` of another model in place of their templates; also who was dropped for having none.

    Raises, before anything is changed, `NotFound` for names that are not enrolled, and `InvalidInput` for people
    without vectors, unless they are to be dropped.
    """
    brought = {checked_name(name): checked_vectors(some, model, name) for name, some in vectors.items()}
    people = list(writer.people())
    missing = [person for person in people if person.name not in brought]
    if strangers := brought.keys() - {person.name for person in people}:
        raise NotFound(f"not enrolled, and so not to be embedded anew: {listed(sorted(strangers))}")
    if missing and not drop_missing:
        raise InvalidInput(
            f"{len(missing)} of {len(people)} people have no images for the new model: "
            f"{listed([person.name for person in missing])}; bring theirs too, or say that they are to be dropped "
            "(nothing was changed)"
        )
    for person in missing:
        writer.delete(person, "remove")
    renewed = [_renewed(writer, person, brought[person.name]) for person in people if person.name in brought]
    writer.rows.write_header(replace(writer.rows.header(), model=model, owed=True))
    writer.log("model", **asdict(model))
    return renewed, missing


def listed(names: Collection[str]) -> str:
    some = list(names)[:SHOWN]
    return ", ".join([*some, f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else some)


def _renewed(writer: Writer, person: Person, vectors: Vectors) -> Enrolment:
    gone, _ = writer.delete_templates(person)
    numbers = writer.put_templates(person, vectors)
    writer.log("re-embed", person, removed=log.ranges(gone), added=log.ranges(numbers))
    return Enrolment(person=replace(person, templates=len(vectors)), templates=tuple(numbers))
