"""The people of a CompreFace, enrolled anew from their pictures: its embeddings are another model's."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from steadface.data.compreface import StoredPicture, Subject
from steadface.errors import InvalidInput, SteadfaceError, Unavailable
from steadface.files import check_replaced, write_atomically
from steadface.gallery.person import checked_name
from steadface.gallery.sealing.transaction import NotEnrolled
from steadface.recognition.recognizer import Recognizer, SeveralPeople

SOURCE = "pictures from CompreFace"
COLUMNS = ("subject", "picture", "why")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a subject, or one `picture` of it, was not enrolled."""

    subject: str
    picture: str | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What became of one subject: from how many `pictures` it is enrolled now, 0 if not. `before`: it was already."""

    subject: str
    pictures: int = 0
    before: bool = False
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()


def move_subjects(
    recognizer: Recognizer,
    subjects: Sequence[Subject],
    *,
    check: bool = True,
    consent: str | None = None,
    expires: date | str | None = None,
) -> Iterator[Moved]:
    """Enrols one after the other, each in one step, with one template of all their pictures that can be used.

    Pictures that do not look like most of somebody's are left out. Whoever is enrolled already from as many pictures of
    a dump is left alone, so that a call goes on where another one was interrupted. Raises SteadfaceError for what is
    wrong with the gallery or the model, and not with a subject.
    """
    seen: set[str] = set()
    for subject in subjects:
        try:
            name = checked_name(subject.name)
            if name in seen:
                raise InvalidInput("another subject has the same name in Unicode's composed form; rename one")
            seen.add(name)
            yield _before(recognizer, name, subject) or _moved(recognizer, name, subject, check, consent, expires)
        except Unavailable:
            raise
        except SteadfaceError as error:
            yield Moved(subject=subject.name, troubles=(_trouble(subject, None, error),))


def write_troubles(path: Path, troubles: Sequence[Trouble]) -> None:
    """A CSV file for its owner alone. Raises SteadfaceError where it cannot be written, or is another file."""
    check_replaced(path, ",".join(COLUMNS).encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((one.subject, one.picture or "", one.why) for one in troubles)
    write_atomically(path, text.getvalue().encode(), private=True)


def _before(recognizer: Recognizer, name: str, subject: Subject) -> Moved | None:
    """Of somebody who is enrolled already."""
    assert recognizer.gallery is not None
    try:
        person = recognizer.gallery.person(name)
    except NotEnrolled:
        return None
    if person.notes is not None and person.notes.endswith(f" of {len(subject.pictures)} {SOURCE}"):
        return Moved(subject=name, before=True)
    raise InvalidInput(
        f"{name} is enrolled already, and not from these {len(subject.pictures)} pictures; remove them first, or leave "
        "them as they are"
    )


def _moved(
    recognizer: Recognizer,
    name: str,
    subject: Subject,
    check: bool,
    consent: str | None,
    expires: date | str | None,
) -> Moved:
    pictures, troubles = list(subject.pictures), list(_missing(subject))
    while pictures:
        notes = f"{len(pictures)} of {len(subject.pictures)} {SOURCE}"
        try:
            answer = recognizer.enroll(
                name, [one.opened() for one in pictures], check=check, consent=consent, expires=expires, notes=notes
            )
        except InvalidInput as error:
            left_out = list(_unusable(recognizer, subject, pictures, error))
            if not left_out:
                raise
            troubles += left_out
            pictures = [one for one in pictures if one.name not in {trouble.picture for trouble in left_out}]
        else:
            return Moved(subject=name, pictures=len(pictures), troubles=tuple(troubles), notes=answer.notes)
    why = InvalidInput("none of the pictures can be used" if subject.pictures else "the dump has no picture of them")
    return Moved(subject=name, troubles=(*troubles, _trouble(subject, None, why)))


def _missing(subject: Subject) -> Iterator[Trouble]:
    if subject.missing:
        yield Trouble(
            subject=subject.name,
            picture=None,
            why=f"CompreFace did not keep the pictures of {subject.missing} examples, and their embeddings are no use",
        )


def _unusable(
    recognizer: Recognizer, subject: Subject, pictures: Sequence[StoredPicture], error: InvalidInput
) -> Iterator[Trouble]:
    """The pictures for which somebody was refused: those of other people, where most are of one, or without a face."""
    if isinstance(error, SeveralPeople):
        if 2 * len(error.odd) < len(pictures):
            for name in error.odd:
                yield Trouble(subject=subject.name, picture=name, why="it does not look like most of the others")
        return
    for picture in pictures:
        try:
            recognizer.seeing.face(picture.opened(), clear=True)
        except InvalidInput as why:
            yield _trouble(subject, picture, why)


def _trouble(subject: Subject, picture: StoredPicture | None, error: SteadfaceError) -> Trouble:
    return Trouble(subject=subject.name, picture=None if picture is None else picture.name, why=str(error))
