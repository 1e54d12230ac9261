"""A gallery: who is enrolled, kept where nothing is lost, and the search among them.

    with Gallery.create(path, model=identity) as gallery:
        gallery.enroll("Ada", vectors, consent="form of 2031-05-02", expires=when)
        gallery.search(probes, k=5)

A path is that of a file, and `postgresql://...` the address of a database; another `Storage`
(`steadface.gallery.storage`) does as well. What is returned from `enroll` or `remove` is on the disk. Any number of
threads and processes may use one gallery at once: one writes at a time, nobody waits to search, and a search sees all
that was committed before it began.
"""

import json
import os
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from steadface.arguments import as_path, count
from steadface.errors import Conflict, InvalidInput, NotFound, quoted
from steadface.files import check_replaced
from steadface.gallery import copying, enrollment, imported, maintenance, parquet
from steadface.gallery.enrollment import Enrollee, Enrolment
from steadface.gallery.following import Freshness, Known
from steadface.gallery.imported import Imported
from steadface.gallery.index import Vectors, comparison
from steadface.gallery.index.engine_follower import EngineFollower
from steadface.gallery.maintenance import Merged, Template
from steadface.gallery.person import Person, PersonId, checked_name, checked_vectors
from steadface.gallery.place import Place, storage_at
from steadface.gallery.requests import Request
from steadface.gallery.sealing.keys import Key, Unsealable, given, keys_folder, new_key, write_key
from steadface.gallery.sealing.log import Verification, checked_head
from steadface.gallery.sealing.transaction import NotEnrolled, Reader
from steadface.gallery.sealing.vault import moment, stamp
from steadface.gallery.session import OpenGallery, check_identity
from steadface.gallery.shards import Found
from steadface.gallery.storage import Entry, ModelIdentity

