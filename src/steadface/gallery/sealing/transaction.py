"""People and their templates as a storage keeps them: opened on the way out, sealed on the way in, and written down in
the log; callers hold the transaction.
"""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import Shard
from steadface.errors import NotFound, quoted
from steadface.gallery.index import Vectors
from steadface.gallery.person import Person, PersonId, checked_name
from steadface.gallery.sealing import log
from steadface.gallery.sealing.keys import Unsealable
from steadface.gallery.sealing.log import Finding, Verification
from steadface.gallery.sealing.vault import SUMS, State, Vault, moment, stamp, trace
from steadface.gallery.storage import ASKED, Entry, PersonRow, Snapshot, TemplateRow, Transaction

UNKNOWN = -1
BLOCK = 8192
"""Templates opened at a time, 17 MB of 512 numbers each."""


class NotEnrolled(NotFound):
    """Nobody of that name is in the gallery."""


@dataclass(frozen=True, kw_only=True)
class Templates:
    """Some templates: their `numbers` (n,), the `owners` (n,), numbers of people, and `vectors` (n, D)."""

    numbers: NDArray[np.int64]
    owners: NDArray[np.int64]
    vectors: Vectors


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One state of a gallery, its `rows` opened with `vault`; `state` is what its header holds sealed, and `now` the
    time. All of it raises `Unsealable` for rows and entries that were changed by other means.
    """

    rows: Snapshot
    vault: Vault
    state: State
    now: datetime

    def check_end(self) -> None:
        """Raises `Unsealable` where the log does not end as it did when the gallery was last written."""
        if not self.state.sequence:
            return
        last = self.rows.last_entry()
        if last is None or log.expected_hash(last, self.vault.log_key).hex() != self.state.head:
            raise Unsealable(f"the end of the log behind entry {self.state.sequence}")

    def find(self, name: str) -> Person | None:
        return self.found([name]).get(name)

    def found(self, names: Collection[str]) -> dict[str, Person]:
        """Those of these names who are enrolled, by name."""
        tags = list(map(self.vault.tag, names))
        asked = (self.rows.people(tags=tags[first : first + ASKED]) for first in range(0, len(tags), ASKED))
        found = {person.name: person for person in map(self.vault.open_person, chain.from_iterable(asked))}
        if strangers := found.keys() - set(names):
            raise Unsealable(f"person {found[min(strangers)].number}")
        return found

    def known(self, name: str) -> Person:
        """Who has that name, or that `PersonId`. Raises `NotEnrolled`."""
        by_id = isinstance(name, PersonId)
        person = next(self.people(ids=[name]), None) if by_id else self.find(checked_name(name))
        if person is None:
            raise NotEnrolled(f"{quoted(name)} is not enrolled; `steadface gallery list` says who is")
        return person

    def page(self, after: int, most: int) -> list[Person]:
        """At most so many of higher numbers, in the order in which they were enrolled."""
        return [self.vault.open_person(row) for row in islice(self.rows.people(after=after), most)]

    def people(self, *, ids: Collection[str] | None = None, numbers: Collection[int] | None = None) -> Iterator[Person]:
        """All of them, or those of these ids or numbers, in the order in which they were enrolled."""
        people = map(self.vault.open_person, self.rows.people(ids=ids, numbers=numbers))
        if ids is None and numbers is None:
            everybody = list(people)
            self.check_count("people", len(everybody))
            return iter(everybody)
        return people

    def check_count(self, what: Literal["people", "templates"], there: int) -> None:
        """Raises `Unsealable` where all that are `there` are not as many as there were when the gallery was written."""
        expected: int = getattr(self.state, what)
        if expected not in (UNKNOWN, there):
            raise Unsealable(f"the number of {what}, {there} in place of {expected},")

    def count_people(self) -> int:
        return self.rows.count_people() if self.state.people == UNKNOWN else self.state.people

    def count_templates(self) -> int:
        return self.rows.count_templates() if self.state.templates == UNKNOWN else self.state.templates

    def expired(self) -> list[Person]:
        return list(map(self.vault.open_person, self.rows.people(expired_by=stamp(self.now))))

    def count_findable(self) -> int:
        """How many have not expired."""
        return self.count_people() - self.rows.count_people(expired_by=stamp(self.now))

    def templates_of(self, person: Person) -> Templates:
        """Those of one person, who has one or more, ascending."""
        own = self._opened(self.rows.templates(person=person.number))
        if not len(own.numbers):
            raise Unsealable(f"person {person.number}, of whom no template is left,")
        return own

    def templates(self, after: int = 0, shard: Shard | None = None) -> Iterator[Templates]:
        """Those with higher numbers, of a shard or of all, ascending, in blocks."""
        rows = self.rows.templates(after=after, shard=shard)
        while len((block := self._opened(islice(rows, BLOCK))).numbers):
            yield block

    def these(self, numbers: Collection[int]) -> Templates:
        """Those of these numbers that are there, ascending."""
        return self._opened(self.rows.templates(numbers=numbers))

    def entries(
        self, *, after: int = 0, events: Collection[str] | None = None, person: str | None = None
    ) -> Iterator[Entry]:
        """Those of the log (`Snapshot.entries`), each of them known to be genuine."""
        return log.authentic(self.rows.entries(after=after, events=events, person=person), self.vault.log_key)

    def last_sequence(self) -> int:
        """Of the last entry of the log."""
        last = self.rows.last_entry()
        return 0 if last is None else last.sequence

    def times_added(self, person: Person) -> dict[int, datetime]:
        """When the templates of a person were added, by number, as the log says."""
        return {
            number: moment(entry.time)
            for entry in self.entries(person=person.id)
            for number in log.named(entry, "added")
        }

    def verify_log(self, head: str | None) -> Verification:
        """The chain, its agreement with the rows, and that each row is as it was sealed. Raises `InvalidInput` where
        what the storage keeps is damaged.
        """
        self.rows.check()
        owners, edited = self._look_through()
        verified = log.verify(
            self.rows.entries(),
            self.vault.log_key,
            templates=owners,
            people={row.id for row in self.rows.people()},
            head=head,
        )
        findings = (*verified.findings, *edited, *self._header_findings())
        return replace(verified, findings=findings or tuple(self._older_rows()))

    def _header_findings(self) -> Iterator[Finding]:
        try:
            self.check_end()
        except Unsealable as error:
            what = f"{error} was cut off, or others were added there: it ends otherwise than when it was last written"
            yield Finding(sequence=None, what=what)

    def sum(self) -> int:
        """Over all rows, as the state has it."""
        return self.vault.sum(chain(self.rows.people(), self.rows.templates()))

    def _older_rows(self) -> Iterator[Finding]:
        """Where each row by itself is in order."""
        if self.state.rows not in (UNKNOWN, self.sum()):
            what = "rows are not those that were written last: earlier ones were put back, or those of a copy"
            yield Finding(sequence=None, what=what)

    def _look_through(self) -> tuple[dict[int, str], list[Finding]]:
        """Whose each template is, and the first person and the first template that are not as they were sealed."""
        broken: dict[str, str] = {}
        for person in self.rows.people():
            try:
                self.vault.open_person(person)
            except Unsealable as error:
                broken.setdefault("person", str(error))
        owners: dict[int, str] = {}
        for template in self.rows.templates():
            if template.owner is not None:
                owners[template.number] = template.owner
            try:
                self.vault.open_template(template)
            except Unsealable as error:
                broken.setdefault("template", str(error))
        said = [f"a row was edited or moved: {what} does not unseal" for what in broken.values()]
        return owners, [Finding(sequence=None, what=what) for what in said]

    def _opened(self, block: Iterable[TemplateRow]) -> Templates:
        """Each is opened as it comes, so that nothing but templates is ever held."""
        numbers, owners, plain = list[int](), list[int](), list[bytes]()
        for row in block:
            numbers.append(row.number)
            owners.append(row.person)
            plain.append(self.vault.open_template(row))
        vectors = np.frombuffer(b"".join(plain), dtype="<f4").reshape(len(plain), -1 if plain else 0)
        return Templates(
            numbers=np.array(numbers, dtype=np.int64),
            owners=np.array(owners, dtype=np.int64),
            vectors=vectors.astype(np.float32, copy=False),
        )


@dataclass(frozen=True, kw_only=True)
class Writer(Reader):
    """A change, in a transaction."""

    rows: Transaction
    change: Counter[str] = field(default_factory=Counter)
    """How many `people` and `templates` came, less those that went; and the sum over `rows`."""

    def log(self, event: str, person: Person | None = None, **details: Any) -> None:
        identity = None if person is None else person.id
        last = self.rows.last_entry()
        self.rows.append(log.following(last, self.vault.log_key, event, now=self.now, person=identity, **details))

    def owe(self) -> None:
        """Notes that the storage has yet to be cleared of what is deleted here."""
        self.rows.write_header(replace(self.rows.header(), owed=True))

    def seal(self, vault: Vault, *, settled: bool = False) -> State:
        """Seals the gallery as it is now, with the last entry of its log and, unless it is `settled`, what was owed."""
        header, last = self.rows.header(), self.rows.last_entry()
        assert last is not None  # a log begins when the gallery does
        state = State(
            created=header.created,
            model=header.model,
            owed=header.owed or (self.state.owed and not settled),
            sequence=last.sequence,
            head=last.hash.hex(),
            template=max(self.rows.numbers().templates, self.state.template),
            people=self.count_people() + self.change["people"],
            templates=self.count_templates() + self.change["templates"],
            rows=(self.state.rows + self.change["rows"]) % SUMS,
        )
        if state != self.state or vault.key != self.vault.key:
            self.rows.write_header(replace(header, key=vault.key.id, secret=vault.sealed(state)))
        return state

    def put(self, person: Person) -> Person:
        """The person as enrolled anew (number 0), under a random id, or as changed."""
        if not person.number:
            person = replace(person, id=secrets.token_hex(16))
            self.change["people"] += 1
        else:
            self._count(gone=[self._row(person)])
        row = self.vault.seal_person(person)
        number = self.rows.put_person(row)
        self._count(come=[row._replace(number=number)])
        return replace(person, number=number)

    def put_templates(self, person: Person, vectors: Vectors) -> range:
        """Their numbers, which follow all that there ever were: as sealed, should what keeps count be set back."""
        first = 1 + max(self.rows.numbers().templates, self.state.template)
        rows = [self.vault.seal_template(number, person, vector) for number, vector in enumerate(vectors, start=first)]
        self.rows.add_templates(rows)
        self.change["templates"] += len(rows)
        self._count(come=rows)
        return range(first, first + len(vectors))

    def delete_templates(self, person: Person, only: int | None = None) -> tuple[list[int], list[bytes]]:
        """Deletes those of a person, or `only` the one of that number: the numbers, and the traces that must go."""
        gone = [row for row in self.rows.templates(person=person.number) if only is None or row.number == only]
        numbers = [row.number for row in gone]
        self.rows.delete_templates(numbers)
        self.change["templates"] -= len(numbers)
        self._count(gone=gone)
        return numbers, [trace(row.sealed) for row in gone]

    def delete(self, person: Person, event: str) -> list[bytes]:
        """Deletes a person with all templates; the traces that must go."""
        numbers, traces = self.delete_templates(person)
        row = self._row(person)
        traces.append(trace(row.sealed))
        self._count(gone=[row])
        self.rows.delete_person(person.number)
        self.change["people"] -= 1
        self.log(event, person, removed=log.ranges(numbers), gone=True)
        self.owe()
        return traces

    def trace_of(self, person: Person) -> bytes:
        """Of their name, consent and notes as they are kept now."""
        return trace(self._row(person).sealed)

    def _row(self, person: Person) -> PersonRow:
        (row,) = self.rows.people(numbers=[person.number])
        return row

    def _count(
        self, *, come: Iterable[PersonRow | TemplateRow] = (), gone: Iterable[PersonRow | TemplateRow] = ()
    ) -> None:
        self.change["rows"] += self.vault.sum(come) - self.vault.sum(gone)

    def reseal(self, new: Vault) -> None:
        """Seals every row with the key of `new` in place of the present one."""
        before = self.sum()
        self.rows.reseal_people(map(new.seal_person, self.people()))
        templates = list(self.rows.templates())
        self.rows.reseal_templates(self.vault.resealed(row, new) for row in templates)
        self.change["rows"] += self.sum() - before
