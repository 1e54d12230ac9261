"""People whose pictures were embedded before (`steadface.gallery.embeddings`) into a gallery: everybody or nobody."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from steadface.data.listing import abbreviated
from steadface.errors import Conflict, InvalidInput
from steadface.evaluation.embedding import Progress
from steadface.gallery.embedded_people import EmbeddedPeople, EmbeddedPerson
from steadface.gallery.enrollment import Enrollee
from steadface.gallery.person import checked_vectors, parse_expiry
from steadface.gallery.storage import described, same_model
from steadface.recognition.recognizer import Recognizer, SeveralPeople

MOST_OF_ONE = 2**12
"""Pictures of one person that are compared with each other, 64 MB of cosines."""


@dataclass(frozen=True, kw_only=True)
class EnrolledPeople:
    """Who was enrolled, and of whom the pictures do not look like one person, and why."""

    names: tuple[str, ...]
    mixed: Mapping[str, str]


def check_embedded(people: EmbeddedPeople, recognizer: Recognizer) -> None:
    """Raises `Conflict` for embeddings of another model, and `InvalidInput` where there is nobody to enrol."""
    own = recognizer.contract.identity
    if not same_model(people.model, own):
        raise Conflict(
            f"{people.given} holds embeddings of {described(people.model)}, and {described(own)} is to enrol them; "
            "give the model that they were made with, or embed again"
        )
    if not len(people):
        raise InvalidInput(f"there is nobody in {people.given} of whom there is an embedding")


def enroll_embedded(
    recognizer: Recognizer,
    people: EmbeddedPeople,
    *,
    consent: str | None = None,
    expires: str | None = None,
    check: bool = True,
    skip_mixed: bool = False,
    progress: Progress | None = None,
) -> EnrolledPeople:
    """Enrols one template of all pictures of each of the people, as `Recognizer.enroll` makes it, in one transaction.

    People whose pictures do not look like one person are left out with `skip_mixed`, and not asked about without
    `check`. Raises InvalidInput where there are such, and for vectors that are no unit vectors; Conflict for somebody
    who is enrolled already.
    """
    assert recognizer.gallery is not None  # `with_gallery` has opened it
    until, mixed = None if expires is None else parse_expiry(expires), dict[str, str]()

    def enrollees() -> Iterator[Enrollee]:
        for done, person in enumerate(people, start=1):
            try:
                yield _enrollee(recognizer, people, person, consent, until, check)
            except SeveralPeople as error:
                mixed[person.name] = str(error)
            if progress is not None:
                progress(done, len(people))
        if mixed and (not skip_mixed or len(mixed) == len(people)):
            raise InvalidInput(
                f"nobody was enrolled, since {len(mixed)} of {len(people)} people have pictures that do not look like "
                f"one person: {abbreviated(list(mixed.values()), len(mixed))}; leave such people out (--skip-mixed), "
                "or take them as they are (--force)"
            )

    done = recognizer.gallery.enroll_many(enrollees(), new_from=str(people.given))
    return EnrolledPeople(names=tuple(one.person.name for one in done), mixed=mixed)


def _enrollee(
    recognizer: Recognizer,
    people: EmbeddedPeople,
    person: EmbeddedPerson,
    consent: str | None,
    until: datetime | None,
    check: bool,
) -> Enrollee:
    """Raises `SeveralPeople`, which names the pictures, and InvalidInput."""
    vectors = checked_vectors(person.vectors, people.model, person.name)
    if check and len(vectors) > MOST_OF_ONE:
        raise SeveralPeople(f"{person.name} ({len(vectors):,} pictures, and at most {MOST_OF_ONE:,} are compared)", ())
    try:
        template, _ = recognizer.template_of(person.name, vectors, [str(row) for row in person.rows], check=check)
    except SeveralPeople as error:
        odd = people.where([int(row) for row in error.odd])
        raise SeveralPeople(f"{person.name} ({abbreviated(odd, len(odd))})", odd) from None
    return Enrollee(name=person.name, vectors=template[None], consent=consent, expires=until)