SHOWN = 3
"""Findings in a message."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Somebody found, the cosine to the most similar of their templates, and which that is."""

    person: Person
    similarity: float
    template: int


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a gallery says of itself: `size` in bytes, `entries` how many the log has, `head` the hash of the last."""

    id: str
    created: str
    model: ModelIdentity
    key: str
    people: int
    templates: int
    size: int
    entries: int
    head: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """That somebody was removed: their random id, the event, when, and the hash of the `entry` of the log that says so.

    `verify_log` with `entry` as its head confirms it for as long as the gallery is there.
    """

    person: str
    event: str
    time: str
    entry: str

    @classmethod
    def of(cls, entry: Entry) -> "Receipt":
        """That which an entry about a removal is."""
        return cls(person=entry.person or "", event=entry.event, time=entry.time, entry=entry.hash.hex())


class Gallery(OpenGallery):
    """Made by `Gallery.create` or `Gallery.open`; a context manager."""

    def __len__(self) -> int:
        """The number of people, expired ones included."""
        with self._reading() as reader:
            return reader.count_people()

    def info(self) -> Info:
        with self._reading() as reader:
            rows = reader.rows
            header, last = rows.header(), rows.last_entry()
            return Info(
                id=header.id,
                created=header.created,
                model=header.model,
                key=header.key,
                people=reader.count_people(),
                templates=reader.count_templates(),
                size=rows.size(),
                entries=0 if last is None else last.sequence,
                head="" if last is None else last.hash.hex(),
            )

    def people(self) -> list[Person]:
        """Everybody, expired or not, in the order in which they were enrolled."""
        with self._reading() as reader:
            return list(reader.people())

    def page(self, *, after: int = 0, most: int = 100) -> list[Person]:
        """At most so many people behind the one of the number `after`, in the order in which they were enrolled."""
        with self._reading() as reader:
            return reader.page(after, most)

    def entries(self, *, after: int = 0, most: int = 100) -> list[Entry]:
        """At most so many entries of the log behind that of the number `after`, oldest first."""
        with self._reading() as reader:
            return list(islice(reader.entries(after=after), most))

    def receipt(self, person: PersonId) -> Receipt:
        """What shows later that somebody was removed. Raises `NotFound` where the log tells of no such removal."""
        with self._reading() as reader:
            gone = [one for one in reader.entries(person=person) if json.loads(one.details).get("gone")]
        if not gone:
            raise NotFound(f"the log of {self.name} does not tell that {quoted(person)} was removed; check the id")
        return Receipt.of(gone[-1])

    def person(self, name: str) -> Person:
        """Raises `NotEnrolled`."""
        with self._reading() as reader:
            return reader.known(name)

    def enroll(
        self,
        person: str,
        vectors: ArrayLike,
        *,
        consent: str | None = None,
        expires: date | str | None = None,
        notes: str | None = None,
        alike: float | None = None,
        request: Request | None = None,
    ) -> Enrolment:
        """Adds unit `vectors` (n, D) to `person`, who is new or enrolled already: all of them or none.

        `expires` is a day, to its end in UTC, or a time with its zone; as a `date`, a `datetime` or in ISO 8601.
        What was done for an equal `request` in the last day is not done again, but told (`repeated`).

        Raises `InvalidInput` for what are not templates of the gallery's model, `Conflict` for somebody whose consent
        expired, and `NotAlike` where `person` is enrolled already and one of the vectors has no cosine of `alike` or
        more (None: whatever it is) with any of their templates.
        """
        return self.enroll_many(
            [
                Enrollee(
                    name=person,
                    vectors=vectors,
                    consent=consent,
                    expires=expires,
                    notes=notes,
                    alike=alike,
                    request=request,
                )
            ]
        )[0]

    def enroll_many(self, enrollees: Iterable[Enrollee], *, new_from: str | None = None) -> list[Enrolment]:
        """Many people in one transaction: everybody or nobody. Raises as `enroll` does, and where they come from
        somewhere as `new_from` names it, `Conflict` for those who are enrolled already.
        """
        model, now = self.model, self._now()
        checked = [enrollment.checked(enrollee, model, now) for enrollee in enrollees]
        with self._writing(model) as writer:
            known = writer.found([enrollee.name for enrollee in checked])
            if new_from is not None:
                imported.refuse_known(known, checked, new_from)
            return [self._done(writer, one.request) or enrollment.enroll(writer, one, known) for one in checked]

    def done(self, request: Request) -> Enrolment | None:
        """What was done for an equal request in the last day.

        Raises `RequestReused` where its key was used for another one, and `NotEnrolled` where who was enrolled then has
        been removed since.
        """
        with self._reading() as reader:
            return self._done(reader, request)

    def _done(self, reader: Reader, request: Request | None) -> Enrolment | None:
        before = None if request is None else self._requests.done(reader, request)
        if before is None:
            return None
        if before.person is None:
            raise NotEnrolled(
                "this request was done before, and who was enrolled by it has been removed since; to enrol them anew "
                "make a request with a key of its own"
            )
        return Enrolment(person=before.person, templates=before.templates, repeated=True)

    def remove(self, name: str) -> Person:
        """Removes a person; once this returns, nothing of them is left in the file but their random id in the log.

        Raises `NotEnrolled`.
        """
        return self.removed(name)[0]

    def removed(self, name: str) -> tuple[Person, Receipt]:
        """As `remove`, with the receipt of it."""
        with self._writing() as writer:
            person = writer.known(name)
            traces = writer.delete(person, "remove")
            entry = writer.rows.last_entry()
        self._scrub(traces)
        assert entry is not None
        return person, Receipt.of(entry)

    def templates(self, name: str) -> list[Template]:
        """A person's templates, oldest first. Raises `NotEnrolled`."""
        with self._reading() as reader:
            return maintenance.templates(reader, reader.known(name))

    def remove_template(self, name: str, template: int) -> Person:
        """Removes one template of a person, of which nothing is left in the file either; the person with the others.

        Raises `NotEnrolled`, `NotFound` where it is not theirs, and `Conflict` where it is the only one that they have.
        """
        with self._writing() as writer:
            person, traces = maintenance.remove_template(writer, writer.known(name), template)
        self._scrub(traces)
        return person

    def rename(self, name: str, new: str) -> Person:
        """Gives a person the name `new`; nothing is left of the old one.

        Raises `NotEnrolled`, `Conflict` where somebody has the new name, and `InvalidInput` where it is not a name.
        """
        with self._writing() as writer:
            person, traces = maintenance.rename(writer, writer.known(name), new)
        self._scrub(traces)
        return person

    def merge(self, name: str, into: str, *, alike: float | None = None) -> Merged:
        """Gives the templates of `name` to `into`, and removes `name`: one person who was enrolled under two names.

        `into` keeps consent and notes, or takes over what only `name` has; the earlier expiry counts. Raises
        `NotEnrolled`, `NotAlike` where no two of their templates have a cosine of `alike` or more (None: whatever it
        is), `InvalidInput` where both are one, and `Conflict` where somebody's consent expired.
        """
        with self._writing() as writer:
            merged, traces = maintenance.merge(writer, writer.known(name), writer.known(into), alike)
        self._scrub(traces)
        return merged

    def confusable(self, name: str) -> list[str]:
        """The names of other people enrolled that look like `name` (`steadface.gallery.person`)."""
        with self._reading() as reader:
            return self._names.like(checked_name(name), reader)

    def findable(self) -> int:
        """The number of people whom a search may find: all but those whose consent has expired."""
        if self._following is not None and (known := self._known_now(self.model).findable) is not None:
            return known
        with self._reading() as reader:
            return reader.count_findable()

    def freshness(self, *, wait: bool = True) -> Freshness:
        """How old a state a search answers from that begins now, at most. Raises `Unavailable` as that does, or, where
        it should not `wait`, at once.
        """
        if self._following is not None:
            return (self._known_now(self.model) if wait else self._following.fresh()).freshness
        with self._reading() as reader:
            return Freshness(entry=reader.last_sequence(), age=0.0)

    def expire(self) -> list[Person]:
        """Removes everybody whose consent has expired, as `remove` does, and says whom."""
        with self._writing() as writer:
            expired = writer.expired()
            traces = [trace for person in expired for trace in writer.delete(person, "expire")]
        if expired:
            self._scrub(traces)
        return expired

    def note_matches(self, people: Iterable[str]) -> None:
        """Writes into the log that these were matched, those of them who are enrolled; see `idle`."""
        names = list(people)
        with self._writing() as writer:
            known = writer.found(names)
            for name in names:
                if name in known:
                    writer.log("match", known[name])

    def idle(self, since: datetime) -> list[Person]:
        """Who was neither enrolled nor given a template, nor noted as matched, since then."""
        with self._reading() as reader:
            last = {one.person: one.time for one in reader.entries(events=("enroll", "match"))}
            return [one for one in reader.people() if moment(last.get(one.id, stamp(one.created))) < since]

    def search(self, vectors: ArrayLike, k: int = 1) -> list[list[Candidate]]:
        """For each of the unit `vectors` (B, D) the `k` most similar people, most similar first, each with the best of
        their templates; fewer where there are fewer. Nobody whose consent has expired is found.
        """
        model = self.model
        if self._shard is not None:
            raise Conflict(
                f"this holds the shard {self._shard} of the gallery {self.name}, and finds a part of its people alone; "
                "ask the node that knows all shards"
            )
        probes = checked_vectors(vectors, model, "the search")
        k = count("k", k)
        while True:
            known = self._known_now(model)
            matches = known.follower.search(probes, k)
            numbers = {number for one in matches for number, _, _ in one}
            people = self._found(known, numbers)
            if len(people) == len(numbers):  # else somebody was removed meanwhile
                break
        if self._log_searches:
            with self._writing() as writer:
                writer.log("search", k=k, best=[people[one[0][0]].id if one else None for one in matches])
        now = self._now()  # whatever the index of expiries says, which somebody may have edited
        return [
            [
                Candidate(person=people[number], similarity=cosine, template=key)
                for number, cosine, key in one
                if not people[number].expired(now)
            ]
            for one in matches
        ]

    def search_shard(self, vectors: ArrayLike, k: int = 1, *, least: int = 0) -> Found:
        """What is found in the shard that the gallery was opened for, in a state that has the entry `least` of the log:
        for each of the unit `vectors` (B, D) numbers, cosines and templates of the `k` most similar people. Raises
        `Conflict` where it was opened for none.
        """
        model = self.model
        if self._shard is None:
            raise Conflict(f"the gallery {self.name} was opened as a whole, and not for a shard of it; open it for one")
        probes = checked_vectors(vectors, model, "the search") if np.size(vectors) else None
        known = self._known_now(model, least)
        ranked = [] if probes is None else known.follower.search(probes, count("k", k))
        return Found(gallery=self._vault.gallery, shard=self._shard, entry=known.sequence, ranked=ranked)

    def _found(self, known: Known, numbers: Set[int]) -> dict[int, Person]:
        """Those of these numbers who are still there, by number, where they were all found in a state that is known."""
        people = {number: known.people[number] for number in numbers & known.people.keys()}
        if not (unknown := numbers - people.keys()):
            return people
        with self._reading() as reader:
            read = {person.number: person for person in reader.people(numbers=unknown)}
            if reader.last_sequence() == known.sequence:
                if len(read) < len(unknown):
                    raise Unsealable(f"person {min(unknown - read.keys())}, who is gone,")
                known.keep(read)
        return people | read

    def check_index(
        self, *, mend: bool = False, after: int = 0, progress: comparison.Progress | None = None
    ) -> comparison.Compared:
        """Compares the engine that the gallery was opened with, once it has caught up as for a search, with the
        templates behind the number `after`; with `mend` what is wrong is put right, also where the engine followed
        another history of the gallery, as it does after a backup was restored.

        Raises `InvalidInput` where the gallery was opened without an engine.
        """
        if not isinstance(self._follower, EngineFollower):
            raise InvalidInput(
                "there is no index to be checked: one in memory is made from the gallery whenever that is opened; name "
                "the one that is kept elsewhere"
            )
        return comparison.compare(self._follower, self._reading, mend=mend, after=after, progress=progress)

    def similarities(self, name: str, vectors: ArrayLike, *, template: int | None = None) -> Vectors:
        """Of each of the unit `vectors` (B, D) the highest cosine to a template of one person, or to that of the number
        `template`: (B,), whoever else is enrolled.

        Raises `NotEnrolled`, `NotFound` where the template is not theirs, and `Conflict` where their consent expired.
        """
        model = self.model
        probes = checked_vectors(vectors, model, "the comparison")
        with self._reading(model) as reader:
            return maintenance.similarities(reader, reader.known(name), probes, template)

    def rotate(self, key: Key | str | os.PathLike[str] | None = None) -> Key:
        """Seals everything with another key, of which the old one opens nothing then; a random one, written into the
        user's configuration, where none is given. Until this returns either key may be the gallery's: keep both.
        """
        self._check_usable()  # before a key is made for it
        new = given(key) or self._new_key()
        if new.id == self.key.id:
            raise InvalidInput(f"{new.source} holds the gallery's present key; give another")
        vault = self._vault.rekeyed(new)
        with self._storage.exclusive():  # no thread uses the old key meanwhile
            with self._changing(None, vault) as writer:
                maintenance.rotate(writer, vault)
            self._vault = vault
        self._scrub()
        return new

    def re_embed(
        self, model: ModelIdentity, vectors: Mapping[str, ArrayLike], *, drop_missing: bool = False
    ) -> tuple[list[Enrolment], list[Person]]:
        """Makes this a gallery of another model: everybody's templates give way to unit `vectors` (n, D) by name.

        Returns the new enrolments and who was dropped. Raises `InvalidInput`, and changes nothing, where somebody has
        no vectors, unless they are to be dropped.
        """
        check_identity(model)
        with self._storage.exclusive():
            with self._changing(None, self._vault) as writer:
                done = maintenance.re_embed(writer, model, vectors, drop_missing=drop_missing)
            self._follower.close()
            self.model, self._follower = model, self._searcher(model)
        self._scrub()
        return done

    def verify_log(self, *, head: str | None = None) -> Verification:
        """Checks the log, from its first entry on, by itself, against the rows, and against a `head` noted earlier."""
        with self._reading(whole_log=False) as reader:
            return reader.verify_log(None if head is None else checked_head(head))

    def backup(self, target: str | os.PathLike[str]) -> None:
        """Copies the gallery, while it is in use, into one file that the same key opens."""
        self._storage.backup(as_path(target, "the backup"))

    def copy(self, target: Place, *, progress: copying.Progress | None = None) -> Verification:
        """Copies the gallery, as it is at this moment, into a new file or database, where the same key opens it: all of
        it, up to the same head of its log and verified by that, or nothing.

        Raises `Conflict` where something is there already, and `InvalidInput` where what was copied is not in order.
        """
        storage = storage_at(target)
        storage.check_free()
        with self._reading() as reader:
            last = reader.rows.last_entry()
            storage.create(copying.contents(reader, progress))
        head = "" if last is None else last.hash.hex()
        try:
            with type(self).open(storage, key=self.key) as copied:
                verified = copied.verify_log(head=head)
            if not verified.intact or verified.head != head:
                wrong = "; ".join(finding.what for finding in verified.findings[:SHOWN])
                raise InvalidInput(
                    f"the copy of {self.name} is not in order ({wrong}), and was taken away: `steadface gallery "
                    "verify-log` says whether the gallery itself is"
                )
        except BaseException:
            storage.destroy(head)
            raise
        return verified

    def export(
        self, target: str | os.PathLike[str], *, key: Key | str | os.PathLike[str] | None = None, plain: bool = False
    ) -> int:
        """Writes Parquet: who is enrolled, and with `key` also templates sealed with it, or with `plain` as plain
        vectors (see `steadface.gallery.parquet`). Returns the number of rows. Raises `Conflict` where there is a file
        of another kind.
        """
        file = as_path(target, "the export")
        key = given(key)
        check_replaced(file, parquet.MAGIC)
        with self._writing() as writer:
            table = parquet.exported(writer, self.model, key=key, plain=plain)
            writer.log("export", kind=parquet.kind_of(key, plain), rows=table.num_rows)
        parquet.write(file, table)
        return int(table.num_rows)

    def import_(self, source: str | os.PathLike[str], *, key: Key | str | os.PathLike[str] | None = None) -> Imported:
        """Enrols the people of a Parquet file that `export` wrote: everybody or nobody.

        Raises `InvalidInput` for a file that is broken or sealed with another key, and `Conflict` for one of another
        model and for people who are enrolled already.
        """
        self._check_usable()
        model, source = self.model, as_path(source, "the import")
        brought = imported.read(source, model, key=given(key), now=self._now())
        with self._writing(model) as writer:
            known = writer.found([enrollee.name for enrollee in brought.enrollees])
            imported.refuse_known(known, brought.enrollees, str(source))
            enrolled = [enrollment.enroll(writer, enrollee, known) for enrollee in brought.enrollees]
            writer.log("import", people=len(enrolled))
        return brought

    def _new_key(self) -> Key:
        """Beside the one that it takes the place of, since a backup may still need that."""
        key = new_key()
        return write_key(keys_folder() / f"{self._vault.gallery}.{key.id}.key", key)
