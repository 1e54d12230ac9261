"""A gallery: who is enrolled, kept where nothing is lost, and the search among them.

    with Gallery.create(path, model=identity) as gallery:
        gallery.enroll("Ada", vectors, consent="form of 2031-05-02", expires=when)
        gallery.search(probes, k=5)

What is returned from `enroll` or `remove` is on the disk. Any number of threads and processes may use one gallery at
once: one writes at a time, nobody waits to search, and a search sees all that was committed before it began.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from numpy.typing import ArrayLike

from steadface.arguments import as_path
from steadface.errors import SteadfaceError
from steadface.gallery import changes, checking, corrections, portable, records
from steadface.gallery.changes import Enrollee, Enrolment
from steadface.gallery.corrections import Merged, Template
from steadface.gallery.follower import Follower
from steadface.gallery.identity import ModelIdentity
from steadface.gallery.journal import Verification
from steadface.gallery.keys import Key, given, keys_folder, new_key, write_key
from steadface.gallery.opening import OpenGallery
from steadface.gallery.people import Person, checked_name, checked_vectors
from steadface.gallery.store import read_header


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Somebody found, the cosine to the most similar of their templates, and which that is."""

    person: Person
    similarity: float
    template: int


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a gallery says of itself: `size` in bytes, `head` the hash of the last entry of the log."""

    id: str
    created: str
    model: ModelIdentity
    key: str
    people: int
    templates: int
    size: int
    head: str


class Gallery(OpenGallery):
    """Made by `Gallery.create` or `Gallery.open`; a context manager."""

    def __len__(self) -> int:
        """The number of people, expired ones included."""
        with self._looking() as connection:
            return int(connection.execute("SELECT count(*) FROM people").fetchone()[0])

    def info(self) -> Info:
        with self._looking() as connection:
            header = read_header(connection)
            people, templates = connection.execute(
                "SELECT (SELECT count(*) FROM people), (SELECT count(*) FROM templates)"
            ).fetchone()
            (head,) = connection.execute("SELECT hash FROM journal ORDER BY sequence DESC LIMIT 1").fetchone()
            pages, page = (connection.execute(f"PRAGMA page_{what}").fetchone()[0] for what in ("count", "size"))
        return Info(
            id=header.id,
            created=header.created,
            model=header.model,
            key=header.key,
            people=people,
            templates=templates,
            size=pages * page,
            head=head.hex(),
        )

    def people(self) -> list[Person]:
        """Everybody, expired or not, in the order in which they were enrolled."""
        with self._looking() as connection:
            return list(records.all_people(connection, self._vault))

    def person(self, name: str) -> Person:
        """Raises `NotEnrolled`."""
        with self._looking() as connection:
            return self._desk(connection).known(name)

    def enroll(
        self,
        person: str,
        vectors: ArrayLike,
        *,
        consent: str | None = None,
        expires: date | str | None = None,
        notes: str | None = None,
        alike: float | None = None,
    ) -> Enrolment:
        """Adds unit `vectors` (n, D) to `person`, who is new or enrolled already: all of them or none.

        `expires` is a day, to its end in UTC, or a time with its zone; as a `date`, a `datetime` or in ISO 8601.

        Raises `SteadfaceError` for what are no templates of the gallery's model, somebody whose consent expired, and
        `NotAlike` where `person` is enrolled already and one of the vectors has no cosine of `alike` or more (None:
        whatever it is) with any of their templates.
        """
        return self.enroll_many(
            [Enrollee(name=person, vectors=vectors, consent=consent, expires=expires, notes=notes, alike=alike)]
        )[0]

    def enroll_many(self, enrollees: Iterable[Enrollee]) -> list[Enrolment]:
        """Many people in one transaction: everybody or nobody. Raises `SteadfaceError` as `enroll` does."""
        model, now = self.model, self._now()
        checked = [changes.checked(enrollee, model, now) for enrollee in enrollees]
        with self._changing(model) as desk:
            return [changes.enroll(desk, enrollee) for enrollee in checked]

    def remove(self, name: str) -> Person:
        """Removes a person; once this returns, nothing of them is left in the file but their random id in the log.

        Raises `NotEnrolled`.
        """
        with self._changing() as desk:
            person = desk.known(name)
            sealed = changes.delete(desk, person, "remove")
        self._writer.scrub(sealed)
        return person

    def templates(self, name: str) -> list[Template]:
        """A person's templates, oldest first. Raises `NotEnrolled`."""
        with self._looking() as connection:
            desk = self._desk(connection)
            return corrections.templates(desk, desk.known(name))

    def remove_template(self, name: str, template: int) -> Person:
        """Removes one template of a person, of which nothing is left in the file either; the person with the others.

        Raises `NotEnrolled`, and `SteadfaceError` where it is not theirs, or the only one that they have.
        """
        with self._changing() as desk:
            person, sealed = corrections.remove_template(desk, desk.known(name), template)
        self._writer.scrub([sealed])
        return person

    def rename(self, name: str, new: str) -> Person:
        """Gives a person the name `new`; nothing is left of the old one.

        Raises `NotEnrolled`, and `SteadfaceError` where somebody has the new name, or it is none.
        """
        with self._changing() as desk:
            person, sealed = corrections.rename(desk, desk.known(name), new)
        self._writer.scrub(sealed)
        return person

    def merge(self, name: str, into: str, *, alike: float | None = None) -> Merged:
        """Gives the templates of `name` to `into`, and removes `name`: one person who was enrolled under two names.

        `into` keeps consent and notes, or takes over what only `name` has; the earlier expiry counts. Raises
        `NotEnrolled`, `NotAlike` where no two of their templates have a cosine of `alike` or more (None: whatever it
        is), and `SteadfaceError` where both are one, or somebody's consent expired.
        """
        with self._changing() as desk:
            merged, sealed = corrections.merge(desk, desk.known(name), desk.known(into), alike)
        self._writer.scrub(sealed)
        return merged

    def confusable(self, name: str) -> list[str]:
        """The names of other people enrolled that look like `name` (`steadface.gallery.names`)."""
        with self._looking() as connection:
            self._names.catch_up(connection, self._vault)
            return self._names.like(checked_name(name), connection, self._vault)

    def findable(self) -> int:
        """The number of people whom a search may find: all but those whose consent has expired."""
        with self._looking() as connection:
            return records.count_people(connection, self._now())

    def expire(self) -> list[Person]:
        """Removes everybody whose consent has expired, as `remove` does, and says whom."""
        with self._changing() as desk:
            expired = records.expired_people(desk.connection, desk.vault, desk.now)
            sealed = [row for person in expired for row in changes.delete(desk, person, "expire")]
        if expired:
            self._writer.scrub(sealed)
        return expired

    def search(self, vectors: ArrayLike, k: int = 1) -> list[list[Candidate]]:
        """For each of the unit `vectors` (B, D) the `k` most similar people, most similar first, each with the best of
        their templates; fewer where there are fewer. Nobody whose consent has expired is found.
        """
        model = self.model
        probes = checked_vectors(vectors, model, "the search")
        if k < 1:
            raise SteadfaceError(f"a search for {k} people finds nobody; ask for 1 or more")
        while True:
            with self._looking(model) as connection:
                self._follower.catch_up(connection, self._vault, self._now())
                follower = self._follower
            found = follower.search(probes, k)
            with self._looking() as connection:
                numbers = {number for one in found for number, _, _ in one}
                people = records.people_numbered(connection, self._vault, numbers)
            if len(people) == len(numbers):  # else somebody was removed meanwhile
                break
        if self._log_searches:
            with self._changing() as desk:
                desk.log("search", k=k, best=[people[one[0][0]].id if one else None for one in found])
        return [
            [Candidate(person=people[number], similarity=cosine, template=key) for number, cosine, key in one]
            for one in found
        ]

    def rotate(self, key: Key | str | os.PathLike[str] | None = None) -> Key:
        """Seals everything with another key, of which the old one opens nothing then; a random one, written into the
        user's configuration, where none is given. Until this returns either key may be the gallery's: keep both.
        """
        self._check_usable()  # before a key is made for it
        new = given(key) or self._new_key()
        if new.id == self.key.id:
            raise SteadfaceError(f"{new.source} holds the gallery's present key; give another")
        vault = self._vault.rekeyed(new)
        with self._reader.lock, self._writer.lock:  # no thread uses the old key meanwhile
            with self._changing() as desk:
                changes.rotate(desk, vault)
            self._vault = vault
        self._writer.scrub()
        return new

    def re_embed(
        self, model: ModelIdentity, vectors: Mapping[str, ArrayLike], *, drop_missing: bool = False
    ) -> tuple[list[Enrolment], list[Person]]:
        """Makes this a gallery of another model: everybody's templates give way to unit `vectors` (n, D) by name.

        Returns the new enrolments and who was dropped. Raises `SteadfaceError`, and changes nothing, where somebody
        has no vectors, unless they are to be dropped.
        """
        with self._reader.lock, self._writer.lock:
            with self._changing() as desk:
                done = changes.re_embed(desk, model, vectors, drop_missing=drop_missing)
            self.model, self._follower = model, Follower(self._index(model.dimension))
        self._writer.scrub()
        return done

    def verify_log(self, *, head: str | None = None) -> Verification:
        """Checks the log, from its first entry on, by itself, against the rows, and against a `head` noted earlier."""
        with self._looking() as connection:
            return checking.verify_log(connection, self._vault, self.path, head)

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copies the gallery, while it is in use, into one file that the same key opens."""
        self._reader.backup(as_path(target, "the backup"))

    def export(self, target: str | os.PathLike[str], *, key: Key | None = None, plain: bool = False) -> int:
        """Writes Parquet: who is enrolled, and with `key` also templates sealed with it, or with `plain` as plain
        vectors (see `steadface.gallery.portable`). Returns the number of rows.
        """
        file = as_path(target, "the export")
        with self._changing() as desk:
            table = portable.exported(desk, self.model, key=key, plain=plain)
            desk.log("export", kind=portable.kind_of(key, plain), rows=table.num_rows)
        portable.write(file, table)
        return int(table.num_rows)

    def import_(self, source: str | os.PathLike[str], *, key: Key | None = None) -> portable.Imported:
        """Enrols the people of a Parquet file that `export` wrote: everybody or nobody.

        Raises `SteadfaceError` for a file that is broken, of another model or sealed with another key, and for people
        who are enrolled already.
        """
        self._check_usable()
        model, source = self.model, as_path(source, "the import")
        brought = portable.read(source, model, key=key, now=self._now())
        with self._changing(model) as desk:
            portable.refuse_known(desk, brought, source)
            enrolled = [changes.enroll(desk, enrollee) for enrollee in brought.enrollees]
            desk.log("import", people=len(enrolled))
        return brought

    def _new_key(self) -> Key:
        """Beside the one that it takes the place of, since a backup may still need that."""
        key = new_key()
        return write_key(keys_folder() / f"{self._vault.gallery}.{key.id}.key", key)
